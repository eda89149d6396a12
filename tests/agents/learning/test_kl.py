import math

import numpy as np
import pytest
import torch

from coterie.agents.learning.kl import estimate, penalties
from coterie.agents.learning.llm_settings import KLSettings
from coterie.errors import ConfigError


def test_the_estimates_are_those_worked_by_hand():
    policy, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert float(estimate(policy, reference, "k1")) == pytest.approx(math.log(2))
    assert float(estimate(policy, reference, "k2")) == pytest.approx(math.log(2) ** 2 / 2)
    assert float(estimate(policy, reference, "k3")) == pytest.approx(0.5 - 1 + math.log(2))


@pytest.fixture
def policies():
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    return logits, torch.tensor([0.1, 0.2, -0.5, 0.4], dtype=torch.float64).log_softmax(0)


def expected(logits, reference, estimator):
    """The mean over what the policy draws, whose probabilities have no gradient, as in a rollout."""
    log_probs = logits.log_softmax(0)
    return (log_probs.exp().detach() * estimate(log_probs, reference, estimator)).sum()


def divergence(logits, reference):
    log_probs = logits.log_softmax(0)
    return (log_probs.exp() * (log_probs - reference)).sum()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_in_the_reward_the_estimate_has_the_right_mean(policies, estimator):
    assert expected(*policies, estimator).item() == pytest.approx(divergence(*policies).item())


def test_in_the_loss_k2_has_the_right_gradient_and_k1_none(policies):
    logits, reference = policies
    right, k1, k2 = (
        torch.autograd.grad(value, logits)[0]
        for value in (divergence(logits, reference), expected(*policies, "k1"), expected(*policies, "k2"))
    )
    torch.testing.assert_close(k2, right)
    torch.testing.assert_close(k1, torch.zeros_like(k1), atol=1e-12, rtol=0)


def test_estimates_are_bounded_and_their_gradients_finite():
    policy = torch.tensor([-900.0, 0.0, -1e4], requires_grad=True)
    for estimator, most in (("k1", 20), ("k2", 200), ("k3", 10)):
        found = estimate(policy, torch.tensor([0.0, -900.0, 0.0]), estimator)
        (gradient,) = torch.autograd.grad(found.sum(), policy)
        assert found.abs().max() <= most and gradient.isfinite().all()


def test_k2_pulls_the_harder_the_further_away_the_policy_is():
    policy = torch.tensor([7.0, -7.0, 19.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(estimate(policy, torch.zeros(3), "k2").sum(), policy)
    assert gradient.tolist() == [7.0, -7.0, 19.0]


@pytest.mark.parametrize(("estimator", "place"), [("k1", "loss"), ("k2", "reward")])
def test_an_estimator_where_it_is_not_valid_is_refused(estimator, place):
    with pytest.raises(ConfigError, match=estimator):
        KLSettings(0.1, estimator, place)


def test_a_penalty_is_beta_times_the_estimate():
    now, reference = np.log(np.float32([0.5, 0.5])), np.log(np.float32([0.25, 1.0]))
    assert penalties(now, reference, 0.1, "k1") == pytest.approx([0.1 * math.log(2), -0.1 * math.log(2)])
    assert penalties(now, reference, 0.1, "k3") == pytest.approx([0.1 * (math.log(2) - 0.5), 0.1 * (1 - math.log(2))])
