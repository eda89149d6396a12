"""Rules between credit for agents and the rest of a society's file."""

import pytest

from coterie.config.load import load
from coterie.config.problems import InvalidConfig

SOCIETY = """\
name: shared
determinism: exact
policy: {engine: transformers, model: none, sampling: {temperature: 1.0}}
seats: S1
protocol: machinesom
benchmark: {kind: sums, limit: 4}
learning: policy_gradient
"""


@pytest.fixture
def read(tmp_path):
    def parse(credit: str, society: str = SOCIETY):
        (tmp_path / "society.yaml").write_text(f"{society}credit: {credit}\n")
        return load(tmp_path / "society.yaml").config.credit

    return parse


def test_agents_and_tokens_are_given_credit_side_by_side(read):
    found = read("{agent: attention, token: coupled}")
    assert (found.agent.kind, found.agent.layers, found.token.kind) == ("attention", 5, "coupled")


def test_where_the_team_reward_is_shared_no_other_reward_is_needed(read):
    assert read("{agent: equal}").agent.own == 0
    with pytest.raises(InvalidConfig, match=r"no reward has a weight.*rewards: \[verifier\]"):
        read("{token: random}")


def test_credit_of_agents_where_that_of_tokens_stands_is_told_its_place(read):
    with pytest.raises(InvalidConfig, match='did you mean "credit: {agent: attention}"'):
        read("attention")


def test_replays_want_common_random_numbers(read):
    with pytest.raises(InvalidConfig, match="credit.agent  leave_one_out compares replays .* `determinism: exact`"):
        read("{agent: leave_one_out}", SOCIETY.replace("exact", "statistical"))
    assert read("{agent: psi}", SOCIETY.replace("exact", "statistical")).agent.kind == "psi"


def test_coalitions_of_too_many_agents_are_refused(read):
    with pytest.raises(InvalidConfig, match="shapley works at most 14 agents, the seats hold 15"):
        read("{agent: shapley}", SOCIETY.replace("seats: S1", "seats: [{name: crowd, count: 15}]"))


def test_attention_of_policies_that_do_not_learn_is_refused(read):
    policy = "{engine: transformers, model: none, sampling: {temperature: 1.0}"
    mixed = SOCIETY.replace(f"policy: {policy}", f"policies:\n  new: {policy}}}\n  old: {policy}, frozen: true")
    mixed = mixed.replace("seats: S1", "seats: [{name: a, policy: old}, {name: b, policy: new}]")
    with pytest.raises(InvalidConfig, match="in learners, and old, which a sits by, has none"):
        read("{agent: attention}", mixed)
