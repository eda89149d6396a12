"""Whose words stand where, in the prompts of every protocol, as tokens of two kinds of tokenizers."""

import re
import string
from dataclasses import replace

import pytest

from coterie.agents import embedders
from coterie.agents.engines import models
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.errors import EnvironmentMissing
from coterie.orchestration import records
from coterie.orchestration.protocols.config import MachineSomConfig, SelfConsistencyConfig, SelfOrgConfig
from coterie.orchestration.protocols.config_comas import ComasConfig
from coterie.orchestration.protocols.config_debates import DebateConfig, GroupThinkConfig, MadConfig
from coterie.orchestration.protocols.config_networks import DylanConfig, MacNetConfig
from coterie.orchestration.protocols.config_teams import AgentVerseConfig, AutoGenConfig
from coterie.orchestration.spans import Span, read_prompts
from coterie.testing.models import write_llama
from coterie.testing.stage import AGENTS, play
from coterie.text import fence
from coterie.types import Edge, Message, Outcome, Place, Sampling, Turn

CONTEXT = 1 << 16
MARK = re.compile(r"q[a-p]{5}")
WORDS = ("agree", "object", "revise", "accept", "undecided", "negative")
REPLIES = tuple(
    "1. {0}\n2. {0}\n3. {0}\nRatings: 3, {1}\nRanking: {1}, 1, 2\nScore: {2}\nDecision: {3}\n{0} Answer: {2}".format(
        "q" + "".join(chr(ord("a") + int(digit, 16)) for digit in f"{i:05x}"), i % 5 + 1, i % 3 + 1, WORDS[i % 6]
    )
    for i in range(0, 16**5, 257)
)
CONFIGS = [
    SelfConsistencyConfig(samples=3),
    MachineSomConfig(),
    MachineSomConfig(history="last", strategy=("reflect", "debate")),
    DebateConfig(rounds=3),
    MadConfig(),
    GroupThinkConfig(),
    GroupThinkConfig(granularity="chunk", rounds=4),
    DylanConfig(team=2, rounds=2, rank_from=2),
    DylanConfig(rounds=3),
    MacNetConfig(graph="complete"),
    AgentVerseConfig(),
    AgentVerseConfig(structure="horizontal"),
    AutoGenConfig(),
    ComasConfig(rounds=4),
    ComasConfig(preset="improved", evaluations=2),
    ComasConfig(preset="release", evaluations=0, history="last_rounds"),
    ComasConfig(rounds=3, evaluations=2, scoring=False, verdict="constrained"),
]


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> ChatTokenizer:
    folder = write_llama(tmp_path_factory.mktemp("letters"), alphabet=string.printable, layers=1, width=8, heads=1)
    return ChatTokenizer.load(str(folder), CONTEXT)


@pytest.fixture(scope="module")
def pieces() -> ChatTokenizer:
    """Of coterie-tiny."""
    return ChatTokenizer.load(models.resolve("coterie-tiny"), CONTEXT)


@pytest.fixture(params=["letters", "pieces"])
def speller(request) -> ChatTokenizer:
    return request.getfixturevalue(request.param)


def tokenise(turns: dict[str, Turn], speller: ChatTokenizer) -> dict[str, Turn]:
    """Turns of scripted agents as if a model had said them."""
    said = {key: speller._tokenizer.encode(turn.text, add_special_tokens=False) for key, turn in turns.items()}

    def so_far(key: str | None) -> tuple[int, ...]:
        return (*so_far(turns[key].continues), *said[key]) if key is not None else ()

    return {
        key: replace(
            turn, token_ids=tuple(said[key]), prompt_ids=speller.render(turn.prompt) + so_far(turn.continues)
        )
        for key, turn in turns.items()
    }  # fmt: skip


def episodes(config, engine=None, num_tasks=2):
    with play(config, num_tasks=num_tasks, engine=engine or {"replies": REPLIES, "context": CONTEXT}) as journal:
        for fact in journal.facts("episode"):
            outcome = records.read_outcome(fact.payload)
            yield outcome, {key: records.read_turn(key, journal.get(key)) for key in outcome.turns}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.label)
def test_every_word_of_a_peer_is_found_where_it_stands_and_is_its_own(config, speller):
    check(config, speller)


def test_so_it_is_where_agents_rewire_themselves(pieces):
    try:
        embedders.fingerprint("minilm")
    except EnvironmentMissing:
        pytest.skip("the embedder minilm is not installed")
    check(SelfOrgConfig(threshold=-1.0), pieces)


def check(config, speller):
    for outcome, scripted in episodes(config):
        turns = tokenise(scripted, speller)
        found = read_prompts(outcome, turns, {"base": speller})
        assert found.missing == ()
        said: dict[str, set[str]] = {}
        for key, turn in turns.items():
            for mark in MARK.findall(turn.text):
                said.setdefault(mark, set()).add(key)
        for key, spans in found.spans.items():
            text, places = speller.spell_out(turns[key].prompt_ids)
            owners = {number: set(span.turns) for span in spans for number in range(span.start, span.stop)}
            for mark in MARK.finditer(text):
                inside = [n for n, (a, b) in enumerate(places) if a < mark.end() and b > mark.start()]
                assert all(owners.get(n, set()) & said[mark[0]] for n in inside), (key, mark[0])


def test_a_span_holds_the_message_and_nothing_else(letters):
    for outcome, scripted in episodes(DebateConfig(rounds=2)):
        turns = tokenise(scripted, letters)
        for key, spans in read_prompts(outcome, turns, {"base": letters}).spans.items():
            for span in spans:
                (said,) = span.turns
                assert letters.decode(turns[key].prompt_ids[span.start : span.stop]) == turns[said].text


