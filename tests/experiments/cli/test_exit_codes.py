"""The exit codes that docs/cli/exit-codes.md promises; those of a run and its signals are in test_resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coterie.experiments.cli.main import main
from coterie.journal import Journal

YAML = """
name: codes
policy: {engine: scripted, model: none}
seats: S2
protocol: single
baselines: []
benchmark: {kind: sums, limit: 2}
"""
QUIET = ("--display", "none", "--no-report")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that is out of budget."""
    monkeypatch.chdir(tmp_path)
    Path("society.yaml").write_text(YAML)
    assert main(["run", "society.yaml", *QUIET, "-o", "budget.calls=1"]) == 0
    (folder,) = Path("runs").iterdir()
    return folder


def resume(run: Path | str) -> int:
    return main(["resume", str(run), *QUIET, "-o", "budget.calls=100"])


@pytest.mark.parametrize(
    "verb", [["status"], ["report"], ["log", "show"], ["log", "verify"], ["log", "export"], ["compare", "latest"]]
)
def test_a_run_that_is_not_there_is_bad_usage_for_verbs_that_read(verb: list[str], run: Path, capsys: Any) -> None:
    assert main([*verb, "nowhere"]) == 2
    assert "is no run" in capsys.readouterr().err


def test_a_folder_of_runs_in_place_of_a_run_names_those_in_it(run: Path, capsys: Any) -> None:
    assert main(["report", "runs"]) == 2
    assert f"name a run folder: runs/{run.name}" in capsys.readouterr().err


def test_a_run_that_is_not_there_cannot_be_resumed(run: Path, capsys: Any) -> None:
    assert resume("nowhere") == 4
    assert f"name a run folder: {run.name}" in capsys.readouterr().err


def test_a_run_that_another_process_writes_cannot_be_resumed(run: Path, capsys: Any) -> None:
    with Journal.open(run / "journal.sqlite"):
        assert resume(run) == 4
    assert "another process is writing" in capsys.readouterr().err
    assert resume(run) == 0


@pytest.mark.parametrize("keep", [0, 4096, 8192])
def test_a_run_with_a_damaged_journal_cannot_be_resumed_and_is_left_as_it_is(keep: int, run: Path, capsys: Any) -> None:
    path = run / "journal.sqlite"
    path.write_bytes(path.read_bytes()[:keep] + b"garbage " * 2000)
    before = (run / "STATUS.json").read_text()
    assert resume(run) == 4
    assert "E_RESUME" in capsys.readouterr().err
    assert (run / "STATUS.json").read_text() == before
    assert main(["status", str(run)]) == 1


def test_a_run_whose_data_is_gone_cannot_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/test.jsonl").write_text(
        '{"question": "1 + 1?", "answer": "#### 2"}\n{"question": "2?", "answer": "#### 2"}'
    )
    Path("society.yaml").write_text(YAML.replace("{kind: sums, limit: 2}", "{kind: gsm8k, path: data}"))
    assert main(["run", "society.yaml", *QUIET, "-o", "budget.calls=1"]) == 0
    Path("data/test.jsonl").unlink()
    assert main(["resume", "latest", *QUIET]) == 4
    assert "benchmark.path" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["run", "sweep"])
def test_an_unknown_display_is_refused_before_a_folder_is_made(verb, tmp_path, capsys):
    (path := tmp_path / "a.yaml").write_text(
        "name: a\npolicy: {engine: scripted, model: none}\nseats: S1\nprotocol: single\nbenchmark: sums\n"
        + ("sweep: {seed: [1, 2]}\n" if verb == "sweep" else "")
    )
    assert main([verb, str(path), "--runs", str(tmp_path / "runs"), "--display", "foo"]) == 2
    assert "auto, rich, plain, none" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
