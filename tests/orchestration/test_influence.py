"""From what a model attends to, in whole maps in float64, to shares of an episode's answer."""

import string
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from coterie.agents.engines.tokens import ChatTokenizer
from coterie.agents.learning.attending import AttentionReader
from coterie.attention.introspection import middle_layers
from coterie.orchestration import records
from coterie.orchestration.influence import Settings, answer_of, measure_influence
from coterie.orchestration.protocols.config_comas import ComasConfig
from coterie.orchestration.protocols.config_debates import DebateConfig
from coterie.orchestration.protocols.config_networks import MacNetConfig
from coterie.orchestration.protocols.config_teams import AgentVerseConfig
from coterie.testing.models import write_llama
from coterie.testing.stage import play
from coterie.types import Message, Outcome, Place, Turn

REPLIES = tuple(f"{'because ' * (i % 7)}Answer: {i % 2}" for i in range(40))


@dataclass
class Episode:
    outcome: Outcome
    turns: dict[str, Turn]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("llama")
    write_llama(where, alphabet=string.printable, layers=4, width=32, heads=4, context=2048)
    model = AutoModelForCausalLM.from_pretrained(where)
    # Of a fresh model attention is so even that nothing could go wrong.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(30)
    model.save_pretrained(where)
    return str(where)


@pytest.fixture(scope="module")
def speller(folder):
    return ChatTokenizer.load(folder, 2048)


def play_out(config, speller, replies):
    """Episodes of scripted agents as if a model had said what they say."""
    with play(config, num_tasks=2, engine={"replies": replies, "context": 1 << 16}) as journal:
        for fact in journal.facts("episode"):
            outcome = records.read_outcome(fact.payload)
            turns = {key: records.read_turn(key, journal.get(key)) for key in outcome.turns}
            encode = speller._tokenizer.encode
            yield Episode(
                outcome,
                {
                    key: replace(turn, prompt_ids=speller.render(turn.prompt), token_ids=tuple(encode(turn.text)))
                    for key, turn in turns.items()
                },
            )


@pytest.fixture(scope="module")
def episodes(speller):
    return list(play_out(DebateConfig(rounds=2), speller, REPLIES))


def find(tokens, text, between=("", "")):
    """Where the only copy of a text stands in a prompt of single characters."""
    wanted = [*between[0], *text, *between[1]]
    places = [i for i in range(len(tokens)) if tokens[i : i + len(wanted)] == wanted]
    assert len(places) == 1
    return range(places[0] + len(between[0]), places[0] + len(between[0]) + len(text))


def by_definition(folder, speller, episode):
    """Shares by turn, with the default settings."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    last, shares = episode.outcome.rounds[-1], dict.fromkeys(episode.turns, 0.0)
    giving = [key for key in last.values() if episode.turns[key].answer == episode.outcome.answer]
    for key in giving:
        turn = episode.turns[key]
        ids = [*turn.prompt_ids, *turn.token_ids]
        with torch.no_grad():
            maps = model(input_ids=torch.tensor([ids]), output_attentions=True).attentions
        rows = slice(len(turn.prompt_ids) - 1, len(ids) - 1)
        mean = torch.stack([maps[i][0, :, rows].mean((0, 1)) for i in middle_layers(model, 5)]).mean(0).numpy()
        tokens = speller._tokenizer.convert_ids_to_tokens(list(turn.prompt_ids))
        begins = {seat: k for seat, k in episode.outcome.rounds[0].items()}
        spans = {}
        for seat, source in begins.items():
            text = episode.turns[source].text
            marks = ([], []) if seat == turn.place.seat else ([*"<<<\n"], [*"\n>>>"])
            spans[source] = find(tokens, text, (["<turn>"], ["<turn>"]) if seat == turn.place.seat else marks)
        taken = {i for span in spans.values() for i in span} | set(range(4))
        own = [i for i in range(len(turn.prompt_ids)) if i not in taken]
        replied = range(len(turn.prompt_ids), len(ids))
        density = {source: mean[list(span)].sum() / len(span) for source, span in spans.items()}
        mine = (mean[own].sum() + mean[list(replied)].sum()) / (len(own) + (len(replied) - 1) / 2)
        total = mine + sum(density.values())
        shares[key] += mine / total / len(giving)
        for source, amount in density.items():
            shares[source] += amount / total / len(giving)
    return shares


def test_shares_are_what_whole_maps_in_float64_say(folder, speller, episodes):
    reader = AttentionReader(folder, "cpu")
    for episode, measured in zip(
        episodes, measure_influence(episodes, {"base": reader}, {"base": speller}), strict=True
    ):
        expected, found = by_definition(folder, speller, episode), measured.influence.turn_shares()
        assert (measured.missing, measured.unread) == (0, 0)
        assert found == pytest.approx(expected, abs=1e-5)
        assert np.ptp([share for share in expected.values() if share]) > 0.05


def test_it_does_not_matter_which_episodes_are_measured_together(folder, speller, episodes):
    reader = AttentionReader(folder, "cpu")
    together = measure_influence(episodes, {"base": reader}, {"base": speller}, Settings(per_token=False))
    alone = [
        measure_influence([e], {"base": reader}, {"base": speller}, Settings(per_token=False))[0] for e in episodes
    ]
    for one, other in zip(together, alone, strict=True):
        assert one.influence.turn_shares() == pytest.approx(other.influence.turn_shares(), abs=1e-6)


def test_turns_that_nobody_can_read_attend_to_all_that_they_were_shown_alike(episodes):
    for measured in measure_influence(episodes, {}, {}):
        assert measured.unread == 6
        assert sorted(measured.influence.keeps) == pytest.approx([1 / 3] * 3 + [1] * 3)
        assert sum(measured.influence.turn_shares().values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "config",
    [
        AgentVerseConfig(loops=3, structure="horizontal"),
        AgentVerseConfig(loops=3),
        ComasConfig(rounds=3),
        MacNetConfig(),
    ],
    ids=lambda config: config.label,
)
def test_a_society_in_which_everybody_says_the_same_has_no_circles(config, speller):
    reply = "1. it\nDecision: revise, object\nScore: 2\nAnswer: 4"
    for episode in play_out(config, speller, (reply,)):
        (measured,) = measure_influence([episode], {}, {"base": speller})
        assert sum(measured.influence.turn_shares().values()) == pytest.approx(1)
        assert len(measured.influence.edges()) > 3


def said(key, number, seat, answer):
    return Turn(key, Place("sum", number, seat), "base", 0, (Message("user", "?"),), "", answer, "stop", 1, 1)


def test_the_answer_is_the_turns_of_the_last_round_that_gave_it():
    turns = {key: said(key, 0, key, answer) for key, answer in {"a": "4", "b": "5", "c": "4"}.items()}
    standing = ({key: key for key in turns},)
    assert answer_of(Episode(Outcome("4", standing), turns)) == {"a": 1.0, "c": 1.0}
    assert answer_of(Episode(Outcome(None, standing), turns)) == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert answer_of(Episode(Outcome(None, ()), turns)) == {"a": 1.0, "b": 1.0, "c": 1.0}
