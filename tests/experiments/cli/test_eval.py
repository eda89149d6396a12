"""`coterie eval`: a trained policy in worlds of its own training, and in others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coterie
from coterie.experiments.cli.main import main
from coterie.experiments.evaluation.policy import CHECKPOINTS, measure
from coterie.experiments.evaluation.worlds import Conditions, FewerNeighbours, cells_of
from coterie.experiments.folder import RunFolder


def flown(folder: RunFolder, *arguments: str) -> dict[str, Any]:
    assert main(["eval", str(folder.path), "--episodes", "3", *arguments]) == 0
    return json.loads((folder.report / "evaluation.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str, code: int = 2) -> str:
    assert main(["eval", str(folder), *arguments]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err and err.count("E_") == 1
    return err


def test_every_combination_is_flown_and_measured(trained: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    found = flown(trained, "--density", "0.1,0.3", "--drones", "2,5", "--scenario", "o_random")
    places = [(cell["scenario"], cell["density"], cell["agents"]) for cell in found["cells"]]
    assert places == [("o_random", 0.1, 2), ("o_random", 0.1, 5), ("o_random", 0.3, 2), ("o_random", 0.3, 5)]
    for cell in found["cells"]:
        assert cell["episodes"] == 3
        assert {"success", "drone_collision", "obstacle_collision", "wall_hits", "distance_1s"} <= set(cell["metrics"])
        for one in cell["metrics"].values():
            assert one["low"] <= one["value"] <= one["high"] and 0 < one["n"] <= 3
    densities = [cell["metrics"]["density"]["value"] for cell in found["cells"]]
    assert densities == [6 / 64, 6 / 64, 19 / 64, 19 / 64]
    out = capsys.readouterr().out
    assert "10%" in out and "2 agents" in out and "succ." in out and "evaluation.json" in out


def test_the_file_says_what_was_flown_and_how_it_was_asked_for(trained: RunFolder) -> None:
    found = flown(trained, "--seed", "7", "--checkpoint", "best", "--stochastic")
    assert found["checkpoint"]["which"] == "best" and len(found["checkpoint"]["sha256"]) == 64
    assert found["conditions"]["seed"] == 7 and not found["conditions"]["is_deterministic"]
    assert found["command"] == f"coterie eval {trained.path} --episodes 3 --seed 7 --checkpoint best --stochastic"
    assert {"coterie", "torch", "numpy"} <= set(found["versions"])
    assert found["trained"] == {"scenario": "mix", "density": 0.2, "agents": 2}


def test_json_prints_what_is_written(trained: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    found = flown(trained, "--json")
    assert json.loads(capsys.readouterr().out) == found


def test_the_same_seed_flies_the_same_episodes_and_another_one_others(trained: RunFolder) -> None:
    def fly(seed: int, **changes: Any) -> Any:
        cells = coterie.Run(trained.path).evaluate(episodes=2, seed=seed, **changes)["cells"]
        return [cell["metrics"] for cell in cells]

    first, drawn = fly(0), fly(0, is_deterministic=False)
    assert fly(0) == first != fly(1)
    assert fly(0, is_deterministic=False) == drawn != first
    assert set(CHECKPOINTS) == {"last", "best"}


def test_a_world_of_fewer_drones_than_neighbours_has_empty_places(trained: RunFolder, tmp_path: Path) -> None:
    from coterie.envs.swarm.config import SwarmConfig
    from coterie.envs.swarm.training import SwarmWorld

    full = SwarmWorld(SwarmConfig(num_drones=3, num_neighbours=2, seconds=0.1, noise=None), 2, 0)
    few = FewerNeighbours(SwarmWorld(SwarmConfig(num_drones=2, num_neighbours=1, seconds=0.1, noise=None), 2, 0), 2)
    assert few.spec.observation_size == full.spec.observation_size and few.spec.layout == full.spec.layout
    observation = few.reset()
    assert observation.shape == (2, 2, full.spec.observation_size)
    assert (observation[..., -6:] == 0).all() and (observation[..., -12:-6] != 0).any()
    assert few.step(np.zeros((2, 2, 4), np.float32)).observation.shape == observation.shape
    assert flown(trained, "--drones", "1")["cells"][0]["agents"] == 1


def test_an_evaluation_has_neither_replay_nor_curriculum_nor_annealing(make_tiny: Any) -> None:
    from coterie.envs.config import QuadSwarmConfig

    harder = {"curriculum": {"steps": 9}, "rewards": {"annealing": 9}}
    env = QuadSwarmConfig.model_validate({**make_tiny()["env"], **harder})
    world: Any = cells_of(env, Conditions())[0].make(1, 0)
    assert world.config.replay is None and world.config.curriculum is None and world.config.rewards.annealing == 0
    world.close()


def test_a_number_of_obstacles_is_shown_as_their_density(make_tiny: Any) -> None:
    from coterie.envs.config import QuadSwarmConfig

    env = QuadSwarmConfig.model_validate({**make_tiny()["env"], "obstacles": {"count": 16}})
    assert [cell.place["density"] for cell in cells_of(env, Conditions())] == [0.25]
    assert [cell.place["density"] for cell in cells_of(env, Conditions(densities=(0.5,)))] == [0.5]


@pytest.mark.parametrize(
    ("arguments", "words"),
    {
        ("--density", "1.5"): "--density",
        ("--density", "many"): "give numbers from 0 to 1",
        ("--density", "0.2,0.2"): "twice",
        ("--density", "1"): "leave no place for 2 drones",
        ("--drones", "0"): "give whole numbers",
        ("--drones", "-3"): "give whole numbers",
        ("--drones", "70000"): "--drones",
        ("--drones", "2,900"): "leave no place for 900 drones",
        ("--scenario", "o_randm"): "there is no scenario 'o_randm'",
        ("--scenario", "static_same_goal"): "does not go with obstacles",
        ("--checkpoint", "first"): "known: last, best",
    }.items(),
    ids=" ".join,
)
def test_conditions_that_cannot_be_are_one_clear_error(
    arguments: tuple[str, str], words: str, trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(capsys, trained.path, *arguments)
    assert words in err and arguments[0] in err


def test_a_policy_that_sees_no_obstacles_is_not_flown_among_them(
    make_tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_tiny()
    del config["env"]["obstacles"]
    config["learning"]["agent_steps"] = 100
    run = coterie.run(config, runs=tmp_path)
    assert "trained without obstacles" in refused(capsys, run.path, "--density", "0.2")
    assert flown(run.folder, "--scenario", "swap_goals")["cells"][0]["density"] is None


def test_a_run_of_a_society_and_one_without_a_checkpoint_are_refused(
    make_tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    society = {"name": "a", "policy": {"engine": "scripted", "model": "none"}, "seats": "S1", "protocol": "single",
               "baselines": [], "benchmark": {"kind": "sums", "limit": 1}}  # fmt: skip
    assert "society" in refused(capsys, coterie.run(society, runs=tmp_path).path)
    config = make_tiny()
    config["budget"] = {"seconds": 1e-6}
    stopped = coterie.run(config, runs=tmp_path)
    assert "no last checkpoint yet" in refused(capsys, stopped.path)


def test_a_damaged_checkpoint_is_refused(make_tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = coterie.run(make_tiny(), runs=tmp_path)
    (run.folder.checkpoints / "00000005" / "weights.safetensors").unlink()
    assert "cannot be read" in refused(capsys, run.path, code=4)


def test_intervals_are_over_the_episodes_that_have_the_metric() -> None:
    found = measure([{"reached": 1.0, "flight_time": 2.0, "scenario": "a"}, {"reached": 1.0}, {"reached": 1.0}], 0)
    assert found["flight_time"] == {"value": 2.0, "low": 2.0, "high": 2.0, "n": 1}
    assert found["reached"]["high"] == 1.0 and 0.4 < found["reached"]["low"] < 0.6 and found["reached"]["n"] == 3
    spread = measure([{"reward": float(value)} for value in range(20)], 0)["reward"]
    assert spread["value"] == 9.5 and 6 < spread["low"] < 8 and 11 < spread["high"] < 13


@pytest.mark.slow
def test_worlds_of_pettingzoo_are_evaluated_by_their_rewards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mpe2")
    config = {
        "name": "spread", "env": {"kind": "pettingzoo", "id": "mpe2.simple_spread_v3", "num_envs": 2,
                                  "params": {"max_cycles": 10}},
        "policy": {"kind": "mlp", "preset": "micro"},
        "learning": {"kind": "mappo", "agent_steps": 200, "rollout": 10, "minibatch": 30, "epochs": 1},
    }  # fmt: skip
    run = coterie.run(config, runs=tmp_path)
    cell = flown(run.folder)["cells"][0]
    assert cell["episodes"] == 3 and cell["metrics"]["length"]["value"] == 10 and "success" not in cell["metrics"]
    assert "--drones" in refused(capsys, run.path, "--drones", "5")
