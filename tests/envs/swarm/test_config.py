"""What is refused, and with which words."""

import subprocess
import sys

import pytest

from coterie.envs.swarm.config import Curriculum, Noise, Obstacles, Quadrotor, Replay, SwarmConfig
from coterie.envs.swarm.parameters import parameters
from coterie.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: SwarmConfig(num_drones=-1), "num_drones"),
        (lambda: SwarmConfig(num_drones=4, num_neighbours=4), "num_neighbours"),
        (lambda: SwarmConfig(scenario="o_nowhere"), "scenario"),
        (lambda: SwarmConfig(scenario="o_random"), "scenario"),
        (lambda: SwarmConfig(obstacles=Obstacles(), scenario="swap_goals"), "scenario"),
        (lambda: SwarmConfig(scenario=()), "scenario"),
        (lambda: Obstacles(density=1.2), "obstacles.density"),
        (lambda: Obstacles(size=float("nan")), "obstacles.size"),
        (lambda: SwarmConfig(obstacles=Obstacles(count=65)), "obstacles.count"),
        (lambda: SwarmConfig(obstacles=Obstacles(density=1.0)), "obstacles.density"),
        (lambda: SwarmConfig(room=(3.0, 3.0, 3.0), num_drones=2048), "room"),
        (lambda: SwarmConfig(physics_hz=150), "control_hz"),
        (lambda: SwarmConfig(control_hz=300), "control_hz"),
        (lambda: SwarmConfig(neighbour_rule="loudest"), "neighbour_rule"),
        (lambda: SwarmConfig(seconds=1.0, replay=Replay()), "replay.before"),
        (lambda: Quadrotor(thrust_to_weight=0.9), "quadrotor.thrust_to_weight"),
        (lambda: Noise(position=-1), "noise.position"),
        (lambda: Replay(probability=2), "replay.probability"),
        (lambda: Curriculum(steps=0), "curriculum.steps"),
    ],
)
def test_a_bad_value_is_refused_with_its_field_and_a_remedy(make, where):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.where == where and caught.value.remedy


def test_the_published_setting_observes_40_numbers_and_the_older_one_54():
    assert SwarmConfig(obstacles=Obstacles()).observation_size == 40
    assert SwarmConfig(num_neighbours=6).observation_size == 54


def test_a_fifth_of_the_cells_is_12_obstacles_and_four_fifths_51():
    assert SwarmConfig(obstacles=Obstacles(0.2)).max_obstacles == 12
    assert SwarmConfig(obstacles=Obstacles(0.8)).max_obstacles == 51


def test_a_config_needs_neither_compiler_nor_torch_nor_pydantic():
    code = (
        "import sys, coterie.envs.swarm.config; coterie.envs.swarm.config.SwarmConfig();"
        "sys.exit(any(name in sys.modules for name in ('numba', 'torch', 'pydantic', 'ray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_second_costs_the_same_at_any_control_rate():
    quick, slow = (parameters(SwarmConfig(control_hz=hz)) for hz in (100, 50))
    assert slow.distance / quick.distance == pytest.approx(2)
    assert slow.proximity / quick.proximity == pytest.approx(2)
    assert slow.collision == quick.collision
