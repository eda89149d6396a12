"""Intervals and tests, against scipy and values computed with statsmodels."""

import numpy as np
import pytest
from scipy import stats

from coterie.experiments.statistics.inference import (
    Estimate,
    anova,
    detectable_difference,
    holm,
    independent_shares,
    mcnemar_exact,
    mean_interval,
    paired_bootstrap,
    sign_flip_test,
    unvaried_shares,
    wilson,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (5, 10), (10, 10), (34, 100), (1, 1319)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson(successes, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_takes_expected_successes_unrounded() -> None:
    assert wilson(1.5, 3).value == 0.5
    assert wilson(1.5, 3).low == pytest.approx(1 - wilson(1.5, 3).high)


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


@pytest.mark.parametrize(
    ("a", "b", "low", "high"), [((56, 70), (48, 80), 0.0524, 0.3339), ((10, 10), (0, 10), 0.6075, 1)]
)
def test_the_difference_of_independent_shares_agrees_with_newcombes_table(
    a: tuple[int, int], b: tuple[int, int], low: float, high: float
) -> None:
    found = independent_shares(wilson(*a), wilson(*b))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("n", [1, 3, 54])
def test_the_bounds_of_shares_that_never_differ_are_where_the_score_test_just_rejects(n: int) -> None:
    found = unvaried_shares(0.0, n)
    # Variance of the mean difference where one of two kinds of discordant pairs has share `high`, the other none.
    score = found.high / np.sqrt(found.high * (1 - found.high) / n)
    assert score == pytest.approx(stats.norm.ppf(0.975)) and found.low == -found.high
    assert (unvaried_shares(1.0, n).low, unvaried_shares(1.0, n).high) == pytest.approx((1 - found.high, 1))


def test_mcnemar_of_equal_answers_is_one() -> None:
    assert mcnemar_exact([True, False], [True, False]).p == 1.0


def test_the_bootstrap_interval_is_near_the_normal_one_for_many_items() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.1, 1, 2000), generator.normal(0, 1, 2000)
    found = paired_bootstrap(a, b, seed=1)
    half = 1.96 * (a - b).std(ddof=1) / np.sqrt(2000)
    assert found.value == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)


def test_the_bootstrap_is_the_same_for_the_same_seed_and_covers_no_difference() -> None:
    a, b = [0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]
    assert paired_bootstrap(a, b, 3) == paired_bootstrap(a, b, 3)
    assert paired_bootstrap(a, b, 3).low < 0 < paired_bootstrap(a, b, 3).high
    assert paired_bootstrap(a, a, 3) == Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_few_items_of_equal_sign_have_the_smallest_p_that_sign_flips_allow(n: int) -> None:
    assert sign_flip_test([0.7] * n, [0.1] * n, 0) == 2.0 ** (1 - n)
    assert sign_flip_test([0.7 + i for i in range(n)], [0.1] * n, 0) == 2.0 ** (1 - n)


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_few_items_have_the_p_of_scipys_permutation_test(n: int) -> None:
    generator = np.random.default_rng(n)
    a, b = generator.integers(0, 2, n) / 1.0, np.round(generator.random(n), 1)
    expected = stats.permutation_test((a - b,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(a, b, 0) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.3])
