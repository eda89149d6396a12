from typing import get_args

import pytest
import torch

from coterie.agents.swarm.architecture import Architecture, Kind, Preset
from coterie.agents.swarm.distributions import Categorical, Gaussian
from coterie.agents.swarm.networks import Actor, Critic
from coterie.errors import ConfigError
from coterie.types import ObservationLayout, WorldSpec

KINDS = get_args(Kind)
SPEC = WorldSpec(8, 40, "continuous", 4, ObservationLayout(19, 2, 6, 9))
SMALL = Architecture.preset("attention", "small")


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_has_as_many_parameters_as_published():
    architecture = Architecture.preset("paper", "paper")
    assert count(Actor(architecture, SPEC)) == 1_653_256
    assert count(Critic(architecture, SPEC, central=False)) == 1_651_713


@pytest.mark.parametrize("kind", KINDS)
def test_micro_has_about_a_thousand_parameters(kind):
    assert 900 <= count(Actor(Architecture.preset(kind, "micro"), SPEC)) <= 1250


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", get_args(Preset))
def test_every_preset_acts_and_judges(kind, size):
    architecture, observation = Architecture.preset(kind, size), torch.randn(6, 40)
    assert Actor(architecture, SPEC)(observation).shape == (6, 4)
    assert Critic(architecture, SPEC, central=False)(observation).shape == (6,)


def test_weights_are_a_function_of_the_seed_alone():
    first = Actor(SMALL, SPEC, seed=5).state_dict()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    again, other = Actor(SMALL, SPEC, seed=5).state_dict(), Actor(SMALL, SPEC, seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["output.weight"], other["output.weight"])
    assert torch.equal(torch.get_rng_state(), state)


def test_actor_and_critic_begin_with_weights_of_their_own():
    actor, critic = Actor(SMALL, SPEC), Critic(SMALL, SPEC, central=False)
    assert not torch.equal(actor.encoder.query.weight, critic.encoder.query.weight)


def test_an_actor_begins_near_the_middle_of_its_actions():
    assert Actor(SMALL, SPEC)(torch.randn(100, 40) * 3).abs().max() < 0.2


def test_the_first_deviation_is_a_field():
    actor = Actor(Architecture("mlp", initial_std=0.5), SPEC)
    torch.testing.assert_close(actor.log_std.exp(), torch.full((4,), 0.5))


def test_the_distribution_fits_the_world():
    discrete = Actor(Architecture.preset("mlp", "small"), WorldSpec(3, 18, "discrete", 5))
    assert discrete.log_std is None
    assert isinstance(discrete.distribution(torch.zeros(2, 18)), Categorical)
    assert isinstance(Actor(SMALL, SPEC).distribution(torch.zeros(2, 40)), Gaussian)


def test_a_central_critic_reads_the_whole_team():
    critic, team = Critic(SMALL, SPEC, central=True), torch.randn(3, 8, 40)
    values = critic(team.flatten(0, 1), team)
    changed = team.clone()
    changed[1, 5] += 1
    after = critic(team.flatten(0, 1), changed)
    assert values.shape == (24,)
    assert (values != after).nonzero().flatten().tolist() == list(range(8, 16))


def test_a_central_critic_takes_the_team_once_for_each_row_or_for_rows_that_share_it():
    critic, team = Critic(SMALL, SPEC, central=True), torch.randn(3, 8, 40)
    rows = team.repeat_interleave(8, 0)
    torch.testing.assert_close(critic(team.flatten(0, 1), rows), critic(team.flatten(0, 1), team))


def test_a_central_critic_does_not_see_the_order_of_the_team():
    critic, team = Critic(SMALL, SPEC, central=True), torch.randn(3, 8, 40)
    observation = team[:, 0]
    torch.testing.assert_close(critic(observation, team.flip(1)), critic(observation, team), rtol=0, atol=1e-6)


@pytest.mark.parametrize("members", (1, 3, 32))
def test_a_central_critic_takes_teams_of_any_size(members):
    critic, team = Critic(SMALL, SPEC, central=True), torch.randn(2, members, 40)
    assert critic(team.flatten(0, 1), team).shape == (2 * members,)


def test_members_that_observe_nothing_are_not_in_the_team():
    critic, team = Critic(SMALL, SPEC, central=True), torch.randn(2, 5, 40)
    team[:, 3:] = 0
    torch.testing.assert_close(critic(team[:, 0], team), critic(team[:, 0], team[:, :3]))


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="there is no preset 'huge'"):
        Architecture.preset("mlp", "huge")


@pytest.mark.parametrize(
    ("name", "value"),
    [("kind", "gnn"), ("width", 0), ("layers", -1), ("activation", "gelu"), ("initial_std", 0.0), ("heads", 0)],
)
def test_a_shape_that_cannot_be_is_refused(name, value):
    with pytest.raises(ConfigError, match=name) as refused:
        Architecture(**{"kind": "mlp", name: value})
    assert refused.value.where == f"policy.{name}"


def test_heads_that_cannot_share_the_width_are_refused():
    with pytest.raises(ConfigError, match="heads is 3") as refused:
        Architecture("attention", width=64, heads=3)
    assert "divides the width of 64" in str(refused.value)
