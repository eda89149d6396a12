import math

import pytest
import torch

from coterie.agents.learning import losses
from coterie.agents.learning.settings import PPOSettings

HALF = torch.tensor([0.5, 0.5])


def test_a_ratio_beyond_the_range_earns_no_more():
    log_ratio = torch.tensor([math.log(1.5), math.log(0.5)], requires_grad=True)
    loss = losses.policy_loss(log_ratio, torch.tensor([1.0, -1.0]), HALF, 0.2)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-(1.2 - 0.8) / 2)
    assert log_ratio.grad.tolist() == [0.0, 0.0]


def test_a_ratio_beyond_the_range_is_still_pulled_back():
    log_ratio = torch.tensor([math.log(1.5), math.log(0.5)], requires_grad=True)
    losses.policy_loss(log_ratio, torch.tensor([-1.0, 1.0]), HALF, 0.2).backward()
    assert (log_ratio.grad.abs() > 0).all()


def test_rows_without_weight_change_nothing():
    weight = torch.tensor([1.0, 0.0])
    kept, other = torch.tensor([0.1, 0.3]), torch.tensor([0.1, -9.0])
    for loss in (
        lambda x: losses.policy_loss(x, torch.ones(2), weight, 0.2),
        lambda x: losses.value_loss(x, torch.zeros(2), torch.ones(2), weight, 0.2),
        lambda x: losses.divergence(x, weight),
        lambda x: losses.clipped(x, weight, 0.2),
    ):
        assert float(loss(kept)) == float(loss(other))


def test_the_loss_of_values_is_half_their_mean_square_error():
    found = losses.value_loss(torch.tensor([1.0, 4.0]), torch.zeros(2), torch.tensor([3.0, 4.0]), HALF, None)
    assert float(found) == pytest.approx(1.0)


def test_a_value_that_runs_ahead_of_its_clip_costs_what_it_would_nearby():
    found = losses.value_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([1.0]), torch.ones(1), 0.25)
    assert float(found) == pytest.approx(0.5 * 0.75**2)


def test_the_divergence_is_that_of_two_normals():
    generator = torch.Generator().manual_seed(0)
    action = torch.randn(200_000, generator=generator, dtype=torch.float64)
    log_ratio = 0.5 * action.square() - 0.5 * (action - 0.3).square()
    weight = torch.full_like(action, 1 / len(action))
    assert float(losses.divergence(log_ratio, weight)) == pytest.approx(0.5 * 0.3**2, rel=0.02)


def test_the_learning_rate_follows_the_divergence_within_its_bounds():
    settings = PPOSettings(target_kl=0.01, min_learning_rate=1e-4, max_learning_rate=1e-3)
    assert losses.adapted_rate(5e-4, 0.021, settings) == pytest.approx(5e-4 / 1.5)
    assert losses.adapted_rate(5e-4, 0.004, settings) == pytest.approx(7.5e-4)
    assert losses.adapted_rate(5e-4, 0.01, settings) == 5e-4
    assert losses.adapted_rate(9e-4, 0.0, settings) == 1e-3
    assert losses.adapted_rate(1.1e-4, 1.0, settings) == 1e-4


def test_without_a_target_the_learning_rate_stays():
    assert losses.adapted_rate(5e-4, 9.0, PPOSettings(target_kl=None)) == 5e-4
