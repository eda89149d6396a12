import itertools

import pytest
import torch

from coterie.errors import CreditError
from coterie.rewards.credit import world

T, E, N = 5, 2, 3


def given(seed=0):
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(T, E, N, generator=generator)
    alive = torch.rand(T, E, N, generator=generator) > 0.3
    alive[0, 0] = False
    return reward, alive, torch.randn(T, E, N, generator=generator)


def test_equal_shares_are_the_mean_of_those_who_were_there():
    reward, alive, _ = given()
    shared = world.share_equally(reward, alive)
    for t, e in itertools.product(range(T), range(E)):
        there = [n for n in range(N) if alive[t, e, n]]
        mean = sum(float(reward[t, e, n]) for n in there) / max(len(there), 1)
        wanted = [mean if n in there else 0.0 for n in range(N)]
        assert shared[t, e].tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_shares_keep_what_teams_earn_whatever_the_guesses(seed):
    reward, alive, guess = given(seed)
    for shared in (world.share_equally(reward, alive), world.complete(100 * guess, reward, alive)):
        world.check_conserved(shared, reward, alive)
        torch.testing.assert_close(
            (shared * alive).sum(-1), (reward * alive).sum(-1), rtol=0, atol=1e-4 * float(shared.abs().max() + 1)
        )


def test_right_guesses_are_given_as_they_are():
    reward, alive, _ = given()
    torch.testing.assert_close(world.complete(reward, reward, alive), reward * alive)


def test_a_rule_that_mints_reward_is_refused():
    reward, alive, _ = given()
    shared = world.share_equally(reward, alive)
    t, e, n = alive.nonzero()[3].tolist()
    shared[t, e, n] += 1e-3
    with pytest.raises(CreditError, match="earned") as caught:
        world.check_conserved(shared, reward, alive)
    assert caught.value.where == f"step {t} of the rollout, environment {e}"


def test_shares_that_are_no_numbers_are_refused():
    reward, alive, _ = given()
    with pytest.raises(CreditError):
        world.check_conserved(torch.where(alive, torch.nan, 0.0), reward, alive)


def test_a_window_is_a_discounted_mean_up_to_the_episodes_end():
    _, _, differences = given()
    lasts = torch.ones(T, E, dtype=torch.bool)
    lasts[3:, 1] = False
    found = world.weigh_window(differences, lasts, 0.9)
    for e, length in ((0, T), (1, 3)):
        for n in range(N):
            terms = [0.9**k * float(differences[k, e, n]) for k in range(length)]
            assert float(found[e, n]) == pytest.approx(sum(terms) / sum(0.9**k for k in range(length)), abs=1e-6)


def test_a_window_of_one_step_is_its_difference():
    _, _, differences = given()
    torch.testing.assert_close(
        world.weigh_window(differences[:1], torch.ones(1, E, dtype=torch.bool), 0.5), differences[0].double()
    )


def test_steps_that_were_not_chosen_have_the_right_expectation():
    reward, alive, found = given()
    mean, begins = world.average(reward, alive), torch.zeros(T, E, dtype=torch.bool)
    begins[0], begins[2, 1] = True, True
    total = torch.zeros(T, E, N, dtype=torch.float64)
    for choice in itertools.product([True, False], repeat=T):
        probability = 0.3 ** sum(choice) * 0.7 ** (T - sum(choice))
        # What was not chosen is not read.
        seen = torch.where(torch.tensor(choice)[:, None, None], found.double(), torch.nan)
        total += probability * world.fill_steps(seen, torch.tensor(choice), mean, begins, 0.3)
    torch.testing.assert_close(total, found.double())


def test_where_every_step_is_chosen_each_has_its_own_difference():
    reward, alive, found = given()
    begins = torch.zeros(T, E, dtype=torch.bool)
    mean, every = world.average(reward, alive), torch.ones(T, dtype=torch.bool)
    filled = world.fill_steps(found.double(), every, mean, begins, 1.0)
    torch.testing.assert_close(filled, found.double())


def test_agreement_is_the_correlation_within_teams():
    reward, alive, _ = given()
    offset = torch.randn(T, E, 1)
    assert world.agree(3 * reward + offset, reward, alive) == pytest.approx(1, abs=1e-6)
    assert world.agree(-reward, reward, alive) == pytest.approx(-1, abs=1e-6)
    assert world.agree(world.share_equally(reward, alive), reward, alive) == pytest.approx(0, abs=1e-6)
