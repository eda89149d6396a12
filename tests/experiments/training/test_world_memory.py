"""What does not fit into the memory is said, whoever finds it."""

import numpy as np
import pytest
import torch

from coterie.config.load import loads
from coterie.errors import EnvironmentMissing
from coterie.experiments.training.world_memory import check_memory, rollout_bytes, tell_memory


def make(**changes):
    config = {
        "name": "a",
        "env": {"kind": "quad_swarm_v0", "num_envs": 4},
        "policy": "mlp",
        "learning": {"kind": "ippo"},
    }
    return loads(config, changes).config


def test_a_rollout_takes_at_least_what_was_observed_twice_and_what_was_done():
    assert rollout_bytes(make()) == 4 * 8 * 32 * (2 * 30 + 4 + 5) * 4


def test_one_that_fits_is_no_mistake_and_one_that_does_not_is_told():
    check_memory(make())
    with pytest.raises(EnvironmentMissing, match="a rollout takes") as refused:
        check_memory(make(**{"env.num_envs": 1_048_576, "learning.rollout": 65_536}))
    assert refused.value.where == "learning.rollout"


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**50), lambda: torch.empty(2**62), lambda: np.empty(2**50)])
def test_an_allocation_that_fails_is_one_clear_error(allocate):
    with pytest.raises(EnvironmentMissing, match="does not fit into the memory"), tell_memory():
        allocate()


def test_any_other_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="bug"), tell_memory():
        raise RuntimeError("a bug")
