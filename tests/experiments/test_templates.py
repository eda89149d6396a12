"""A run holds to the templates that its protocols may fill in, and to no others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.agents.prompts import Template, template, template_names
from coterie.errors import ResumeError
from coterie.experiments import run as running
from coterie.experiments.comparison.settings import sort_runs
from coterie.experiments.records.run import read_record
from coterie.journal import Fact, Journal

YAML: dict[str, Any] = {
    "name": "held", "policy": {"engine": "scripted", "model": "none"}, "seats": "S2", "protocol": "machinesom",
    "baselines": ["single"], "benchmark": {"kind": "sums", "limit": 2},
}  # fmt: skip


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`change(name)` gives a template other words."""

    def swap(changed: str) -> None:
        def other(name: str) -> Template:
            return Template(name, "Say $peers") if name == changed else template(name)

        monkeypatch.setattr(running, "template", other)

    return swap


def stop_early(tmp_path: Path) -> Path:
    return coterie.run({**YAML, "budget": {"calls": 3}}, runs=tmp_path).folder.path


def go_on(folder: Path) -> dict[str, Any]:
    totals: dict[str, Any] = coterie.resume(folder, **{"budget.calls": 100}).summary()["facts"]["totals"]
    return totals


def test_a_changed_template_of_another_protocol_is_no_hindrance(tmp_path: Path, change: Callable[[str], None]) -> None:
    folder = stop_early(tmp_path)
    change("dylan_rank")
    assert go_on(folder)["is_complete"]


@pytest.mark.parametrize("name", ["debate", "question"])
def test_a_changed_template_of_its_own_is_refused(tmp_path: Path, change: Callable[[str], None], name: str) -> None:
    folder = stop_early(tmp_path)
    change(name)
    with pytest.raises(ResumeError, match=f"templates.{name}: was"):
        go_on(folder)


def test_a_run_that_names_all_templates_goes_on(tmp_path: Path, change: Callable[[str], None]) -> None:
    """As runs of earlier versions do."""
    folder = stop_early(tmp_path)
    with Journal.read(folder / "journal.sqlite") as journal:
        kept = list(journal.facts())
    (folder / "journal.sqlite").unlink()
    every = {name: template(name).hash for name in template_names()}
    with Journal.create(folder / "journal.sqlite") as journal:
        for fact in kept:
            more = {"templates": every} if fact.key == "run" else {}
            journal.commit([Fact(fact.key, fact.kind, {**fact.payload, **more})])
    change("dylan_rank")
    assert go_on(folder)["is_complete"]


def test_templates_that_only_one_of_two_runs_uses_are_no_difference_between_them(tmp_path: Path) -> None:
    runs = [coterie.run({**YAML, "protocol": kind}, runs=tmp_path) for kind in ("machinesom", "dylan")]
    _, rows = sort_runs([run._read(read_record) for run in runs], pool=True)
    assert not [row for row in rows if row["path"].startswith("templates")]
