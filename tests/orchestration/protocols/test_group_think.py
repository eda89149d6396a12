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


def together(tmp_path, *, protocol=None, count=3, **sections) -> coterie.Run:
    """Thinkers of `coterie-tiny`, token by token."""
    data = {
        "name": "together", "seed": 7, "determinism": "exact", "seats": [{"name": "thinker", "count": count}],
        "policy": {"engine": {"kind": "transformers", "dtype": "float32"}, "model": "coterie-tiny",
                   "sampling": {"temperature": 1.0, "max_tokens": 24}},
        "protocol": protocol or {"kind": "group_think", "granularity": "token"}, "baselines": [],
        "benchmark": {"kind": "sums", "limit": 2}, **sections,
    }  # fmt: skip
    return coterie.run(data, runs=tmp_path)


def said(run) -> dict[tuple[str, str], list[int]]:
    """By task and seat the tokens of the reply."""
    with Journal.read(run.folder.journal) as journal:
        turns = [fact.payload for fact in journal.facts("turn")]
    return {(turn["place"]["task"], turn["place"]["seat"]): turn["token_ids"] for turn in turns}


def test_thinkers_in_one_cache_read_each_other_from_the_second_token_on(tmp_path):
    alone = said(together(tmp_path, protocol={"kind": "group_think", "rounds": 1}))
    blind = said(together(tmp_path, protocol={"kind": "group_think", "granularity": "token", "visible": False}))
    run = together(tmp_path)
    assert blind == alone, "thinkers that do not see each other are no independent samples"
    seeing = said(run)
    assert seeing.keys() == alone.keys() and all(seeing[key][0] == alone[key][0] for key in alone)
    assert all(seeing[key] != alone[key] for key in alone)
    with Journal.read(run.folder.journal) as journal:
        edges = [edge for fact in journal.facts("episode") for edge in fact.payload["edges"]]
        turns = {fact.key: fact.payload for fact in journal.facts("turn")}
    assert len(edges) == 2 * 3 * 2 and all(turns[edge["turn"]]["place"]["seat"] == edge["source"] for edge in edges)


def test_one_thinker_in_a_cache_of_its_own_is_ordinary_decoding(tmp_path):
    single = said(together(tmp_path, protocol="single", count=1))
    assert said(together(tmp_path, count=1)) == single and len(single) == 2


def test_the_order_of_the_seats_changes_nothing(tmp_path):
    seats = [{"name": "ann", "persona": "Be calm."}, {"name": "bob"}]
    first, second = (said(together(tmp_path, seats=order)) for order in (seats, seats[::-1]))
    assert first == second and len(first) == 4


def test_thinkers_are_let_in_together_or_not_at_all(tmp_path):
    cut = together(tmp_path, budget={"task_calls": 2})
    with Journal.read(cut.folder.journal) as journal:
        assert journal.count("turn") == 0
        assert all(fact.payload["answer"] is None for fact in journal.facts("episode"))
    stopped = together(tmp_path, budget={"calls": 4})
    with Journal.read(stopped.folder.journal) as journal:
        assert journal.count("turn") == 3 and journal.count("episode") == 1
    assert stopped.status == "stopped"


def test_a_run_that_was_stopped_between_groups_goes_on_to_the_same_end(tmp_path):
    whole, stopped = together(tmp_path), together(tmp_path, budget={"calls": 3})
    assert said(stopped).items() < said(whole).items()
    resumed = coterie.resume(stopped, **{"budget.calls": None})
    with Journal.read(whole.folder.journal) as one, Journal.read(resumed.folder.journal) as other:
        assert [*other.facts("turn")] == [*one.facts("turn")] and [*other.facts("episode")] == [*one.facts("episode")]


def test_a_prompt_that_all_share_costs_once(tmp_path):
    run = together(tmp_path)
    tokens = said(run)
    for row in run.episodes():
        replies = [len(ids) for (task, _), ids in tokens.items() if task == row["task"]]
        assert row["calls"] == len(replies) == 3 and row["generated_tokens"] == sum(replies)
        assert row["prompt_tokens"] == 3 * row["non_cached_prompt_tokens"] > 0


REFUSED = {
    "an engine without a shared cache": (
        {"policy": {"engine": "vllm"}},
        "the engine vllm does not give shared_cache, which group_think needs here; set `engine: transformers`",
    ),
    "an engine that may have none": ({"policy": {"engine": "auto"}}, "the engine auto does not give shared_cache"),
    "two policies": (
        {"policy": None, "policies": {"one": {"engine": "transformers"}, "two": {"engine": "transformers"}},
         "seats": [{"name": "a", "policy": "one"}, {"name": "b", "policy": "two"}]},
        "group_think needs one policy at all seats here, and these have one, two",
    ),
    "replies that do not fit together": (
        {"policy": {"engine": "transformers", "sampling": {"max_tokens": 800}}},
        "3 replies of 800 tokens leave no room for a prompt in the engine's context of 2048",
    ),
    "rounds": ({"protocol": {"kind": "group_think", "granularity": "token", "rounds": 2}}, "leave `rounds` out"),
    "a study": ({"study": {}, "baselines": [], "determinism": "exact"}, "stands in no message"),
    "a training": (
        {"learning": {"kind": "policy_gradient"}, "rewards": ["verifier"], "baselines": []},
        "replies that were said into one cache",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_share_a_cache_is_refused(case):
    sections, message = REFUSED[case]
    data = {"name": "x", "policy": {"engine": "transformers"}, "seats": [{"name": "a", "count": 3}],
            "benchmark": "sums", "protocol": {"kind": "group_think", "granularity": "token"}} | sections  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        loads({key: value for key, value in data.items() if value is not None})
