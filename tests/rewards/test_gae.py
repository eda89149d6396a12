import math

import pytest
import torch

from coterie.rewards.gae import gae, normalise


def episode(rewards, values, last, *, terminated=False, truncated=False, **options):
    """One environment from its first to its last step; `last` is the value of what it ended with."""
    steps = len(rewards)
    ends = torch.zeros(steps, 1, dtype=torch.bool)
    ends[-1] = True
    none = torch.zeros_like(ends)
    value = torch.tensor(values, dtype=torch.float64)[:, None]
    following = torch.cat([value[1:], torch.tensor([[last]], dtype=torch.float64)])
    return gae(
        torch.tensor(rewards, dtype=torch.float64)[:, None], value, following,
        terminated=ends if terminated else none, truncated=ends if truncated else none, **options,
    )  # fmt: skip


def test_with_a_trace_of_one_targets_are_discounted_returns():
    result = episode([1.0, 2.0, 4.0], [9.0, -3.0, 5.0], 100.0, terminated=True, discount=0.5, trace=1.0)
    assert result.target[:, 0].tolist() == pytest.approx([1 + 1 + 1, 2 + 2, 4])


def test_with_a_trace_of_zero_advantages_are_errors_of_one_step():
    result = episode([1.0, 2.0], [10.0, 20.0], 0.0, terminated=True, discount=0.5, trace=0.0)
    assert result.advantage[:, 0].tolist() == pytest.approx([1 + 10 - 10, 2 - 20])


def test_a_time_limit_goes_on_with_the_value_of_the_last_observation():
    result = episode([0.0, 0.0], [0.0, 0.0], 8.0, truncated=True, discount=0.5, trace=1.0)
    assert result.target[:, 0].tolist() == pytest.approx([2.0, 4.0])


def test_a_time_limit_may_be_taken_for_an_end():
    result = episode([0.0, 0.0], [0.0, 0.0], 8.0, truncated=True, timeouts_terminate=True)
    assert result.target[:, 0].tolist() == [0.0, 0.0]


def test_what_follows_an_end_is_not_read():
    result = episode([1.0], [0.0], math.nan, terminated=True)
    assert result.advantage.tolist() == [[1.0]]


def test_nothing_of_the_next_episode_reaches_back_over_an_end():
    def advantages(later: float):
        reward = torch.tensor([1.0, 1.0, later, later])[:, None]
        truncated = torch.tensor([False, True, False, False])[:, None]
        value = torch.zeros(4, 1)
        none = torch.zeros(4, 1, dtype=torch.bool)
        return gae(reward, value, value, terminated=none, truncated=truncated).advantage[:2]

    assert torch.equal(advantages(0.0), advantages(1e6))


def test_it_is_the_sum_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    reward, value, following = (torch.randn(12, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    terminated = torch.rand(12, 5, generator=generator) < 0.15
    truncated = torch.rand(12, 5, generator=generator) < 0.15
    found = gae(reward, value, following, terminated=terminated, truncated=truncated, discount=0.9, trace=0.8)
    for env in range(5):
        for start in range(12):
            total = 0.0
            for t in range(start, 12):
                future = 0.0 if terminated[t, env] else 0.9 * following[t, env]
                total += (0.9 * 0.8) ** (t - start) * (reward[t, env] + future - value[t, env])
                if terminated[t, env] or truncated[t, env]:
                    break
            assert found.advantage[start, env] == pytest.approx(float(total))


def test_the_dead_have_no_advantage_and_do_not_count_in_the_mean():
    advantage, alive = torch.tensor([1.0, 3.0, 1e9]), torch.tensor([True, True, False])
    scaled = normalise(advantage, alive)
    assert scaled.tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5, 0.0])


def test_a_single_advantage_is_nothing():
    assert normalise(torch.tensor([5.0])).tolist() == [0.0]
