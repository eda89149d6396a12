from __future__ import annotations

import json
import math

import pytest

from coterie.experiments.comparison.learning_curves import learning_curves
from coterie.experiments.comparison.trainings import Training, of_world
from coterie.experiments.exports.marl_eval import as_marl_eval
from coterie.experiments.records.training import TrainingRecord


def train(policy: str, seed: int, first: int = 3) -> Training:
    """A run whose first episode ends in that iteration."""
    rows = [
        {"iteration": i, "agent_steps": 500 * i, "episodes": int(i >= first), "reward": 0.0, "learning": {},
         "metrics": {"success": i / 20, "reward": float(i)} if i >= first else {}, "weights": "ab"}
        for i in range(1, 21)
    ]  # fmt: skip
    config = {
        "name": "trial", "seed": seed, "env": {"kind": "quad_swarm_v0"}, "policy": {"kind": policy},
        "learning": {"kind": "ippo", "agent_steps": 10_000},
    }  # fmt: skip
    return of_world(TrainingRecord({"config": config, "plugins": {}}, "cd", rows, ()))


def test_runs_stand_by_environment_task_algorithm_seed_and_step() -> None:
    found = as_marl_eval(learning_curves([train(p, s) for p in ("attention", "mlp") for s in (1, 2)]))
    runs = found["quad_swarm_v0"]["quad_swarm_v0"]
    assert {name: sorted(seeds) for name, seeds in runs.items()} == {
        "policy=attention": ["seed_1", "seed_2"], "policy=mlp": ["seed_1", "seed_2"],
    }  # fmt: skip
    run = runs["policy=mlp"]["seed_2"]
    assert run["step_0"] == {"step_count": 1250, "reward": [3.0], "success": [0.15]}
    assert list(run)[-1] == "absolute_metrics"
    assert run["absolute_metrics"] == {"reward": [19.5], "success": [pytest.approx(0.975)]}


def test_all_runs_have_the_same_steps_and_no_gaps() -> None:
    found = as_marl_eval(learning_curves([train("mlp", 1, first=2), train("mlp", 2, first=9)]))
    runs = found["quad_swarm_v0"]["quad_swarm_v0"]["trial"]
    counts = [[step["step_count"] for name, step in run.items() if name.startswith("step_")] for run in runs.values()]
    assert counts[0] == counts[1] and len(counts[0]) == 12
    values = [v for run in runs.values() for step in run.values() for v in step.get("success", [])]
    assert all(math.isfinite(value) for value in values)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_two_runs_of_a_seed_are_both_there() -> None:
    found = as_marl_eval(learning_curves([train("mlp", 1), train("mlp", 1)]))
    assert sorted(found["quad_swarm_v0"]["quad_swarm_v0"]["trial"]) == ["seed_1", "seed_1_1"]
