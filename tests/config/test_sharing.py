"""With `sharing: agent` every agent has a policy of its own, called after it."""

from pathlib import Path

import pytest

from coterie import registry
from coterie.config.load import loads
from coterie.config.problems import InvalidConfig
from coterie.config.tree import show

EXAMPLES = Path(__file__).parents[2] / "examples"
ENGINE = {"engine": "transformers", "model": "none", "sampling": {"temperature": 1.0}}


SOCIETY = {
    "name": "own",
    "protocol": "machinesom",
    "rewards": ["verifier"],
    "benchmark": {"kind": "sums", "limit": 4},
    "learning": {"kind": "policy_gradient", "sharing": "agent"},
}


def read(policies, seats):
    named = [{"name": name, "policy": policy} for name, policy in seats.items()]
    return loads({**SOCIETY, "policies": policies, "seats": named}).config


def refuse(**sections):
    with pytest.raises(InvalidConfig) as caught:
        loads(SOCIETY | sections)
    (problem,) = caught.value.problems
    return problem


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


@pytest.mark.parametrize(
    ("seat", "says"),
    [
        ({"policy": "bas"}, 'seats[1].policy  unknown policy "bas"'),
        ({"persona": "nobody"}, 'seats[1].persona  unknown persona "nobody"'),
        ({"count": 0}, "seats[1].count  must be at least 1"),
        ({"name": "ann-2"}, 'seats[1].name  the name "ann-2" is taken by seats[0]'),
    ],
)
def test_a_mistake_at_a_seat_is_told_at_the_seat_that_was_written(seat, says):
    problem = refuse(
        policies={"base": ENGINE},
        seats=[{"name": "ann", "policy": "base", "count": 3}, {"name": "bob", "policy": "base", **seat}],
    )
    assert says in str(InvalidConfig([problem]))
    assert problem.known in ((), ("base",), tuple(registry.names("persona")))


@pytest.mark.parametrize(
    ("policies", "place"),
    [
        ({"policies": {"base": {**ENGINE, "model": "none", "adapter": "old"}}}, "policies.base.adapter"),
        ({"policy": {**ENGINE, "model": "none", "adapter": "old"}}, "policy.adapter"),
        ({"policies": {"base": {**ENGINE, "sampling": {"temperature": -1}}}}, "policies.base.sampling.temperature"),
        ({"policy": {**ENGINE, "sampling": {"temperature": -1}}}, "policy.sampling.temperature"),
    ],
)
@pytest.mark.parametrize("seats", ["S2", None])
def test_a_mistake_in_a_policy_that_agents_have_copies_of_is_told_once_where_it_was_written(policies, place, seats):
    (name,) = policies.get("policies", ["default"])
    assert show(refuse(**policies, seats=seats or [{"name": "ann", "policy": name, "count": 3}]).path) == place


def test_a_judge_keeps_the_policy_that_agents_have_copies_of():
    benchmark = {"kind": "deceptionbench", "path": str(EXAMPLES / "deceptionbench.jsonl"), "judge": "base"}
    seats = [{"name": "ann", "policy": "base", "count": 2}]
    society = {"policies": {"base": ENGINE}, "protocol": "single", "seats": seats, "benchmark": benchmark}
    config = loads({**SOCIETY, **society}).config
    frozen = {name: policy.frozen for name, policy in config.policies.items()}
    assert frozen == {"base": True, "ann-1": False, "ann-2": False}
