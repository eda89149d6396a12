"""Intervals, paired tests and exact self-consistency curves, against known values and brute force."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coterie.experiments.statistics import (
    at_budget,
    mcnemar_exact,
    mean_interval,
    paired_bootstrap,
    self_consistency_curve,
    subsample_majority,
    wilson,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (5, 10), (10, 10), (34, 100), (1, 1319)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson(successes, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_the_whole_range() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_mean_interval_agrees_with_scipy() -> None:
    data = [1.0, 2.0, 4.0, 8.0]
    expected = stats.ttest_1samp(data, 0).confidence_interval()
    found = mean_interval(data)
    assert (found.value, found.low, found.high) == pytest.approx((3.75, expected.low, expected.high))


def test_mean_interval_of_one_value_has_no_bounds() -> None:
    assert mean_interval([3.0]).value == 3.0
    assert np.isnan(mean_interval([3.0]).low)


def test_mcnemar_has_the_known_value_of_its_discordant_pairs() -> None:
    a = [True] * 10 + [False] * 2 + [True] * 5
    b = [False] * 10 + [True] * 2 + [True] * 5
    found = mcnemar_exact(a, b)
    assert (found.only_a, found.only_b) == (10, 2)
    assert found.p == pytest.approx(stats.binomtest(2, 12).pvalue) == pytest.approx(0.03857421875)


def test_mcnemar_of_equal_answers_is_one() -> None:
    assert mcnemar_exact([True, False], [True, False]).p == 1.0


def test_the_bootstrap_interval_is_near_the_normal_one_for_many_items() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.1, 1, 2000), generator.normal(0, 1, 2000)
    found = paired_bootstrap(a, b, seed=1)
    half = 1.96 * (a - b).std(ddof=1) / np.sqrt(2000)
    assert found.value == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)


def test_the_bootstrap_p_value_falls_with_the_interval_leaving_zero() -> None:
    right, wrong = [1.0] * 60 + [0.0] * 40, [1.0] * 30 + [0.0] * 70
    clear, unclear = paired_bootstrap(right, wrong, 0), paired_bootstrap(right[:4], wrong[::-1][:4], 0)
    assert clear.low > 0
    assert clear.p < 0.001
    assert paired_bootstrap(wrong, right, 0).value == -clear.value
    assert unclear.p <= 1.0


def test_the_bootstrap_is_the_same_for_the_same_seed_and_covers_no_difference() -> None:
    a, b = [0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]
    assert paired_bootstrap(a, b, 3) == paired_bootstrap(a, b, 3)
    assert paired_bootstrap(a, b, 3).p > 0.5
    assert paired_bootstrap(a, a, 3).p == 1.0


def test_bootstrap_false_alarms_come_about_as_often_as_promised() -> None:
    generator = np.random.default_rng(7)
    alarms = [
        paired_bootstrap(generator.integers(0, 2, 80), generator.integers(0, 2, 80), seed, resamples=500).p < 0.05
        for seed in range(300)
    ]
    assert 0.01 < np.mean(alarms) < 0.10


@pytest.mark.parametrize("test", [lambda a, b: paired_bootstrap(a, b, 0), mcnemar_exact])
def test_unpaired_lists_are_refused(test: object) -> None:
    for a, b in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="paired"):
            test(a, b)  # type: ignore[operator]


# --- self-consistency


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


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=6),
    st.sampled_from(["none", "first"]),
    st.sampled_from(["abstain", "strict"]),
)
def test_the_curve_is_the_mean_over_all_subsets_and_orders(answers: list[str | None], tie: str, no_answer: str) -> None:
    correct = {"a", "d"}
    curve = self_consistency_curve([answers], [correct], tie, no_answer)[0]
    expected = [brute_force(answers, correct, k, tie, no_answer) for k in range(1, len(answers) + 1)]
    assert curve == pytest.approx(expected, abs=1e-12)


def test_a_larger_case_agrees_with_enumeration() -> None:
    answers = list("aaaabbbbccd") + [None, None]
    for k in (1, 4, 7, 13):
        assert subsample_majority(4, [4, 2, 1], 2, k) == pytest.approx(
            brute_force(answers, {"a"}, k, "none", "abstain"), abs=1e-12
        )


def test_random_and_first_ties_are_worth_the_same() -> None:
    assert subsample_majority(2, [2, 2], 1, 6, "random") == subsample_majority(2, [2, 2], 1, 6, "first")
    assert subsample_majority(2, [2, 2], 0, 6, "random") == pytest.approx(1 / 3)


def test_one_sample_scores_the_share_of_right_ones() -> None:
    assert subsample_majority(3, [5], 2, 1) == pytest.approx(0.3)


def test_all_samples_score_their_majority() -> None:
    assert subsample_majority(3, [2, 2], 9, 16) == 1.0
    assert subsample_majority(3, [2, 2], 9, 16, no_answer="strict") == 0.0


def test_a_class_without_samples_never_wins() -> None:
    assert subsample_majority(0, [1], 1, 1) == 0.0


def test_many_samples_are_counted_exactly() -> None:
    curve = self_consistency_curve([["r"] * 60 + [f"w{i}" for i in range(30)] + [None] * 38], [{"r"}])[0]
    assert curve[-1] == 1.0
    assert 0 < curve[0] < curve[20] < 1


def test_k_outside_the_samples_and_ragged_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="k = 4"):
        subsample_majority(1, [2], 0, 4)
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
