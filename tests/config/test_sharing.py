"""With `sharing: agent` every agent has a policy of its own, called after it."""

import pytest

from coterie.config.load import loads
from coterie.config.problems import InvalidConfig

ENGINE = {"engine": "transformers", "model": "none", "sampling": {"temperature": 1.0}}


def read(policies, seats, benchmark=None):
    learning = {"kind": "policy_gradient", "sharing": "agent"}
    data = {"name": "own", "policies": policies, "protocol": "machinesom", "rewards": ["verifier"],
            "seats": [{"name": name, "policy": policy} for name, policy in seats.items()],
            "benchmark": {"kind": "sums", "limit": 4, **(benchmark or {})}, "learning": learning}  # fmt: skip
    return loads(data).config


def test_agents_that_shared_a_policy_have_one_each():
    config = read({"base": ENGINE}, {"ann": "base", "bob": "base"})
    assert sorted(config.policies) == ["ann", "bob"]


def test_no_policy_is_taken_for_another():
    special = {**ENGINE, "model": "special"}
    with pytest.raises(InvalidConfig, match=r"seats\[0\].name  ann is the name of a policy") as caught:
        read({"base": ENGINE, "ann": special}, {"ann": "base", "bob": "base", "cy": "ann"})
    assert len(caught.value.problems) == 1
    kept = read({"base": ENGINE, "special": special}, {"ann": "base", "bob": "base", "cy": "special"})
    assert kept.policies["special"].model == "special"
