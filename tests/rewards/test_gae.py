import math

import numpy as np
import pytest
import torch

from coterie.rewards.gae import gae, normalise, of_replies


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


REWARDS = [np.array([0.0, 0.0, 1.0]), np.array([-0.25])]
VALUES = [np.array([0.5, 0.25, 0.75]), np.array([0.5])]


@pytest.mark.parametrize(
    ("discount", "trace", "advantages"),
    [
        (1.0, 1.0, [0.5, 0.75, 0.25]),  # what came less what was expected
        (1.0, 0.0, [-0.25, 0.5, 0.25]),  # what each token changed: 1/4 - 1/2, 3/4 - 1/4, 1 - 3/4
        # Errors 1/8 - 1/2, 3/8 - 1/4 and 1/4, each with a quarter of what follows.
        (0.5, 0.5, [-0.375 + 0.1875 / 4, 0.125 + 0.25 / 4, 0.25]),
    ],
)  # fmt: skip
def test_each_reply_is_an_episode_that_ends_with_its_last_token(discount, trace, advantages):
    long, short = of_replies(REWARDS, VALUES, discount, trace)
    assert long.advantage == pytest.approx(advantages) and short.advantage == pytest.approx([-0.75])
    assert long.target == pytest.approx(np.add(advantages, VALUES[0])) and short.target == pytest.approx([-0.25])


def test_what_the_tokens_of_a_reply_changed_is_what_it_earned_beyond_the_value_of_its_prompt():
    draw = np.random.default_rng(0)
    rewards, values = ([draw.standard_normal(size) for size in (1, 7, 4)] for _ in range(2))
    for found, reward, value in zip(of_replies(rewards, values, 1.0, 0.0), rewards, values, strict=True):
        assert found.advantage.sum() == pytest.approx(reward.sum() - value[0], abs=1e-12)


def test_a_reply_does_not_depend_on_the_others_and_may_be_empty():
    none, *pair = of_replies([np.zeros(0), *REWARDS], [np.zeros(0), *VALUES], 0.9, 0.8)
    assert none.advantage.shape == (0,)
    for number, one in enumerate(pair):
        (alone,) = of_replies(REWARDS[number : number + 1], VALUES[number : number + 1], 0.9, 0.8)
        assert alone.advantage.tobytes() == one.advantage.tobytes() and alone.target.tobytes() == one.target.tobytes()
    assert of_replies([], [], 1.0, 1.0) == [] and of_replies([np.zeros(0)], [np.zeros(0)], 1.0, 1.0)[0].target.size == 0
