"""What counts as said in a round, as read before an answer, and as the question."""

from __future__ import annotations

import dataclasses

import pytest

from coterie.experiments.measures.replies import answers_of, by_round, question_of, read_of, said_answers
from coterie.experiments.measures.societies import society_facts
from coterie.experiments.records.run import Episode, RunRecord
from coterie.types import Edge, Message, Outcome, Place, Turn, Verdict

Said = tuple[int, str, str, str | None]


def make_turn(round: int, seat: str, purpose: str, answer: str | None, finish: str = "stop") -> Turn:
    prompt = (Message("system", "You listen."), Message("user", f"{purpose} {round}, {seat}"))
    place = Place("t", round, seat, 0, purpose)
    return Turn(f"turn/{place}/k", place, "base", 0, prompt, f"It is {answer}.", answer, finish, 9, 4)


def make_record(
    said: list[Said], *, edges: tuple[Edge, ...] = (), finish: str = "stop", continues: str | None = None
) -> tuple[RunRecord, Episode]:
    """One episode; `said` holds round, seat, purpose and answer of its turns, "1" is right. Who is silent stands."""
    turns = {turn.key: turn for turn in (make_turn(*row, finish) for row in said)}
    if continues:
        last = list(turns)[-1]
        turns[last] = dataclasses.replace(turns[last], continues=continues)
    rounds: list[dict[str, str]] = []
    for turn in turns.values():
        while len(rounds) <= turn.place.round:
            rounds.append(dict(rounds[-1]) if rounds else {})
        if turn.place.purpose == "answer":
            rounds[-1][turn.place.seat] = turn.key
    verdicts = {k: Verdict(t.answer, t.answer == "1") for k, t in turns.items() if t.place.purpose == "answer"}
    episode = Episode("macnet", "t", Outcome("1", tuple(rounds), edges, "majority", {}, tuple(turns)), is_correct=True)
    agents = [{"name": name, "policy": "base", "persona": ""} for name in "xyz"]
    facts = {
        "societies": [{"label": "macnet", "is_baseline": False, "agents": agents}],
        "config": {"policies": {}, "protocol": {"kind": "macnet"}, "baselines": []},
    }
    return RunRecord(facts, "0", turns, verdicts, {"macnet": {"t": episode}}), episode


CHAIN: list[Said] = [(0, "x", "answer", "1"), (1, "y", "critique", None), (1, "y", "answer", "2")]
X, REVIEW, Y = (make_turn(*row).key for row in CHAIN)


def test_who_kept_silent_stands_by_an_answer_and_said_none() -> None:
    record, episode = make_record(CHAIN)
    assert said_answers(record, episode) == [{"x": "1"}, {"y": "2"}]
    assert answers_of(record, episode) == [{"x": "1"}, {"x": "1", "y": "2"}]


def test_only_what_was_read_in_order_to_answer_counts_as_read() -> None:
    edges = (Edge(1, "x", "y", X, "critique"), Edge(1, "x", "z", X))
    record, episode = make_record(CHAIN, edges=edges)
    assert read_of(record, episode) == [{}, {"z": {"x": "1"}}]


def test_words_of_the_same_round_are_those_that_were_read() -> None:
    record, episode = make_record([*CHAIN, (1, "z", "answer", "2")], edges=(Edge(1, "y", "z", Y),))
    assert read_of(record, episode) == [{}, {"z": {"y": "2"}}]


def test_a_review_is_read_and_holds_no_answer() -> None:
    record, episode = make_record([*CHAIN, (2, "x", "answer", "2")], edges=(Edge(2, "y", "x", REVIEW),))
    assert read_of(record, episode)[2] == {"x": {}}


def test_an_edge_that_names_no_turn_means_the_answer_of_the_round_before() -> None:
    record, episode = make_record([*CHAIN, (2, "x", "answer", "2")], edges=(Edge(2, "y", "x"), Edge(1, "z", "y")))
    assert read_of(record, episode) == [{}, {"y": {}}, {"x": {"y": "2"}}]


def test_of_several_answers_of_a_peer_the_latest_is_meant() -> None:
    edges = (Edge(1, "x", "y", make_turn(1, "x", "answer", "2").key), Edge(1, "x", "y", X))
    record, episode = make_record([CHAIN[0], (1, "x", "answer", "2"), CHAIN[2]], edges=edges)
    assert read_of(record, episode)[1] == {"y": {"x": "2"}}


def test_the_question_is_what_the_first_answer_was_asked_for() -> None:
    turns = [make_turn(0, "a", "proxy", None), make_turn(0, "b", "answer", "1")]
    assert question_of(turns) == "answer 0, b"
    assert question_of([]) == ""


def test_a_conversation_holds_every_turn_once_whatever_it_was_for() -> None:
    record, episode = make_record(CHAIN)
    rounds = by_round(record.turns_of(episode))
    assert [(number, [turn.key for turn in mine]) for number, mine in rounds] == [(0, [X]), (1, [Y, REVIEW])]


def test_a_rounds_accuracy_is_of_the_answers_given_in_it() -> None:
    record, _ = make_record(CHAIN)
    first, second = society_facts(record, record.societies[0])["rounds"]
    assert (first["agent_accuracy"], second["agent_accuracy"]) == (1, 0)
    assert second["states"] == {"right": 0, "wrong": 1, "unparsed": 0}
    assert second["flow"] == []
    assert [row["name"] for row in second["agents"]] == ["y"]
    assert second["distinct_answers"] == 2


def test_first_answers_of_a_chain_change_no_mind_and_are_no_majority() -> None:
    record, _ = make_record(CHAIN, edges=(Edge(1, "x", "y", X),))
    facts = society_facts(record, record.societies[0])
    assert [(row["read"], row["FT"], row["FF"]) for row in facts["opinion_change"]] == [(0, 0, 0)]
    assert not any(map(any, facts["persuasion"]["total"]))
    assert facts["majority_rule"]["with_majority"] == 0
    assert sum(facts["trajectories"].values()) == 0


def test_a_peer_read_twice_in_a_round_is_one_edge() -> None:
    edges = (Edge(1, "x", "y", X), Edge(1, "x", "y", X, "critique"))
    record, _ = make_record(CHAIN, edges=edges)
    assert society_facts(record, record.societies[0])["rounds"][1]["edges"] == [
        {"source": "x", "target": "y", "tasks": 1}
    ]


@pytest.mark.parametrize("count", [3, 2])
def test_of_a_reply_in_pieces_only_the_last_one_can_be_cut_or_unparsed(count: int) -> None:
    said: list[Said] = [(0, "x", "answer", None), (0, "y", "answer", None), (1, "x", "answer", None)]
    begun = make_turn(*said[0]).key if count == 2 else None
    record, _ = make_record(said, finish="length", continues=begun)
    facts = society_facts(record, record.societies[0])
    assert (facts["cut_replies"], facts["unparsed_turns"]) == (count, count)
