"""Interquartile means, stratified bootstraps and probabilities of improvement, against values known otherwise."""

import itertools

import numpy as np
import pytest
from scipy import stats

from coterie.experiments.statistics.aggregates import improvement, interquartile_mean, permutation_test, stratified_band


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean(np.asarray([100.0, 2.0, 3.0, -50.0])) == 2.5
    assert interquartile_mean(np.asarray([1.0, 2.0, 6.0])) == 3.0
    eight = np.asarray([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 60.0, 70.0])
    assert interquartile_mean(eight) == 3.5


def test_with_a_number_that_is_none_there_is_no_mean() -> None:
    values = np.asarray([[1.0, np.nan], [2.0, 4.0], [3.0, 5.0], [4.0, 6.0]])
    np.testing.assert_array_equal(interquartile_mean(values), [2.5, np.nan])


def test_a_band_is_that_of_every_way_to_draw_the_runs() -> None:
    # Of two runs, means are 0, 5, 5 and 10 with a quarter each: the percentiles are the ends.
    band = stratified_band([np.asarray([[0.0], [10.0]])])
    assert (band.value[0], band.low[0], band.high[0]) == (5.0, 0.0, 10.0)


def test_a_band_agrees_with_all_resamples_of_three_runs() -> None:
    runs = np.asarray([1.0, 2.0, 6.0])
    every = np.mean(np.stack(np.meshgrid(runs, runs, runs), -1).reshape(-1, 3), 1)
    band = stratified_band([runs[:, None]], resamples=20_000)
    low, high = np.quantile(np.repeat(every, 100), [0.025, 0.975])
    np.testing.assert_allclose([band.low[0], band.high[0]], [low, high], atol=1e-9)


def test_runs_are_drawn_within_their_task() -> None:
    # Runs of a task are alike and the tasks are not: what is drawn from each task is always the same.
    band = stratified_band([np.full((3, 1), 1.0), np.full((3, 1), 9.0)])
    assert (band.value[0], band.low[0], band.high[0]) == (5.0, 5.0, 5.0)
    mixed = stratified_band([np.asarray([[1.0]] * 3 + [[9.0]] * 3)])
    assert mixed.low[0] < 5.0 < mixed.high[0]


def test_one_run_has_no_band() -> None:
    band = stratified_band([np.asarray([[1.0, 2.0]])])
    np.testing.assert_array_equal(band.value, [1.0, 2.0])
    assert np.isnan(band.low).all() and np.isnan(band.high).all()


def test_a_band_is_the_same_each_time() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7))
    np.testing.assert_array_equal(stratified_band([values]).low, stratified_band([values]).low)


@pytest.mark.parametrize("count", [3, 4, 5, 7, 8, 10, 12, 13])
def test_the_interquartile_mean_is_a_quarter_trimmed_mean(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25), rtol=1e-12)


def test_over_tasks_it_is_that_of_all_runs_of_all_tasks_together() -> None:
    scores = np.random.default_rng(0).uniform(size=(2, 5, 1))
    band = stratified_band(list(scores))
    assert band.value[0] == pytest.approx(stats.trim_mean(scores.ravel(), 0.25))


def test_a_stratified_band_agrees_with_all_resamples_of_two_tasks() -> None:
    tasks = [np.asarray([0.1, 0.4]), np.asarray([0.5, 0.6, 0.9])]
    ways = [itertools.product(task, repeat=len(task)) for task in tasks]
    every = [stats.trim_mean(np.concatenate(drawn), 0.25) for drawn in itertools.product(*ways)]
    band = stratified_band([task[:, None] for task in tasks], resamples=20_000)
    # Of 108 ways each has its share, so that no quantile lies close to a jump.
    np.testing.assert_allclose([band.low[0], band.high[0]], np.quantile(np.repeat(every, 100), [0.025, 0.975]))


def test_the_improvement_is_that_of_the_mann_whitney_test() -> None:
    a, b = np.asarray([1.0, 2.0, 3.0, 3.0]), np.asarray([0.0, 2.0, 3.0])
    known = stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
    assert improvement([a], [b]).value == pytest.approx(known)
    assert improvement([b], [a]).value == pytest.approx(1 - known)


def test_the_improvement_agrees_with_all_resamples_of_both() -> None:
    a, b = np.asarray([1.0, 4.0]), np.asarray([0.0, 2.0, 3.0])
    every = [
        np.mean([x > y for x, y in itertools.product(p, q)])
        for p in itertools.product(a, repeat=2)
        for q in itertools.product(b, repeat=3)
    ]
    found = improvement([a], [b], resamples=20_000)
    low, high = np.quantile(np.repeat(every, 100), [0.025, 0.975])
    assert (found.value, found.low, found.high) == pytest.approx((4 / 6, low, high))


def test_the_improvement_is_the_mean_over_tasks_and_open_for_single_runs() -> None:
    above, alike = np.asarray([2.0, 3.0]), np.asarray([1.0, 1.0])
    assert improvement([above, alike], [alike, alike]).value == 0.75
    one = improvement([above[:1]], [alike[:1]])
    assert one.value == 1.0 and np.isnan(one.low) and np.isnan(one.high)


@pytest.mark.parametrize(("count", "other"), [(3, 3), (4, 3), (5, 5), (2, 8)])
def test_on_one_task_the_test_is_the_exact_one_of_mann_and_whitney(count: int, other: int) -> None:
    generator = np.random.default_rng(count)
    a, b = generator.normal(0.8, size=count), generator.normal(size=other)
    known = stats.mannwhitneyu(a, b, method="exact").pvalue
    assert permutation_test([a], [b]) == pytest.approx(known)


def test_three_runs_against_three_cannot_be_told_apart_at_five_per_cent() -> None:
    assert permutation_test([np.asarray([7.0, 8.0, 9.0])], [np.asarray([1.0, 2.0, 3.0])]) == pytest.approx(0.1)


def test_several_tasks_together_tell_more_than_one() -> None:
    high, low = np.asarray([7.0, 8.0, 9.0]), np.asarray([1.0, 2.0, 3.0])
    # Of 20 x 20 ways to deal the runs, two are as far apart as these.
    assert permutation_test([high, high], [low, low]) == pytest.approx(2 / 400, abs=0.003)
    assert permutation_test([high, low], [low, high]) == 1.0
