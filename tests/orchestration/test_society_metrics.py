"""What an iteration of a society's training was like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coterie.orchestration.harvest import EarnedTurn, PlayedEpisode
from coterie.orchestration.society_metrics import describe_iteration
from coterie.types import Outcome, Place, Turn, Verdict


def turn(seat: str, purpose: str, answer: str | None = None, version: int = 2) -> Turn:
    place = Place("sum@000003.0", 0, seat, purpose=purpose)
    return Turn(f"{seat}/{purpose}", place, "base", version, (), "said", answer, "stop", 10, 4)


ANN, BOB = turn("ann", "answer", "4"), turn("bob", "answer", "5")
JUDGING = [turn("bob", "evaluate"), turn("cy", "score"), turn("ann", "evaluate"), turn("bob", "score")]
TURNS = [ANN, BOB, *JUDGING]


def episode(*scores: int | None) -> PlayedEpisode:
    rows = [
        {"solution": ANN.key, "evaluation": JUDGING[0].key, "scoring": JUDGING[1].key, "verdict": None},
        {"solution": BOB.key, "evaluation": JUDGING[2].key, "scoring": JUDGING[3].key, "verdict": None},
    ]
    judgements = [row | {"score": score} for row, score in zip(rows, scores, strict=False)]
    outcome = Outcome("4", ({"ann": ANN.key, "bob": BOB.key},), extra={"judgements": judgements},
                      turns=tuple(t.key for t in TURNS))  # fmt: skip
    verdicts = {ANN.key: Verdict("4", correct=True), BOB.key: Verdict("5", correct=False)}
    given = {ANN.key: 1.0, BOB.key: 0.5, JUDGING[0].key: 0.0}
    turns, verdict = {t.key: t for t in TURNS}, Verdict("4", correct=True)
    return PlayedEpisode(outcome, verdict, turns, verdicts, {"interaction": given})


def earned(played: PlayedEpisode) -> list[EarnedTurn]:
    given = played.rewards["interaction"]
    return [EarnedTurn(played.turns[key], value, np.zeros(4, np.float32)) for key, value in given.items()]


def test_rewards_are_told_by_role_and_by_truth() -> None:
    played = episode(3, 2)
    row = describe_iteration([played], earned(played), 2)
    assert {role: numbers["reward"] for role, numbers in row["roles"].items()} == {
        "answer": 0.75, "evaluate": 0.0, "score": None,
    }  # fmt: skip
    assert row["solver"]["reward_if_right"] == 1.0 and row["solver"]["reward_if_wrong"] == 0.5
    assert row["solver"]["accuracy"] == 0.5 and row["solver"]["correlation"] == pytest.approx(1.0)
    assert (row["accuracy"], row["turns"], row["tokens"]) == (1.0, 6, 24)


def test_a_role_counts_its_turns_that_earned_nothing_too() -> None:
    played = episode(3, None)
    long = replace(JUDGING[1], finish="length", num_tokens=12)
    played = replace(played, turns={**played.turns, long.key: long})
    roles = describe_iteration([played], earned(played), 2)["roles"]
    assert {role: (row["turns"], row["rewarded"]) for role, row in roles.items()} == {
        "answer": (2, 2), "evaluate": (2, 1), "score": (2, 0),
    }  # fmt: skip
    assert (roles["score"]["tokens"], roles["score"]["cut"], roles["score"]["reward_std"]) == (8.0, 0.5, None)


def test_what_nobody_could_judge_is_neither_right_nor_wrong() -> None:
    unknown = [Verdict("4", correct=False, timed_out=True), Verdict("4", correct=False, labels={})]
    episodes = [episode(3, 2), *(replace(episode(3, 2), verdict=verdict) for verdict in unknown)]
    assert describe_iteration(episodes, [], 2)["accuracy"] == 1.0
    assert describe_iteration(episodes[1:], [], 2)["accuracy"] is None


def test_judges_are_measured_against_the_verdicts() -> None:
    played = episode(3, 2)
    judge = describe_iteration([played], earned(played), 2)["judge"]
    assert (judge["rulings"], judge["right"], judge["wrong"]) == (2, [0, 0, 1], [0, 1, 0])
    assert (judge["precision"], judge["recall"], judge["youden"], judge["own_scores"]) == (0.5, 1.0, 0.0, 0.5)


def test_where_nobody_judges_there_is_no_judge() -> None:
    played = episode()
    assert describe_iteration([played], earned(played), 2)["judge"] is None


def test_an_answer_that_nobody_could_judge_is_neither_right_nor_wrong() -> None:
    played = episode()
    unknown = replace(played, verdicts={**played.verdicts, BOB.key: Verdict("5", correct=False, timed_out=True)})
    solver = describe_iteration([unknown], earned(unknown), 2)["solver"]
    assert solver["accuracy"] == 1.0 and solver["reward_if_wrong"] is None


def test_the_lag_is_that_of_the_oldest_turn_that_is_learnt_from() -> None:
    played = episode()
    old = [replace(one, turn=replace(one.turn, policy_version=version))
           for one, version in zip(earned(played), (2, 0, 1), strict=True)]  # fmt: skip
    assert describe_iteration([played], earned(played), 2)["lag"] == 0
    assert describe_iteration([played], old, 2)["lag"] == 2
    assert describe_iteration([played], [], 2)["lag"] == 0
