"""The preplan-and-anchor rules against what the paper writes, token by token in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.rewards.credit.rhythm import coupled, differences, global_anchor, known_fai, local_chunk
from coterie.rewards.credit.selection import top

values = st.lists(st.floats(0, 10, allow_nan=False).map(lambda x: round(x, 1)), min_size=1, max_size=40)


def pairs(minimum=1):
    """WAAD and FAI of a reply; the last tokens' FAI is not known."""
    return st.integers(minimum, 40).flatmap(
        lambda size: st.tuples(
            st.lists(st.integers(0, 9), min_size=size, max_size=size).map(lambda x: np.array(x, float)),
            st.lists(st.integers(0, 9), min_size=size, max_size=size).map(lambda x: np.array(x, float)),
            st.integers(0, size),
        )
    )


def naive_top(numbers, share):
    """Python's own sort: highest first, earlier ones first among equals."""
    known = [t for t, x in enumerate(numbers) if x is not None and not math.isnan(x)]
    count = min(len(known), max(1, math.floor(share * len(known) + 0.5)))
    return set(sorted(known, key=lambda t: (-numbers[t], t))[:count])


def naive_quantile(numbers, share):
    ordered = sorted(numbers)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def naive_coupled(waad, fai, share, amplify, alpha, lookback, waad_quantile, change_quantile):
    size = len(waad)
    change = [abs(waad[t] - waad[t + 1]) for t in range(size - 1)]
    anchors, dominated, intros = naive_top(fai, share), set(), set()
    if size > 1:
        low, high = naive_quantile(list(waad), waad_quantile), naive_quantile(change, change_quantile)
        for t in anchors:
            before = list(range(max(0, t - lookback), t))
            if before and waad[t] <= low + 1e-12 and max(change[u] for u in before) >= high - 1e-12:
                dominated.add(t)
                intros.add(max(before, key=lambda u: (change[u], -u)))
    bonus = amplify - 1
    return [
        1 + bonus * ((t in anchors - dominated) + (1 - alpha) * (t in dominated) + alpha * (t in intros))
        for t in range(size)
    ]


@given(values, st.floats(0.05, 1))
def test_the_top_share_is_what_sorting_gives(numbers, share):
    assert set(np.flatnonzero(top(np.array(numbers), share))) == naive_top(numbers, share)


def test_of_equal_values_the_earlier_are_chosen():
    assert top(np.array([1.0, 2.0, 1.0, 1.0, 2.0]), 0.6).tolist() == [True, True, False, False, True]


def test_shares_are_rounded_half_up_and_one_is_always_chosen():
    assert [int(top(np.arange(float(n)), 0.4).sum()) for n in (1, 2, 3, 5, 10, 15)] == [1, 1, 1, 2, 4, 6]
    assert not top(np.full(3, np.nan), 0.4).any()


def test_a_change_is_between_a_token_and_the_next():
    found = differences(np.array([1.0, 4.0, 2.0]))
    assert found[:2].tolist() == [3.0, 2.0] and math.isnan(found[2])


@given(pairs(), st.floats(0.05, 1), st.floats(1, 3))
def test_local_chunk_amplifies_the_greatest_changes(given_, share, amplify):
    waad, _, _ = given_
    chosen = naive_top([abs(a - b) for a, b in zip(waad, waad[1:], strict=False)] + [math.nan], share)
    expected = [amplify if t in chosen else 1.0 for t in range(len(waad))]
    assert local_chunk(waad, share, amplify).factor == pytest.approx(expected, abs=1e-12)


@given(pairs(), st.floats(0.05, 1))
def test_tokens_that_nothing_follows_within_the_horizon_are_no_anchors_and_no_part_of_the_share(given_, share):
    _, fai, unknown = given_
    queries = np.array([float(t < len(fai) - unknown) for t in range(len(fai))])
    found = global_anchor(known_fai(fai, queries), share, 1.5)
    known = len(fai) - unknown
    assert not found.anchor[known:].any()
    assert found.anchor.sum() == (max(1, math.floor(share * known + 0.5)) if known else 0)
    assert found.factor == pytest.approx(1 + 0.5 * found.anchor)


@given(
    pairs(), st.floats(0.05, 1), st.floats(1, 3), st.floats(0, 1), st.integers(1, 5), st.floats(0, 1), st.floats(0, 1)
)  # fmt: skip
def test_coupled_credit_is_the_sum_of_three_indicators(given_, share, amplify, alpha, lookback, low, high):
    waad, fai, unknown = given_
    fai = np.where(np.arange(len(fai)) < len(fai) - unknown, fai, np.nan)
    found = coupled(
        waad, fai, share, amplify, alpha=alpha, lookback=lookback, waad_quantile=low, change_quantile=high
    )  # fmt: skip
    # Quantiles are interpolated twice, and where one falls on a value the last bit decides.
    near = [np.quantile(waad, low)] if len(waad) > 1 else []
    near += [np.quantile(differences(waad)[:-1], high)] if len(waad) > 1 else []
    if any(0 < abs(x - round(float(x))) < 1e-9 for x in near):
        return
    expected = naive_coupled(waad, fai, share, amplify, alpha, lookback, low, high)
    assert found.factor == pytest.approx(expected, abs=1e-12)


def test_an_anchor_that_introduces_another_gets_both_terms():
    # Changes: 0, 9, 9, 0, 0; token 2 is an anchor with a high WAAD, token 3 one with a low WAAD that 1 introduces.
    waad, fai = np.array([0.0, 0.0, 9.0, 0.0, 0.0, 0.0]), np.array([0.0, 5.0, 0.0, 4.0, 0.0, 0.0])
    found = coupled(waad, fai, 0.4, 1.5, alpha=0.5, lookback=3, waad_quantile=0.5, change_quantile=0.9)
    assert np.flatnonzero(found.dominated).tolist() == [3]
    assert found.factor.tolist() == [1, 1.75, 1, 1.25, 1, 1]


def test_a_token_that_introduces_several_anchors_is_counted_once():
    waad, fai = np.array([9.0, 0.0, 0.0, 0.0, 9.0, 9.0]), np.array([0.0, 5.0, 5.0, 0.0, 0.0, 0.0])
    found = coupled(waad, fai, 0.34, 1.5, alpha=1.0, lookback=3, waad_quantile=0.5, change_quantile=0.5)
    assert found.factor.tolist() == [1.5, 1, 1, 1, 1, 1]


def test_without_a_part_to_hand_on_coupled_credit_is_that_of_anchors():
    draw = np.random.default_rng(0)
    waad, fai = draw.random(50), draw.random(50)
    found = coupled(waad, fai, 0.4, 1.5, alpha=0.0, lookback=3, waad_quantile=0.5, change_quantile=0.5)
    assert found.factor == pytest.approx(global_anchor(fai, 0.4, 1.5).factor)
