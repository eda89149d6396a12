"""Rank correlation over episodes: against scipy, against all permutations, and where there is nothing to say."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy import stats

from coterie import rng
from coterie.experiments.statistics.association import associate

STREAM = rng.stream(0, "association")
X = STREAM.random((40, 4))
NEAR = np.round(X + STREAM.normal(0, 0.4, X.shape), 1)
FAR = STREAM.integers(0, 2, X.shape).astype(float)


def test_pooled_is_spearmans_correlation_of_all_pairs():
    for other in (NEAR, FAR):
        assert associate(X, other, 0, 10, 10).pooled.value == pytest.approx(
            stats.spearmanr(X.ravel(), other.ravel()).statistic
        )


def test_within_is_the_mean_correlation_of_the_episodes_that_tell_agents_apart():
    found = associate(X, FAR, 0, 10, 10)
    varying = [i for i in range(len(X)) if len(set(FAR[i])) > 1]
    expected = np.mean([stats.spearmanr(X[i], FAR[i]).statistic for i in varying])
    assert (found.informative, found.episodes) == (len(varying), 40)
    assert found.within.value == pytest.approx(expected)


def test_what_goes_together_is_found_and_what_does_not_is_not():
    near, far = associate(X, NEAR, 0, 500, 2000), associate(X, FAR, 0, 500, 2000)
    assert near.within_p < 0.001
    assert near.within.low > 0
    assert far.within_p > 0.05
    assert far.within.low < 0 < far.within.high


def test_p_is_that_of_all_permutations_within_episodes():
    x, y = X[:3, :3], NEAR[:3, :3]
    ranks = stats.rankdata(y).reshape(3, 3)
    observed = stats.spearmanr(x.ravel(), y.ravel()).statistic
    orders = product(permutations(range(3)), repeat=3)
    drawn = [stats.spearmanr(x.ravel(), np.stack([row[list(o)] for row, o in zip(ranks, order, strict=True)]).ravel())
             .statistic for order in orders]  # fmt: skip
    exact = np.mean(np.abs(np.array(drawn) - np.mean(drawn)) >= abs(observed - np.mean(drawn)) - 1e-9)
    assert associate(x, y, 0, 10, 2000).pooled_p == pytest.approx(exact, abs=0.03)


def test_what_whole_episodes_have_in_common_is_no_evidence():
    level = np.arange(40.0)[:, None] * 10
    found = associate(X + level, FAR + level, 0, 10, 1000)
    assert found.pooled.value > 0.9
    assert found.pooled_p > 0.05


def test_only_the_order_counts():
    first, second = associate(X, NEAR, 0, 50, 50), associate(np.exp(5 * X), NEAR**3, 0, 50, 50)
    assert first == second


def test_a_measure_that_never_varies_says_nothing():
    found = associate(X, np.ones_like(X), 0, 10, 10)
    assert found.informative == 0
    assert all(np.isnan([found.pooled.value, found.pooled_p, found.within.value, found.within_p]))


def test_measures_of_other_agents_are_refused():
    with pytest.raises(ValueError, match="the same agents"):
        associate(X, X[:, :3], 0)
