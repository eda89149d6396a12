"""The report of a real training, as short as it can be."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import coterie.experiments.api as api
from coterie.experiments.api import Run
from coterie.experiments.evaluation.policy import evaluate
from coterie.experiments.evaluation.worlds import Conditions
from coterie.experiments.flights.packing import load
from coterie.experiments.folder import RunFolder
from coterie.experiments.report import write_report
from coterie.journal import Fact, Journal
from coterie.text import clean

FILES = {
    "index.html", "summary.json", "learning_curves.png", "marl_eval.json", "swarm.html", "trajectories.png",
    "flight.npz",
}  # fmt: skip


def config(**changes: Any) -> dict[str, Any]:
    return {
        "name": "trial", "seed": 3,
        "env": {"kind": "quad_swarm_v0", "num_envs": 8, "num_drones": 3, "seconds": 0.5, "obstacles": {}},
        "policy": {"kind": "attention", "preset": "micro"},
        "learning": {"kind": "ippo", "agent_steps": 8000, "rollout": 64, "epochs": 1},
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = api.run(config(), runs=tmp_path_factory.mktemp("runs"))
    write_report(made.folder)
    return made


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> RunFolder:
    shutil.copytree(run.folder.path, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


def headings(page: Path) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page.read_text("utf-8"))


def test_all_files_are_there_and_every_section_is_on_the_page(run: Run) -> None:
    page = write_report(run.folder)
    assert {path.name for path in page.parent.iterdir()} == FILES
    assert headings(page) == [
        "Learning curves", "A flight", "Where the time went", "Attempts", "How to reproduce",
    ]  # fmt: skip


def test_made_again_it_is_the_same_to_the_byte(run: Run) -> None:
    before = {name: (run.folder.report / name).read_bytes() for name in FILES}
    write_report(run.folder)
    assert {name: (run.folder.report / name).read_bytes() for name in FILES} == before


def test_the_flight_is_that_of_the_last_checkpoint_and_the_same_whenever_it_is_flown(copied: RunFolder) -> None:
    before, notes = load(copied.report / "flight.npz")
    page = (copied.report / "swarm.html").read_bytes()
    shutil.rmtree(copied.report)
    write_report(copied)
    assert (copied.report / "swarm.html").read_bytes() == page
    after, again = load(copied.report / "flight.npz")
    assert notes == again and (after.position == before.position).all()
    assert (after.num_drones, after.seconds) == (3, 0.5)
    assert after.attention is not None and after.attention.shape[-1] == 3


def test_a_flight_of_another_checkpoint_is_flown_anew(copied: RunFolder) -> None:
    from coterie.experiments.flights.packing import save

    save(load(copied.report / "flight.npz")[0], copied.report / "flight.npz", checkpoint="of another one")
    write_report(copied)
    assert load(copied.report / "flight.npz")[1] != {"checkpoint": "of another one"}


def test_without_its_checkpoint_there_is_a_page_that_says_why_there_is_no_flight(copied: RunFolder) -> None:
    shutil.rmtree(copied.checkpoints)
    shutil.rmtree(copied.report)
    page = write_report(copied)
    assert "No flight: the checkpoint after iteration" in page.read_text("utf-8")
    assert not (copied.report / "swarm.html").exists()


def test_an_evaluation_is_shown_with_intervals(copied: RunFolder) -> None:
    evaluate(copied, Conditions(drones=(3, 5), episodes=4), command="coterie eval <b>x</b>")
    text = write_report(copied).read_text("utf-8")
    assert "Evaluation" in headings(copied.report / "index.html")
    assert "density 20%, 5 agents" in text and "coterie eval &lt;b&gt;x" in text


def test_an_evaluation_that_cannot_be_read_is_left_out(copied: RunFolder) -> None:
    (copied.report / "evaluation.json").write_text('{"version": 1, "cells": [3]}')
    assert "Evaluation" not in headings(write_report(copied))


def test_a_run_without_an_iteration_has_a_page(tmp_path: Path, run: Run) -> None:
    with Journal.read(run.folder.journal) as source, Journal.create(tmp_path / "journal.sqlite") as journal:
        journal.commit([Fact("run", "run", source.get("run"))])
    text = write_report(RunFolder(tmp_path)).read_text("utf-8")
    assert "Nothing is learnt yet" in text and "There is no checkpoint yet." in text and "A partial report" in text


def test_hostile_text_is_shown_and_inert(tmp_path: Path, run: Run) -> None:
    with Journal.read(run.folder.journal) as source, Journal.create(tmp_path / "journal.sqlite") as journal:
        for fact in source.facts():
            if fact.kind == "run":
                fact.payload["config"]["name"] = "<script>alert(1)</script> \x1b[31m {{ 7 * 7 }}"
            if fact.kind == "iteration":
                fact.payload["metrics"]["<i>\x1b[0m"] = 1.0
            journal.commit([fact])
    text = write_report(RunFolder(tmp_path)).read_text("utf-8")
    assert "&lt;script&gt;alert(1)" in text and "{{ 7 * 7 }}" in text and "&lt;i&gt;" in text
    assert "<script" not in text and "<i>" not in text and clean(text) == text


def test_numbers_for_marl_eval_are_json_without_nan(run: Run) -> None:
    found = json.loads((run.folder.report / "marl_eval.json").read_text(), parse_constant=pytest.fail)
    [task] = found["quad_swarm_v0"].values()
    [runs] = task.values()
    assert list(runs) == ["seed_3"] and "absolute_metrics" in runs["seed_3"]


def test_a_policy_without_attention_shows_whom_it_observes(tmp_path: Path) -> None:
    made = api.run(config(policy={"kind": "deepsets", "preset": "micro"}), runs=tmp_path)
    write_report(made.folder)
    assert load(made.folder.report / "flight.npz")[0].attention is None
    assert "The chosen drone observes" in (made.folder.report / "swarm.html").read_text("utf-8")
