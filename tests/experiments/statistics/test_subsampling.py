"""Exact self-consistency curves, against brute force."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.experiments.statistics.subsampling import at_budget, self_consistency_curve


def vote(sample: Sequence[str | None], tie: str, no_answer: str) -> str | None:
    counts = Counter(a for a in sample if a is not None)
    top = max(counts.values(), default=0)
    tied = [a for a, c in counts.items() if c == top]
    if not tied or (len(tied) > 1 and tie == "none") or (no_answer == "strict" and 2 * top <= len(sample)):
        return None
    return tied[0]


def brute_force(answers: Sequence[str | None], correct: set[str], k: int, tie: str, no_answer: str) -> float:
    subsets = list(combinations(range(len(answers)), k))
    orders = [p for s in subsets for p in permutations(s)] if tie == "first" else subsets
    return float(np.mean([vote([answers[i] for i in order], tie, no_answer) in correct for order in orders]))


def curve(answers: Sequence[str | None], tie: str = "none", no_answer: str = "abstain") -> list[float]:
    """The chance that `a` wins the vote of 1, 2, ... of these samples."""
    chances: list[float] = self_consistency_curve([answers], [{"a"}], tie, no_answer)[0].tolist()
    return chances


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=6),
    st.sampled_from(["none", "first"]),
    st.sampled_from(["abstain", "strict"]),
)
def test_the_curve_is_the_mean_over_all_subsets_and_orders(answers: list[str | None], tie: str, no_answer: str) -> None:
    correct = {"a", "d"}
    found = self_consistency_curve([answers], [correct], tie, no_answer)[0]
    expected = [brute_force(answers, correct, k, tie, no_answer) for k in range(1, len(answers) + 1)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_larger_case_agrees_with_enumeration() -> None:
    answers = list("aaaabbbbccd") + [None, None]
    for k in (1, 4, 7, 13):
        expected = brute_force(answers, {"a"}, k, "none", "abstain")
        assert curve(answers)[k - 1] == pytest.approx(expected, abs=1e-12)


def test_random_and_first_ties_are_worth_the_same() -> None:
    assert curve([*"aabbcc", None], "random") == curve([*"aabbcc", None], "first")
    assert curve(list("aabbcc"), "random")[-1] == pytest.approx(1 / 3)


def test_one_sample_scores_the_share_of_right_ones() -> None:
    assert curve([*"aaabbbbb", None, None])[0] == pytest.approx(0.3)


def test_all_samples_score_their_majority() -> None:
    answers = [*"aaabbcc", *[None] * 9]
    assert curve(answers)[-1] == 1.0
    assert curve(answers, no_answer="strict")[-1] == 0.0


def test_a_right_answer_that_nobody_gave_never_wins() -> None:
    assert curve(["b", None]) == [0.0, 0.0]


def test_many_samples_are_counted_exactly() -> None:
    found = curve(["a"] * 60 + [f"w{i}" for i in range(30)] + [None] * 38)
    assert found[-1] == 1.0
    assert 0 < found[0] < found[20] < 1


def test_ragged_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="same number"):
        self_consistency_curve([["a"], ["a", "b"]], [{"a"}, {"a"}])


CURVE, COSTS = [0.2, 0.2, 0.5], [100.0, 200.0, 300.0]


@pytest.mark.parametrize(
    ("budget", "value", "samples", "is_beyond"),
    [(100, 0.2, 1, False), (250, 0.35, 2.5, False), (300, 0.5, 3, False), (301, 0.5, 3, True), (50, 0.1, 0.5, False)],
)
def test_a_budget_between_two_points_is_worth_their_mixture(
    budget: float, value: float, samples: float, is_beyond: bool
) -> None:
    point = at_budget(CURVE, COSTS, budget)
    assert (point.value, point.samples) == pytest.approx((value, samples))
    assert point.is_beyond is is_beyond


def test_costs_that_do_not_increase_are_refused() -> None:
    with pytest.raises(ValueError, match="increasing"):
        at_budget(CURVE, [1.0, 1.0, 2.0], 1.0)
