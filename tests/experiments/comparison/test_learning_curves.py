from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coterie.experiments.comparison.learning_curves import label, last_values, learning_curves, show_metrics
from coterie.experiments.comparison.trainings import Training, of_world
from coterie.experiments.records.training import TrainingRecord
from coterie.experiments.report.learning import has_anything, learning_picture, learning_plot


def train(
    policy: str = "attention", seed: int = 1, *, scenario: str = "o_random", iterations: int = 40, level: float = 0.0,
    metrics: Callable[[int], dict[str, float]] | None = None, episodes: Callable[[int], int] = lambda i: 2,
) -> Training:  # fmt: skip
    """A run of 1000 agent-steps per iteration whose success is `level` plus its share of the training."""
    measured = metrics or (lambda i: {"success": level + i / 100, "reward": float(i), "collision": 0.5})
    rows = [
        {"iteration": i, "agent_steps": 1000 * i, "episodes": episodes(i), "reward": 0.0, "learning": {},
         "metrics": measured(i) if episodes(i) else {}, "weights": "ab"}
        for i in range(1, iterations + 1)
    ]  # fmt: skip
    config = {
        "name": "trial", "seed": seed, "env": {"kind": "quad_swarm_v0", "scenario": scenario},
        "policy": {"kind": policy, "width": len(policy)}, "learning": {"kind": "ippo", "agent_steps": 40_000},
    }  # fmt: skip
    return of_world(TrainingRecord({"config": config, "plugins": {}}, "cd", rows, ()))


def test_runs_that_differ_in_their_seed_are_one_group() -> None:
    groups = learning_curves([train(policy, seed) for policy in ("attention", "mlp") for seed in (3, 1, 2)])
    assert [(group.algorithm, group.seeds) for group in groups] == [
        ("policy=attention", [1, 2, 3]), ("policy=mlp", [1, 2, 3])
    ]  # fmt: skip
    assert [label(groups, group) for group in groups] == ["policy=attention", "policy=mlp"]


def test_worlds_are_tasks_and_the_rest_are_algorithms() -> None:
    runs = [train(p, s, scenario=t) for p in ("attention", "mlp") for s in (1, 2) for t in ("o_random", "mix")]
    groups = learning_curves(runs)
    assert {(group.algorithm, group.task) for group in groups} == {
        (p, t) for p in ("policy=attention", "policy=mlp") for t in ("scenario=o_random", "scenario=mix")
    }
    rows = last_values(groups)
    assert [row["runs"] for row in rows] == [2, 2, 2, 2, 4, 4]
    assert rows[-1]["label"] == "policy=mlp, all tasks"


def test_a_stretch_is_the_mean_over_its_episodes() -> None:
    def measured(i: int) -> dict[str, float]:
        return {"success": 1.0 if i % 2 else 0.0, "reward": 0.0}

    (group,) = learning_curves([train(metrics=measured, episodes=lambda i: 3 if i % 2 else 1)], points=20)
    assert len(group.used) == 20
    np.testing.assert_allclose(group.metrics["success"], 0.75)
    np.testing.assert_allclose(group.used[:2], [1000, 3000])


def test_before_the_first_episode_there_is_nothing_and_gaps_are_bridged() -> None:
    ended = lambda i: int(i in (5, 9, 40))  # noqa: E731
    (group,) = learning_curves([train(episodes=ended)], points=40)
    success = group.metrics["success"][0]
    assert np.isnan(success[:4]).all()
    np.testing.assert_allclose(success[[4, 6, 8, 39]], [0.05, 0.07, 0.09, 0.40])


def test_all_are_cut_to_the_shortest_run() -> None:
    groups = learning_curves([train(seed=1), train(seed=2, iterations=25)])
    assert len(groups) == 1 and groups[0].used[-1] < 25_000
    assert groups[0].last["success"][0] == groups[0].last["success"][1]


def test_last_values_are_those_of_the_last_tenth() -> None:
    rows = last_values(learning_curves([train(seed=s, level=s / 10) for s in (1, 2, 3)]))
    found = rows[0]["metrics"]["success"]
    assert found.value == pytest.approx(0.2 + np.mean([0.37, 0.38, 0.39, 0.40]))
    assert found.low < found.value < found.high


def test_a_metric_that_only_some_iterations_have_is_told_where_it_is() -> None:
    def measured(i: int) -> dict[str, Any]:
        return {"success": 0.5, "reward": 1.0, **({"distance_1s": 2.0} if i > 20 else {"distance_1s": None})}

    (group,) = learning_curves([train(metrics=measured)])
    assert np.isnan(group.metrics["distance_1s"][0][:19]).all()
    assert group.metrics["distance_1s"][0][-1] == 2.0


def test_of_a_world_without_the_usual_metrics_those_it_has_are_shown() -> None:
    run = train(metrics=lambda i: {"reward": 1.0, "length": 25.0, "words": 3.0})
    assert show_metrics([run]) == ["reward", "length", "words"]
    assert show_metrics([train()]) == ["reward", "success", "collision"]


def test_an_iteration_across_an_edge_counts_on_both_sides_by_its_share() -> None:
    (group,) = learning_curves([train(iterations=3, metrics=lambda i: {"success": i / 10, "reward": 0.0})], points=2)
    np.testing.assert_allclose(group.metrics["success"], [[(0.1 + 0.2 / 2) / 1.5, (0.2 / 2 + 0.3) / 1.5]])


def test_pictures_show_every_group_by_name() -> None:
    groups = learning_curves([train(p, s, level=s / 20) for p in ("attention", "<b>&$x$") for s in (1, 2, 3)])
    svg = learning_plot(groups)
    assert "policy=attention (3)" in svg and "policy=&lt;b&gt;&amp;$x$ (3)" in svg and "<b>" not in svg
    assert "var(--agent-1)" in svg and "#0a0b1" not in svg
    assert learning_picture(groups)[:4] == b"\x89PNG"
    assert learning_picture(groups) == learning_picture(groups)


def test_without_an_episode_there_is_nothing_to_draw() -> None:
    assert not has_anything(learning_curves([train(episodes=lambda i: 0)]))
    assert has_anything(learning_curves([train()]))