def test_many_items_have_nearly_the_p_of_scipys_permutation_test(gap: float) -> None:
    generator = np.random.default_rng(5)
    a, b = generator.normal(gap, 1, 80), generator.normal(0, 1, 80)
    expected = stats.permutation_test((a - b,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1)
    assert sign_flip_test(a, b, 0) == pytest.approx(expected.pvalue, abs=0.015)
    assert sign_flip_test(a, b, 0) == sign_flip_test(a, b, 0) == sign_flip_test(b, a, 0)


def test_right_and_wrong_answers_have_mcnemars_p() -> None:
    a, b = [True] * 10 + [False] * 2 + [True] * 50, [False] * 10 + [True] * 2 + [True] * 50
    assert sign_flip_test(a, b, 0) == pytest.approx(mcnemar_exact(a, b).p)


def test_no_difference_has_a_p_of_one_and_a_clear_one_next_to_nothing() -> None:
    assert sign_flip_test([0.5, 1.0], [0.5, 1.0], 0) == 1.0
    assert sign_flip_test([1.0] * 60 + [0.0] * 40, [0.3] * 100, 0) < 0.001


@pytest.mark.parametrize("n", [8, 80])
def test_false_alarms_come_about_no_more_often_than_promised(n: int) -> None:
    generator = np.random.default_rng(7)
    p = [sign_flip_test(generator.random(n), generator.random(n), seed, draws=500) for seed in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.08


@pytest.mark.parametrize(
    "test", [lambda a, b: paired_bootstrap(a, b, 0), lambda a, b: sign_flip_test(a, b, 0), mcnemar_exact]
)
def test_unpaired_lists_are_refused(test: object) -> None:
    for a, b in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="paired"):
            test(a, b)  # type: ignore[operator]


def test_holm_agrees_with_statsmodels() -> None:
    # statsmodels 0.15.0: multipletests(p, method="holm")[1]
    assert holm([0.01, 0.04, 0.03, 0.005, 0.2, 0.2]) == pytest.approx([0.05, 0.12, 0.12, 0.03, 0.4, 0.4])


def test_holm_leaves_one_test_as_it_is_and_keeps_order_and_bounds() -> None:
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
    assert holm([0.9, 0.8, 0.5]) == [1.0, 1.0, 1.0]


def test_the_detectable_difference_gives_the_test_its_power() -> None:
    # scipy 1.17: the effect at which norm.sf(z_0.975 - effect * sqrt(60)) is 0.8, for these 60 differences.
    differences = np.random.default_rng(3).integers(-1, 2, 60)
    assert detectable_difference(differences, np.zeros(60)) == pytest.approx(0.30582476709961437)


def test_the_detectable_difference_is_found_in_four_of_five_samples() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (2000, 200))
    gap = detectable_difference(stats.zscore(noise[0], ddof=1), np.zeros(200))
    assert np.mean(stats.ttest_1samp(noise + gap, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.03)


def test_equal_answers_tell_nothing_of_what_could_be_found() -> None:
    assert np.isnan(detectable_difference([1, 0, 1], [1, 0, 1]))
    assert np.isnan(detectable_difference([1], [0]))


def test_anova_is_scipys_where_variances_are_alike() -> None:
    groups = [[0.50, 0.54, 0.52, 0.49, 0.55], [0.60, 0.58, 0.61, 0.63, 0.57], [0.51, 0.53, 0.55, 0.50, 0.52]]
    found, f = anova(groups), stats.f_oneway(*groups)
    assert found is not None
    assert (found.f, found.p) == pytest.approx((f.statistic, f.pvalue))
    assert found.levene_p == pytest.approx(stats.levene(*groups).pvalue)
    # statsmodels 0.15.0: anova_oneway(groups, use_var="equal"); test_scale_oneway(groups, "equal", "median")
    assert (found.p, found.levene_p) == pytest.approx((0.00020776569739592722, 0.7383674526482443))


def test_anova_has_the_certified_value_of_a_reference_set() -> None:
    # NIST Statistical Reference Datasets, one-way analysis of variance, SiRstv: F = 1.18046237440255.
    resistivity = [
        [196.3052, 196.1240, 196.1890, 196.2569, 196.3403], [196.3042, 196.3825, 196.1669, 196.3257, 196.0422],
        [196.1303, 196.2005, 196.2889, 196.0343, 196.1811], [196.2795, 196.1748, 196.1494, 196.1485, 195.9885],
        [196.2119, 196.1051, 196.1850, 196.0052, 196.2090],
    ]  # fmt: skip
    found = anova(resistivity)
    assert found is not None
    assert found.f == pytest.approx(1.18046237440255, rel=1e-9)


def test_where_levene_fails_there_is_no_p() -> None:
    found = anova([[0.5, 0.5, 0.5, 0.5, 0.51], [0.1, 0.9, 0.2, 0.8, 0.5], [0.5, 0.5, 0.5, 0.52, 0.5]])
    assert found is not None
    assert found.levene_p < 0.05
    assert found.p is None


def test_groups_that_do_not_vary_or_stand_alone_have_no_analysis() -> None:
    assert anova([[0.5, 0.5], [0.6, 0.6]]) is None
    assert anova([[0.5, 0.6]]) is None
    assert anova([[0.5], [0.6]]) is None