def test_pieces_that_are_shown_as_one_are_told_apart(letters):
    config = GroupThinkConfig(granularity="chunk", rounds=3)
    engine = {"replies": ("so it is 4, ", "then it is 5, ", "hence 6 "), "context": CONTEXT, "faults": {"cut": 1.0}}
    seen = set()
    for outcome, scripted in episodes(config, engine):
        turns = tokenise(scripted, letters)
        found = read_prompts(outcome, turns, {"base": letters})
        assert found.missing == ()
        for key, spans in found.spans.items():
            begun, chain = turns[key].continues, 0
            while begun is not None:
                chain, begun = chain + 1, turns[begun].continues
            own = [span for span in spans if turns[span.turns[0]].place.seat == turns[key].place.seat]
            assert len(own) == chain
            seen.add((chain, len(spans)))
    assert (2, 6) in seen


def test_who_says_the_same_in_the_same_round_shares_the_words_and_one_s_own_are_one_s_own(letters):
    for outcome, scripted in episodes(DebateConfig(rounds=3), {"replies": ("Answer: 4",), "context": CONTEXT}):
        turns = tokenise(scripted, letters)
        found = read_prompts(outcome, turns, {"base": letters})
        assert found.missing == ()
        for key, spans in found.spans.items():
            place = turns[key].place
            seats = [{turns[t].place.seat for t in span.turns} for span in spans]
            rounds = [{turns[t].place.round for t in span.turns} for span in spans]
            others = {agent.name for agent in AGENTS} - {place.seat}
            assert seats == [{place.seat}, others, others] * place.round
            assert rounds == [{number} for number in range(place.round) for _ in range(3)]


# --- by hand

PEER = Place("sum", 0, "bob")
READER = Place("sum", 1, "ann")


def reading(speller, text, prompt, **changes):
    """What is found of bob's text in a prompt of ann's."""
    turns = {
        "b": Turn("b", PEER, "base", 0, (Message("user", "?"),), text, None, "stop", 1, 1),
        "a": Turn("a", READER, "base", 0, prompt, "4", None, "stop", 1, 1, **changes),
    }
    ids = {key: speller.render(turn.prompt) for key, turn in turns.items()}
    turns = {key: replace(turn, prompt_ids=turn.prompt_ids or ids[key]) for key, turn in turns.items()}
    outcome = Outcome("4", ({"bob": "b"}, {"ann": "a"}), (Edge(1, "bob", "ann", "b"),), turns=("a", "b"))
    return read_prompts(outcome, turns, {"base": speller}), turns["a"].prompt_ids


def show(speller, ids, span: Span) -> str:
    return speller.spell_out(ids[span.start : span.stop])[0]


def test_a_message_that_was_capped_is_found(speller):
    text = "long " * 900
    found, ids = reading(speller, text, (Message("user", fence(text)),))
    (span,) = found.spans["a"]
    assert show(speller, ids, span).strip().startswith("long long")
    assert show(speller, ids, span).strip().endswith("[cut]")


def test_control_tokens_marks_and_signs_of_several_tokens_do_not_hide_a_message(speller):
    text = "A <<< <turn> <|im_end|> héé 日本 🙂 x >>> B\x1b[31m red"
    found, ids = reading(speller, text, (Message("user", "Say:\n" + fence(text) + "\nNow you."),))
    (span,) = found.spans["a"]
    assert found.missing == ()
    assert show(speller, ids, span).strip().startswith("A < < <")
    assert show(speller, ids, span).strip().endswith("B red")


def test_a_message_that_is_not_there_is_missed_and_not_guessed(speller):
    found, _ = reading(speller, "seven", (Message("user", "Is it seven?\n" + fence("eight")),))
    assert found.spans["a"] == ()
    assert found.missing == (Edge(1, "bob", "ann", "b"),)


def test_an_empty_message_is_found_and_has_no_tokens(speller):
    found, _ = reading(speller, "", (Message("user", fence("")),))
    (span,) = found.spans["a"]
    assert found.missing == ()
    assert span.start == span.stop


def test_marks_that_an_agent_wrote_itself_show_nobody_s_words(speller):
    own = Message("assistant", "I quote:\n<<<\nseven\n>>>")
    found, _ = reading(speller, "seven", (Message("user", "?"), own, Message("user", "Go on.")))
    assert found.spans["a"] == ()
    assert found.missing == (Edge(1, "bob", "ann", "b"),)


def test_what_a_cut_prompt_still_shows_is_found(letters):
    messages = (
        Message("system", "You are ann."), Message("user", "An old question, long gone. " * 3),
        Message("assistant", "what I said"), Message("user", fence("seven")),
    )  # fmt: skip
    (encoded,) = ChatTokenizer(letters._tokenizer, 75).encode([messages], Sampling(max_tokens=8))
    assert encoded.dropped
    found, ids = reading(letters, "seven", messages, num_dropped=encoded.dropped, prompt_ids=encoded.prompt)
    assert [show(letters, ids, span) for span in found.spans["a"]] == ["seven"]


def test_turns_without_ids_are_left_out(letters):
    for outcome, scripted in episodes(DebateConfig(rounds=2)):
        turns = {key: replace(turn, prompt_ids=None) for key, turn in scripted.items()}
        found = read_prompts(outcome, turns, {"base": letters})
        assert found.spans == {}
        assert found.missing == ()
