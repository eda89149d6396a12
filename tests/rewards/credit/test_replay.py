"""Credit from replays against brute force."""

from itertools import permutations

import numpy as np
import pytest

from coterie import rng
from coterie.errors import CoterieError
from coterie.rewards import shapley
from coterie.rewards.credit.replay import average, counterfactual, leave_one_out, noise, shapley_value


def draw(*shape: int, name: str = "replay") -> np.ndarray:
    return rng.stream(0, name, *shape).integers(0, 2, shape).astype(float)


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_shapley_is_the_mean_over_all_orders_of_what_an_agent_adds(size):
    table, masks = draw(1 << size, 3), [tuple(row) for row in shapley.coalitions(size).tolist()]
    value = dict(zip(masks, table, strict=True))
    added = np.zeros((size, 3))
    orders = list(permutations(range(size)))
    for order in orders:
        here = [False] * size
        for agent in order:
            before = value[tuple(here)]
            here[agent] = True
            added[agent] += value[tuple(here)] - before
    assert np.abs(shapley_value(table) - added / len(orders)).max() < 1e-12


def test_shapley_gives_away_in_every_draw_what_the_team_is_worth_more_than_nobody():
    table = draw(16, 6)
    assert np.allclose(shapley_value(table).sum(axis=0), table[-1] - table[0], atol=1e-12)


def test_leaving_one_out_compares_draw_by_draw():
    whole, without = draw(5), draw(4, 5)
    expected = [[whole[d] - without[i, d] for d in range(5)] for i in range(4)]
    assert leave_one_out(whole, without).tolist() == expected


def test_leaving_one_out_agrees_with_the_game_of_each_draw():
    table = draw(8, 4)
    games = [shapley.Game(3, lambda masks, c=column: c[masks @ (1 << np.arange(3))]) for column in table.T]
    without = table[[7 - (1 << i) for i in range(3)]]
    assert np.array_equal(leave_one_out(table[7], without), np.stack([shapley.leave_one_out(g) for g in games], 1))


def test_a_counterfactual_is_what_was_less_the_mean_of_what_might_have_been():
    redrawn = draw(3, 8)
    assert np.allclose(average(counterfactual(1.0, redrawn)).values, 1 - redrawn.mean(axis=1))


def test_draws_that_are_common_to_all_coalitions_leave_no_error():
    whole = draw(6)
    found = average(leave_one_out(whole, np.tile(whole - 0.5, (2, 1))))
    assert found.values.tolist() == [0.5, 0.5]
    assert found.errors.tolist() == [0.0, 0.0]


def test_the_error_of_a_mean_is_that_of_independent_draws():
    drawn = draw(2, 9)
    assert np.allclose(average(drawn).errors, drawn.std(axis=1, ddof=1) / 3)
    assert np.isnan(average(drawn[:, :1]).errors).all()


def test_noise_is_the_spread_within_episodes_and_not_between_them():
    assert noise([[1.0] * 4, [0.0] * 4]) == 0
    assert noise([[0.0, 1.0], [1.0, 0.0]]) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(noise([[1.0], [0.0]]))


@pytest.mark.parametrize("call", [
    lambda: leave_one_out([1.0, 0.0], np.ones((3, 4))),
    lambda: shapley_value(np.ones((6, 2))),
    lambda: counterfactual(1.0, np.array([[np.nan]])),
    lambda: average(np.ones((3, 0))),
])  # fmt: skip
def test_what_is_no_table_of_values_is_refused(call):
    with pytest.raises(CoterieError, match="no values of replays"):
        call()
