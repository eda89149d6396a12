from dataclasses import replace
from typing import get_args

import pytest
import torch

from coterie.agents.swarm.architecture import Architecture, Kind
from coterie.agents.swarm.layers import split
from coterie.agents.swarm.networks import Actor
from coterie.errors import ConfigError
from coterie.types import ObservationLayout, WorldSpec

KINDS = get_args(Kind)
ANY_NUMBER = ("attention", "mechanism", "deepsets")
SELF, OBSTACLES = 19, 9


def make_spec(neighbours: int = 3, obstacles: int = OBSTACLES) -> WorldSpec:
    layout = ObservationLayout(SELF, neighbours, 6, obstacles)
    return WorldSpec(8, layout.size, "continuous", 4, layout)


def make_actor(kind: str, spec: WorldSpec | None = None, **fields) -> Actor:
    actor = Actor(replace(Architecture.preset(kind, "small"), **fields), spec or make_spec(), seed=3)
    with torch.no_grad():
        actor.output.weight.mul_(100)  # of the size that training gives it
    return actor


def observe(rows: int, neighbours: int = 3, obstacles: int = OBSTACLES, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, SELF + 6 * neighbours + obstacles, generator=generator) * 2


def slots(observation: torch.Tensor, neighbours: int = 3) -> torch.Tensor:
    return observation[:, SELF : SELF + 6 * neighbours].view(-1, neighbours, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_neighbours_changes_nothing(kind):
    actor, observation = make_actor(kind), observe(50)
    slots(observation)[:10, 1] = 0
    slots(observation)[10:20, :2] = 0
    moved = observation.clone()
    slots(moved).copy_(slots(observation)[:, [2, 0, 1]])
    exact = kind in ("paper", "mechanism", "mlp")  # which sort them; sums over neighbours are taken in the order given
    torch.testing.assert_close(actor(moved), actor(observation), rtol=0, atol=0 if exact else 1e-6)


@pytest.mark.parametrize("kind", ("paper", "mechanism", "mlp"))
def test_the_order_of_neighbours_equally_far_changes_nothing(kind):
    actor, observation = make_actor(kind), observe(8)
    slots(observation)[:, 1, :3] = -slots(observation)[:, 0, :3]
    slots(observation)[:, 2] = slots(observation)[:, 0]
    slots(observation)[:, 2, 3:] += 1
    moved = observation.clone()
    slots(moved).copy_(slots(observation)[:, [1, 2, 0]])
    assert torch.equal(actor(moved), actor(observation))


@pytest.mark.parametrize("kind", KINDS)
def test_what_neighbours_are_there_changes_something(kind):
    actor, observation = make_actor(kind), observe(4)
    fewer = observation.clone()
    slots(fewer)[:, 1] = 0
    assert (actor(fewer) - actor(observation)).abs().min() > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_others(kind):
    actor, observation = make_actor(kind), observe(64)
    others = observation.clone()
    others[torch.arange(64) != 17] = observe(63, seed=1) * 3
    assert torch.equal(actor(others)[17], actor(observation)[17])


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_is_as_in_a_batch(kind):
    actor, observation = make_actor(kind), observe(64)
    alone = torch.cat([actor(row[None]) for row in observation])
    torch.testing.assert_close(alone, actor(observation), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_batch_are_the_sum_of_those_of_its_rows(kind):
    actor, observation = make_actor(kind), observe(6)
    parameters = [p for name, p in actor.named_parameters() if name != "log_std"]
    whole = torch.autograd.grad(actor(observation).square().sum(), parameters)
    rows = [torch.autograd.grad(actor(row[None]).square().sum(), parameters) for row in observation]
    for together, *alone in zip(whole, *rows, strict=True):
        torch.testing.assert_close(torch.stack(alone).sum(0), together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ANY_NUMBER)
@pytest.mark.parametrize("neighbours", (0, 1, 2, 7, 31))
def test_any_number_of_neighbours_will_do(kind, neighbours):
    assert make_actor(kind)(observe(5, neighbours)).isfinite().all()


@pytest.mark.parametrize("kind", ANY_NUMBER)
def test_empty_slots_are_as_no_slots(kind):
    actor, observation = make_actor(kind), observe(5, 2)
    room = torch.cat([observation[:, : SELF + 12], torch.zeros(5, 18), observation[:, SELF + 12 :]], 1)
    torch.testing.assert_close(actor(room), actor(observation), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("obstacles", (0, OBSTACLES))
def test_a_row_without_neighbours_has_an_action_and_gradients(kind, obstacles):
    actor, observation = make_actor(kind, make_spec(3, obstacles)), observe(5, 3, obstacles)
    slots(observation)[:2] = 0
    action = actor(observation)
    action.sum().backward()
    assert action.isfinite().all()
    assert all(p.grad.isfinite().all() for name, p in actor.named_parameters() if name != "log_std")


@pytest.mark.parametrize("kind", ("deepsets", "mlp"))
def test_a_world_without_neighbours_and_obstacles_will_do(kind):
    assert make_actor(kind, make_spec(0, 0))(observe(5, 0, 0)).isfinite().all()


@pytest.mark.parametrize("kind", ("paper", "attention", "deepsets"))
def test_an_observation_of_another_size_is_refused(kind):
    with pytest.raises(ValueError, match="observation has 47 numbers, expected 28 and 6 for each neighbour"):
        make_actor(kind)(torch.zeros(2, 47))


@pytest.mark.parametrize("kind", ("paper", "attention", "deepsets"))
def test_a_world_that_does_not_say_where_neighbours_stand_is_for_mlp_alone(kind):
    with pytest.raises(ConfigError, match=f"a policy of kind {kind} must know") as refused:
        Actor(Architecture.preset(kind, "small"), WorldSpec(3, 18, "discrete", 5))
    assert refused.value.where == "policy.kind"
    assert Actor(Architecture.preset("mlp", "small"), WorldSpec(3, 18, "discrete", 5))(torch.zeros(2, 18)).shape == (
        2,
        5,
    )


def test_paper_is_refused_where_nothing_is_seen():
    with pytest.raises(ConfigError, match="needs neighbours or obstacles"):
        make_actor("paper", make_spec(0, 0))


def test_attention_is_told_for_each_neighbour_and_obstacles():
    actor, observation = make_actor("attention"), observe(6)
    slots(observation)[0, 1] = 0
    weights = actor.attention(observation)
    assert weights.shape == (6, 2, 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, 2))
    assert (weights[0, :, 1] == 0).all() and (weights[1:] > 0).all()


def test_attention_is_zero_where_there_is_nothing():
    observation = observe(2, 3, 0)
    slots(observation)[0] = 0
    weights = make_actor("attention", make_spec(3, 0)).attention(observation)
    assert (weights[0] == 0).all() and (weights[1] > 0).all()


def test_attention_is_what_the_action_comes_from():
    actor, observation = make_actor("attention"), observe(6)
    slots(observation)[0, 1] = 0
    encoder = actor.encoder
    tokens = torch.cat([encoder.neighbour(slots(observation).flatten(0, 1)).view(6, 3, -1),
                        encoder.obstacles(split(observation, encoder.layout).obstacles)[:, None]], 1)  # fmt: skip
    of_heads = torch.einsum("bht,bthd->bhd", actor.attention(observation), tokens.unflatten(2, (encoder.heads, -1)))
    read = torch.cat([encoder.oneself(observation[:, :SELF]), of_heads.flatten(1)], 1)
    torch.testing.assert_close(actor.output(encoder.final(read)), actor(observation), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ("paper", "mechanism", "deepsets", "mlp"))
def test_other_kinds_tell_no_attention(kind):
    assert make_actor(kind).attention(observe(2)) is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mechanism"])
def test_a_compiled_graph_gives_the_same(kind):
    actor, observation = make_actor(kind), observe(9)
    slots(observation)[:3, 1] = 0
    slots(observation)[3] = 0
    graph = torch.export.export(
        actor, (observe(5),), dynamic_shapes={"observation": {0: torch.export.Dim("batch")}}
    ).module()
    torch.testing.assert_close(graph(observation), actor(observation), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_double_precision_will_do(kind):
    actor, observation = make_actor(kind), observe(9)
    exact = make_actor(kind).double()(observation.double())
    torch.testing.assert_close(actor(observation).double(), exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ("paper", "attention"))
def test_what_was_kept_from_inference_serves_training(kind):
    actor, observation = make_actor(kind), observe(11)
    with torch.inference_mode():
        actor(observation)
    actor(observation).sum().backward()
    assert all(weight.grad.isfinite().all() for name, weight in actor.named_parameters() if name != "log_std")


def test_distances_to_obstacles_keep_their_mean_and_differ_more():
    observation = observe(5)
    patch = observation[:, -OBSTACLES:]
    sharp = split(observation, ObservationLayout(SELF, 3, 6, OBSTACLES)).obstacles
    torch.testing.assert_close(sharp.mean(1), patch.mean(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(sharp.std(1), 10 * patch.std(1), rtol=1e-4, atol=0)
