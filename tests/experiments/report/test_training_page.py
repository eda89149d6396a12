"""Trainings side by side: what is found, and the page that shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from coterie.experiments.comparison.training_contrasts import contrast_trainings
from coterie.experiments.comparison.trainings import Training, of_world
from coterie.experiments.measures.summary import tidy
from coterie.experiments.records.training import TrainingRecord
from coterie.experiments.report.training_page import render_trainings
from coterie.text import clean

CheckInert = Callable[[str], list[tuple[str, str | None]]]
HOSTILE = "<script>alert(1)</script> {{ 7 * 7 }}\x1b[31m"
HEADINGS = ["Learning curves", "In the end", "Which is better", "The trainings", "How to reproduce"]


def train(policy: str, seed: int, level: float = 0.0, world: str = "o_random", reward: float = 1.0) -> Training:
    """A run whose success is `level` and a little of its seed."""
    metrics = {"success": level + seed / 100, "collision": 0.5, "reward": reward * level}
    rows = [
        {"iteration": i, "agent_steps": 500 * i, "episodes": 2, "reward": 0.0, "learning": {}, "metrics": metrics,
         "weights": "ab"}
        for i in range(1, 21)
    ]  # fmt: skip
    config = {
        "name": "trial", "seed": seed, "env": {"kind": "quad_swarm_v0", "scenario": world}, "policy": {"kind": policy},
        "learning": {"kind": "ippo", "agent_steps": 10_000},
    }  # fmt: skip
    return of_world(TrainingRecord({"config": config, "plugins": {}}, "cd" * 32, rows, ()))


def compare(seeds: int, *policies: str) -> dict[str, Any]:
    runs = [train(p, s, level=k / 5) for k, p in enumerate(policies) for s in range(1, seeds + 1)]
    return tidy(contrast_trainings(runs)[0])


def page(runs: list[Training], **more: Any) -> str:
    found, groups = contrast_trainings([replace(run, name=f"run-{i}") for i, run in enumerate(runs)])
    return render_trainings(tidy(found), groups, "comparison", **more)


def test_every_two_settings_are_compared_the_better_first() -> None:
    found = compare(4, "mlp", "deepsets", "attention")
    pairs = [(pair["label"], pair["against"], pair["value"]) for pair in found["pairs"]]
    assert pairs == [
        ("policy=deepsets", "policy=mlp", 1.0), ("policy=attention", "policy=mlp", 1.0),
        ("policy=attention", "policy=deepsets", 1.0),
    ]  # fmt: skip
    assert {round(pair["p"], 6) for pair in found["pairs"]} == {round(2 / 70, 6)}
    assert all(pair["p_holm"] >= pair["p"] == pytest.approx(pair["least_p"]) for pair in found["pairs"])


def test_each_run_has_its_own_numbers_and_its_folder() -> None:
    runs = contrast_trainings([replace(train("mlp", s), name=name) for s, name in ((2, "b"), (1, "a"))])[0]["runs"]
    assert [(run["seed"], run["name"], run["metrics"]["success"]) for run in runs] == [
        (1, "a", pytest.approx(0.01)), (2, "b", pytest.approx(0.02)),
    ]  # fmt: skip


def test_over_several_worlds_only_shares_are_aggregated() -> None:
    runs = [
        train(p, s, 0.3, world, reward) for p in ("mlp", "paper") for s in (1, 2)
        for world, reward in (("o_random", 1.0), ("mix", 900.0))
    ]  # fmt: skip
    rows = contrast_trainings(runs)[0]["rows"]
    assert set(rows[-1]["metrics"]) == {"success", "collision"} and "reward" in rows[0]["metrics"]


def test_the_page_holds_every_section_and_what_made_it() -> None:
    runs = [train(p, s, level) for p, level in (("attention", 0.5), ("mlp", 0.2)) for s in (1, 2, 3)]
    text = page(runs, command="coterie compare a b", pages={"run-4": "../b/report/index.html"})
    assert re.findall(r"<h2>(.*?)</h2>", text) == HEADINGS
    assert "policy=attention ends highest, with 52.0" in text and "<code>coterie compare a b</code>" in text
    assert "seeds 1, 2, 3" in text and '<a href="../b/report/index.html">run-4</a>' in text
    assert 'href="comparison.png"' in text and 'href="comparison.marl_eval.json"' in text


def test_the_page_says_that_three_seeds_cannot_tell_two_settings_apart() -> None:
    three = page([train(p, s, level) for p, level in (("attention", 0.5), ("mlp", 0.2)) for s in (1, 2, 3)])
    assert "The two cannot be told apart. It takes more seeds" in three and "0.100" in three
    five = page([train(p, s, level) for p, level in (("attention", 0.5), ("mlp", 0.2)) for s in range(5)])
    assert "The two can be told apart." in five and ">better<" in five


def test_single_runs_are_shown_without_intervals() -> None:
    text = page([train("attention", 1, 0.5), train("mlp", 1, 0.2)])
    assert "It takes more seeds" in text and "nan" not in text


def test_where_settings_are_alike_none_is_ahead() -> None:
    assert "No setting is ahead: 31.0" in page([train(p, 1, 0.3) for p in ("attention", "mlp")])


def test_hostile_names_are_shown_and_inert(check_inert: CheckInert) -> None:
    text = page([train(HOSTILE, 1, 0.5), train("mlp", 1, 0.2)], command=HOSTILE)
    check_inert(text)
    assert "&lt;script&gt;alert(1)" in text and "{{ 7 * 7 }}" in text and clean(text) == text


def test_made_again_it_is_the_same_to_the_byte() -> None:
    runs = [train(p, s) for p in ("attention", "mlp") for s in (1, 2)]
    assert page(runs) == page(runs)
