import pytest
import torch
from torch.distributions import Categorical, Normal

from coterie.agents.swarm import distributions

GENERATOR = torch.Generator().manual_seed(0)
MEAN, LOG_STD = torch.randn(6, 3, generator=GENERATOR), torch.randn(3, generator=GENERATOR)
LOGITS = torch.randn(6, 4, generator=GENERATOR) * 3
GAUSSIAN, CATEGORICAL = distributions.of(MEAN, LOG_STD), distributions.of(LOGITS, None)
NORMAL = Normal(MEAN, LOG_STD.exp())


def test_a_normal_is_sampled_by_its_noise():
    noise = torch.randn(6, 3, generator=GENERATOR)
    torch.testing.assert_close(distributions.sample(GAUSSIAN, noise), MEAN + noise * LOG_STD.exp())


def test_log_probability_and_entropy_of_a_normal_are_those_of_torch():
    action = NORMAL.sample()
    torch.testing.assert_close(distributions.log_prob(GAUSSIAN, action), NORMAL.log_prob(action).sum(-1))
    torch.testing.assert_close(distributions.entropy(GAUSSIAN), NORMAL.entropy().sum(-1))


def test_log_probability_and_entropy_of_a_choice_are_those_of_torch():
    action = torch.tensor([0, 1, 2, 3, 0, 1])
    exact = Categorical(logits=LOGITS)
    torch.testing.assert_close(distributions.log_prob(CATEGORICAL, action), exact.log_prob(action))
    torch.testing.assert_close(distributions.entropy(CATEGORICAL), exact.entropy())


def test_choices_are_as_frequent_as_probable():
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    evenly = (torch.arange(10_000) + 0.5) / 10_000
    drawn = distributions.sample(distributions.Categorical(logits.expand(10_000, 4)), evenly)
    torch.testing.assert_close(drawn.bincount() / 10_000, logits.softmax(0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("uniform", (0.0, 1.0 - 2**-24))
def test_the_ends_of_the_unit_interval_choose_something_possible(uniform):
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    drawn = distributions.sample(distributions.Categorical(logits), torch.tensor([uniform]))
    assert drawn.item() in (1, 2)


def test_the_mode_is_the_likeliest_action():
    assert torch.equal(distributions.mode(GAUSSIAN), MEAN)
    assert torch.equal(distributions.mode(CATEGORICAL), LOGITS.argmax(1))


def test_entropy_has_a_gradient_where_actions_are_continuous():
    log_std = LOG_STD.clone().requires_grad_()
    distributions.entropy(distributions.of(MEAN, log_std)).sum().backward()
    torch.testing.assert_close(log_std.grad, torch.full((3,), 6.0))
