import pytest

import coterie
from coterie.agents.seats import Agent
from coterie.config.load import loads
from coterie.errors import ConfigError
from coterie.journal import Journal
from coterie.orchestration.protocols.config import SingleConfig
from coterie.orchestration.protocols.config_debates import GroupThinkConfig
from coterie.testing.societies import AGENTS, play
from coterie.text import join_pieces


def pieces(place) -> str:
    return f"{place.seat} writes {'one two three'.split()[place.round]}"


def test_thinkers_go_on_with_their_own_text_and_read_the_others_last_piece(perform):
    _, script = perform(GroupThinkConfig(), pieces)
    prompt = script.prompt(2, "ann")
    assert prompt.index("assistant: ann writes one") < prompt.index("assistant: ann writes two")
    assert "<<<\nbob writes one" in prompt and "<<<\nbob writes two" in prompt
    assert "<<<\nann" not in prompt


def test_hidden_thinkers_are_independent_samples():
    """Each says what it says alone."""
    config = GroupThinkConfig(visible=False)
    with play(config, num_tasks=2) as journal:
        together = {fact.key: fact.payload["text"] for fact in journal.facts("turn")}
    for agent in AGENTS:
        with play(config, num_tasks=2, agents=[agent]) as journal:
            assert all(together[fact.key] == fact.payload["text"] for fact in journal.facts("turn"))


def test_one_thinker_with_one_piece_is_ordinary_decoding():
    with play(GroupThinkConfig(rounds=1), SingleConfig(), num_tasks=2, agents=[Agent("ann", "base")]) as journal:
        assert journal.count("turn") == 2


def test_an_answer_holds_until_its_thinker_gives_another(perform):
    def reply(place) -> str:
        return {0: "Answer: 7", 1: "and so on", 2: "and on"}[place.round]

    outcome, _ = perform(GroupThinkConfig(), reply)
    assert outcome.answer == "7"


CHUNKS = GroupThinkConfig(granularity="chunk", rounds=3)


def test_chunks_go_on_with_the_reply_itself_below_what_the_others_have_written(perform):
    _, script = perform(CHUNKS, lambda place: f"{place.seat}{place.round} ", finish="length")
    prompt = script.prompt(2, "ann")
    assert prompt.endswith("assistant: ann0 ann1 ")
    assert prompt.index("<<<\nbob0 bob1\n>>>") < prompt.index("assistant:")
    assert "<<<\nann" not in prompt


def test_a_thinker_whose_reply_has_ended_stays_silent(perform):
    _, script = perform(CHUNKS, lambda place: "7", finish="stop")
    assert {number for number, _ in script.places()} == {0}


def test_an_answer_is_read_across_chunks(perform):
    outcome, _ = perform(CHUNKS, lambda place: ["The answer", " is 7", "."][place.round], finish="length")
    assert outcome.answer == "7"


def test_one_thinker_in_chunks_equals_ordinary_decoding():
    """Greedy: the same tokens, whatever the size of the chunks."""
    alone = {"agents": [Agent("ann", "base")], "engine": {"accuracy": 1.0, "conformity": 0.0}, "num_tasks": 2}
    with play(SingleConfig(), **alone) as journal:
        whole = [fact.payload["token_ids"] for fact in journal.facts("turn")]
    with play(GroupThinkConfig(granularity="chunk", rounds=30), max_tokens=3, **alone) as journal:
        chunks: dict[str, list[int]] = {}
        for fact in journal.facts("turn"):
            chunks.setdefault(fact.payload["place"]["task"], []).extend(fact.payload["token_ids"])
    assert list(chunks.values()) == whole


def test_hidden_thinkers_in_chunks_are_independent_samples():
    config = GroupThinkConfig(granularity="chunk", rounds=20, visible=False)
    with play(config, num_tasks=2, max_tokens=5) as journal:
        together = {fact.key: fact.payload["text"] for fact in journal.facts("turn")}
    for agent in AGENTS:
        with play(config, num_tasks=2, max_tokens=5, agents=[agent]) as journal:
            assert all(together[fact.key] == fact.payload["text"] for fact in journal.facts("turn"))


def test_a_character_cut_by_the_end_of_a_chunk_is_whole_in_the_next():
    """A token of the scripted engine is a byte, so every character here is cut."""
    reply = "\u00e9t\u00e9 : 7 \U0001f642"
    alone = {"agents": [Agent("ann", "base")], "engine": {"replies": (reply,)}, "num_tasks": 1}
    with play(GroupThinkConfig(granularity="chunk", rounds=30), max_tokens=1, **alone) as journal:
        pieces = [fact.payload["text"] for fact in journal.facts("turn")]
    assert len(pieces) == len(reply.encode()) and join_pieces(pieces) == reply


def test_peers_read_whole_characters():
    engine = {"replies": ("\u00e9" * 6,)}
    with play(GroupThinkConfig(granularity="chunk"), engine=engine, max_tokens=3, num_tasks=1) as journal:
        last = [f.payload["prompt"][-1]["content"] for f in journal.facts("turn") if f.payload["place"]["round"] == 2]
    assert last and all("<<<\n\u00e9\u00e9\u00e9\n>>>" in prompt for prompt in last)


def test_a_chunk_names_the_turn_that_it_continues_and_no_other_turn_does():
    with play(CHUNKS, SingleConfig(), max_tokens=8, num_tasks=1, agents=[Agent("ann", "base")]) as journal:
        facts = list(journal.facts("turn"))
    assert [fact.payload.get("continues") for fact in facts] == [None, *(fact.key for fact in facts[:-1])]
    assert "continues" not in facts[0].payload


def test_chunks_need_an_engine_with_tokens(tmp_path):
    data = {"name": "x", "policy": {"engine": "openai"}, "seats": [{"name": "a"}], "benchmark": "sums",
            "protocol": {"kind": "group_think", "granularity": "chunk"}}  # fmt: skip
    with pytest.raises(ConfigError, match="the engine openai does not give tokens, which group_think needs here"):
        loads(data)


@pytest.mark.slow
def test_one_thinker_in_chunks_equals_ordinary_decoding_by_a_real_model(tmp_path):
    def said(protocol, max_tokens):
        data = {
            "name": "real", "seats": [{"name": "ann"}], "protocol": protocol, "baselines": [],
            "policy": {"engine": {"kind": "transformers", "dtype": "float32"}, "model": "smollm2-135m",
                       "sampling": {"temperature": 0, "max_tokens": max_tokens}},
            "benchmark": {"kind": "sums", "limit": 2},
        }  # fmt: skip
        run = coterie.run(data, runs=tmp_path)
        tokens: dict[str, list[int]] = {}
        pieces: dict[str, list[str]] = {}
        with Journal.read(run.folder.journal) as journal:
            for fact in journal.facts("turn"):
                tokens.setdefault(fact.payload["place"]["task"], []).extend(fact.payload["token_ids"])
                pieces.setdefault(fact.payload["place"]["task"], []).append(fact.payload["text"])
        return tokens, {task: join_pieces(texts) for task, texts in pieces.items()}

    assert said("single", 24) == said({"kind": "group_think", "granularity": "chunk", "rounds": 6}, 4)
