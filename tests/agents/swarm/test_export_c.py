import ctypes
import subprocess
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from coterie.agents.learning.normalisation import NormalisedActor, ObservationNormaliser
from coterie.agents.swarm.architecture import Architecture, Kind
from coterie.agents.swarm.export_c import to_c, write_source
from coterie.agents.swarm.networks import Actor
from coterie.types import ObservationLayout, WorldSpec

KINDS = [kind for kind in get_args(Kind) if kind != "mechanism"]
SIGHTS = [(2, 9), (1, 0), (0, 9), (6, 9), (0, 0)]


def make_spec(neighbours: int, obstacles: int) -> WorldSpec:
    layout = ObservationLayout(19, neighbours, 6, obstacles)
    return WorldSpec(8, layout.size, "continuous", 4, layout)


def make_actor(architecture: Architecture, spec: WorldSpec) -> Actor:
    actor = Actor(architecture, spec, seed=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return actor


def observe(spec: WorldSpec, rows: int = 60) -> torch.Tensor:
    observation = torch.randn(rows, spec.observation_size, generator=torch.Generator().manual_seed(1)) * 2
    if spec.layout is None or not spec.layout.num_neighbours:
        return observation
    slots = observation[:, 19 : 19 + 6 * spec.layout.num_neighbours].unflatten(1, (-1, 6))
    slots[:10, 0], slots[10:20] = 0, 0
    slots[20:30, -1, :3] = -slots[20:30, 0, :3]
    slots[30:40, -1] = slots[30:40, 0]
    return observation


def compile_and_run(policy: Actor | NormalisedActor, observation: torch.Tensor, folder: Path) -> np.ndarray:
    to_c(policy, folder / "policy.c")
    flags = "-std=c99 -Wall -Werror -O2 -shared -fPIC".split()
    subprocess.run(["gcc", *flags, "policy.c", "-o", "policy.so", "-lm"], cwd=folder, check=True)
    function = ctypes.CDLL(str(folder / "policy.so")).coterie_policy
    array, pointer = np.ascontiguousarray(observation.numpy()), ctypes.POINTER(ctypes.c_float)
    with torch.no_grad():
        said = np.zeros_like(policy(observation).numpy())
    for row, action in zip(array, said, strict=True):
        function(row.ctypes.data_as(pointer), action.ctypes.data_as(pointer))
    return said


def check(policy: Actor | NormalisedActor, observation: torch.Tensor, folder: Path) -> None:
    with torch.no_grad():
        wanted = policy(observation).numpy()
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(compile_and_run(policy, observation, folder), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ("micro", "small"))
def test_c_does_what_the_policy_does(kind, size, tmp_path):
    spec = make_spec(2, 9)
    check(make_actor(Architecture.preset(kind, size), spec), observe(spec), tmp_path)


@pytest.mark.parametrize(
    ("kind", "sight"), [(k, s) for k in KINDS for s in SIGHTS[1:] if any(s) or k in ("deepsets", "mlp")]
)
def test_c_does_so_whatever_is_seen(kind, sight, tmp_path):
    spec = make_spec(*sight)
    check(make_actor(Architecture.preset(kind, "micro"), spec), observe(spec), tmp_path)


@pytest.mark.parametrize("kind", ("attention", "mlp"))
def test_c_normalises_what_was_normalised_in_training(kind, tmp_path):
    spec = make_spec(2, 9)
    normaliser, observation = ObservationNormaliser(spec), observe(spec)
    normaliser.update(observation * 3)
    policy = NormalisedActor(normaliser, make_actor(Architecture.preset(kind, "micro"), spec))
    check(policy, observation * 30, tmp_path)


def test_c_scores_discrete_actions_in_a_world_of_unknown_layout(tmp_path):
    spec = WorldSpec(3, 18, "discrete", 5)
    architecture = Architecture("mlp", width=8, layers=3, final_width=8, activation="relu")
    check(make_actor(architecture, spec), observe(spec), tmp_path)


def test_c_allocates_nothing_and_includes_math_alone():
    source = write_source(make_actor(Architecture.preset("attention", "micro"), make_spec(2, 9)))
    assert "alloc(" not in source
    assert [line for line in source.splitlines() if line.startswith("#include")] == ["#include <math.h>"]
    assert "void coterie_policy(const float *observation, float *action)\n" in source


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    actor = make_actor(Architecture.preset("mlp", "micro"), make_spec(2, 9))
    with torch.no_grad():
        actor.output.weight[1, 2] = torch.nan
    with pytest.raises(ValueError, match="output_weight holds a number that is not finite"):
        to_c(actor, tmp_path / "policy.c")


def test_a_mechanism_of_the_literature_has_no_c():
    with pytest.raises(ValueError, match="a policy of kind mechanism cannot be written as C, only mlp"):
        write_source(make_actor(Architecture.preset("mechanism", "micro"), make_spec(2, 9)))
