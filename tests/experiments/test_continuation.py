"""What may differ between a run's attempts: nothing that its facts follow from; and how an attempt ended."""

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.config.load import loads
from coterie.config.references import resolve_secret
from coterie.errors import ResumeError
from coterie.experiments import run
from coterie.experiments.continuation import check_unchanged, why_ended
from coterie.experiments.training import world
from coterie.journal import Fact, Journal

SOCIETY: dict[str, Any] = {
    "name": "kept", "policy": {"engine": "scripted", "model": "none"}, "seats": "S2", "protocol": "machinesom",
    "baselines": ["single"], "benchmark": {"kind": "sums", "limit": 2},
}  # fmt: skip
WORLD: dict[str, Any] = {"name": "kept", "env": "quad_swarm_v0", "policy": "attention", "learning": "ippo"}


def facts_of(data: dict[str, Any]) -> dict[str, Any]:
    loaded = loads(data)
    return world.facts_of(loaded) if "env" in data else run.facts_of(loaded, "fingerprint", 2)


def check(folder: Path, before: dict[str, Any], data: dict[str, Any]) -> None:
    """Go on with a run that began with the facts `before`, by the file `data`."""
    with Journal.create(folder / "journal.sqlite") as journal:
        journal.commit([Fact("run", "run", before)])
        check_unchanged(journal, facts_of(data), loads(data).config)


@pytest.mark.parametrize("data", [SOCIETY, WORLD], ids=["society", "world"])
def test_the_same_config_is_unchanged(data: dict[str, Any], tmp_path: Path) -> None:
    check(tmp_path, facts_of(data), data)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (SOCIETY, ("probes",)), (SOCIETY, ("protocol", "history")), (SOCIETY, ("protocol", "decision", "no_answer")),
        (SOCIETY, ("policies", "default", "sampling", "top_k")), (WORLD, ("checkpoint_every",)),
        (WORLD, ("env", "downwash")), (WORLD, ("env", "rewards", "annealing")), (WORLD, ("learning", "trace")),
    ],
    ids=str,
)  # fmt: skip
def test_a_field_that_came_later_is_unchanged_where_it_has_its_default(
    data: dict[str, Any], path: tuple[str, ...], tmp_path: Path
) -> None:
    before = facts_of(data)
    section = before["config"]
    for step in path[:-1]:
        section = section[step]
    del section[path[-1]]
    check(tmp_path, before, data)


def test_a_field_that_came_later_is_a_change_where_it_has_another_value(tmp_path: Path) -> None:
    before = facts_of(WORLD)
    del before["config"]["checkpoint_every"]
    with pytest.raises(ResumeError, match="config.checkpoint_every: was 10, is 3"):
        check(tmp_path, before, WORLD | {"checkpoint_every": 3})


def test_a_value_that_was_journalled_is_compared_whatever_its_default(tmp_path: Path) -> None:
    before = facts_of(SOCIETY | {"seed": 5})
    with pytest.raises(ResumeError, match="config.seed: was 5, is 0"):
        check(tmp_path, before, SOCIETY)


def test_a_field_that_is_no_more_is_told_as_it_was(tmp_path: Path) -> None:
    before = facts_of(WORLD)
    before["config"]["env"]["wind"] = 3.0
    with pytest.raises(ResumeError, match=r"config.env.wind: was 3.0, is null"):
        check(tmp_path, before, WORLD)


def test_limits_of_a_task_stay_facts(tmp_path: Path) -> None:
    limited = SOCIETY | {"budget": {"task_calls": 3}}
    check(tmp_path, facts_of(limited), limited)
    (tmp_path / "other").mkdir()
    with pytest.raises(ResumeError, match=r"config.budget"):
        check(tmp_path / "other", facts_of(limited), SOCIETY)


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its journal knows nothing of a section that has come since."""
    stopped = coterie.run({**SOCIETY, "budget": {"calls": 3}}, runs=tmp_path)
    with Journal.read(stopped.folder.journal) as journal:
        facts = copy.deepcopy(journal.get("run"))
        others = [fact for fact in journal.facts() if fact.key != "run"]
    del facts["config"]["probes"]
    stopped.folder.journal.unlink()
    with Journal.create(stopped.folder.journal) as journal:
        journal.commit([Fact("run", "run", facts), *others])
    assert coterie.resume(stopped, **{"budget.calls": 100}).status == "finished"


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (KeyboardInterrupt(), ("stopped", "interrupted")),
        (asyncio.CancelledError(), ("stopped", "interrupted")),
        (ResumeError("it is gone", where="here"), ("failed", str(ResumeError("it is gone", where="here")))),
        (ZeroDivisionError("no air, by hush-hush"), ("failed", "ZeroDivisionError: no air, by ***")),
    ],
)
def test_an_error_says_how_it_ended_an_attempt_and_no_secret(error, ended, monkeypatch) -> None:
    monkeypatch.setenv("AIR", "hush-hush")
    resolve_secret("${secret:AIR}")
    assert why_ended(error) == ended
