"""Every file of a world in examples/ is valid, and trains to its report when it is made small."""

from pathlib import Path

import pytest

import coterie
from coterie.config.load import load

FOLDER = Path(__file__).parents[3] / "examples"
WORLDS = sorted(path for path in FOLDER.glob("*.yaml") if "\nenv:" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", WORLDS, ids=lambda path: path.stem)
def test_a_world_is_valid_and_trains(path: Path, tmp_path: Path) -> None:
    config = load(path).config
    if config.env.kind == "pettingzoo":
        pytest.importorskip("mpe2")
    small = {"env.num_envs": 2, "learning.agent_steps": 100, "learning.rollout": 8, "learning.epochs": 1}
    small |= {"env.seconds": 2.0} if config.env.kind == "quad_swarm_v0" else {}
    run = coterie.run(path, runs=tmp_path, **small, track=[])
    assert run.status == "finished" and run.report().is_file()


def test_there_is_one_for_every_kind_of_world() -> None:
    assert {load(path).config.env.kind for path in WORLDS} == {"quad_swarm_v0", "pettingzoo"}
