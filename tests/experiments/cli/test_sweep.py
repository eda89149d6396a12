"""`coterie sweep`, on runs of the real supervisor with the scripted engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from coterie.errors import ConfigError
from coterie.experiments.api import Run
from coterie.experiments.cli.main import main
from coterie.experiments.folder import RunFolder
from coterie.experiments.sweeps import name_of

SLEEPY = Path(__file__).parents[2] / "data" / "sleepy.py"
FILE = """\
name: trial
determinism: exact
policy: {engine: {kind: scripted, accuracy: 0.5}, model: none}
seats: [{name: a, count: 2}]
protocol: {kind: machinesom, strategy: [debate]}
baselines: [{kind: self_consistency, samples: 6}]
benchmark: {kind: reasoning_gym, task: chain_sum, limit: 4}
budget: {}
sweep:
  seed: [1, 2]
  protocol.strategy: [[debate], [reflect]]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "sweep.yaml"
    file.write_text(FILE, "utf-8")
    return file


def sweep(path: Path, *more: str) -> int:
    return main(["sweep", str(path), "--runs", str(path.parent / "runs"), "--display", "none", *more])


def folders(path: Path) -> dict[str, Run]:
    return {p.name: Run(p) for p in sorted((path.parent / "runs" / "trial-sweep").iterdir()) if p.is_dir()}


def test_each_combination_has_a_run_named_by_its_settings_and_one_comparison(path: Path, capsys: Any) -> None:
    assert sweep(path) == 0
    found = folders(path)
    assert list(found) == [
        "seed=1,protocol.strategy=+debate", "seed=1,protocol.strategy=+reflect",
        "seed=2,protocol.strategy=+debate", "seed=2,protocol.strategy=+reflect",
    ]  # fmt: skip
    assert {run.status for run in found.values()} == {"finished"}
    out, err = capsys.readouterr()
    assert "strategy=reflect" in out
    assert "4/4  seed=2, protocol.strategy=reflect: finished" in err
    assert (path.parent / "runs" / "trial-sweep" / "comparison.html").read_text("utf-8").count("<svg") == 1


def test_compare_on_the_runs_of_a_sweep_says_the_same(path: Path, capsys: Any) -> None:
    sweep(path, "--json")
    swept = json.loads(capsys.readouterr().out)
    assert main(["compare", *(str(run.path) for run in folders(path).values()), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == swept


def test_a_second_sweep_goes_on_with_what_is_missing(path: Path, capsys: Any) -> None:
    assert sweep(path, "-o", "budget.calls=8") == 0
    assert "go on with: coterie sweep" in capsys.readouterr().err
    before = {name: run.status for name, run in folders(path).items()}
    assert set(before.values()) == {"stopped"}
    assert sweep(path, "-o", "budget.calls=100") == 0
    digests = {name: run.summary()["facts"]["digest"] for name, run in folders(path).items()}
    attempts = {name: len(run.summary()["telemetry"]["attempts"]) for name, run in folders(path).items()}
    assert set(attempts.values()) == {2}
    assert sweep(path) == 0
    assert {name: run.summary()["facts"]["digest"] for name, run in folders(path).items()} == digests
    assert {len(run.summary()["telemetry"]["attempts"]) for run in folders(path).values()} == {2}


def test_a_changed_experiment_is_not_mixed_with_what_was_begun(path: Path, capsys: Any) -> None:
    sweep(path)
    capsys.readouterr()
    assert sweep(path, "-o", "benchmark.limit=5") == 4
    assert "config.benchmark.limit" in capsys.readouterr().err


def test_one_that_fails_does_not_stop_the_others(path: Path, capsys: Any) -> None:
    values = "  policy.engine: [{kind: scripted, faults: {crash: 1.0}}, {kind: scripted}]\n"
    path.write_text(FILE[: FILE.index("  seed:")] + values, "utf-8")
    assert sweep(path) == 1
    assert "2/2" in capsys.readouterr().err
    assert sorted(run.status for run in folders(path).values()) == ["failed", "finished"]


def test_one_that_lacks_something_does_not_stop_the_others(path: Path, capsys: Any) -> None:
    server = "{kind: openai, base_url: 'http://127.0.0.1:9/v1', retries: 0}"
    text = FILE[: FILE.index("  seed:")].replace("determinism: exact\n", "")
    path.write_text(f"{text}  policy.engine: [{server}, {{kind: scripted}}]\n", "utf-8")
    assert sweep(path) == 1
    assert "2/2" in capsys.readouterr().err
    assert sorted(run.status for run in folders(path).values()) == ["failed", "finished"]


def test_an_interruption_while_an_engine_starts_still_gives_the_comparison(path: Path) -> None:
    values = "  policy.engine: [{kind: scripted}, {kind: sleepy}]\n"
    text = FILE[: FILE.index("  seed:")].replace("reasoning_gym, task: chain_sum", "sums")
    path.write_text(f'imports: ["{SLEEPY}"]\n{text}{values}', "utf-8")
    command = [sys.executable, "-m", "coterie", "sweep", path.name, "--display", "none"]
    swept = subprocess.Popen(command, cwd=path.parent, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    runs = path.parent / "runs" / "trial-sweep"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not any(runs.glob("*sleepy*/STATUS.json")):
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(swept.pid, signal.SIGINT)
    out, err = swept.communicate(timeout=60)
    assert swept.returncode == 130
    assert "picture:" in out
    assert "stopped interrupted" in err and "go on with: coterie sweep" in err


def test_status_and_names_find_the_runs_of_a_sweep(path: Path, capsys: Any, monkeypatch: Any) -> None:
    sweep(path)
    monkeypatch.chdir(path.parent)
    capsys.readouterr()
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("trial-sweep/seed=") == 4
    assert RunFolder.find(Path("latest")).path.name == "seed=2,protocol.strategy=+reflect"
    assert RunFolder.find(Path("seed=1,protocol.strategy=+r")).path.name == "seed=1,protocol.strategy=+reflect"
    assert RunFolder.find(Path("trial-sweep/seed=1,protocol.strategy=+d")).path.name.endswith("+debate")
    (path.parent / "runs" / "trial-sweep" / "seed=1,protocol.strategy=+reflect").rename(path.parent / "runs" / "seed")
    assert RunFolder.find(Path("seed")).path.name == "seed"
    with pytest.raises(ConfigError, match="fits several runs"):
        RunFolder.find(Path("seed=2"))


def test_a_bad_value_starts_nothing(path: Path, capsys: Any) -> None:
    path.write_text(FILE.replace("[1, 2]", "[1, x]"), "utf-8")
    assert sweep(path) == 2
    assert "10:13 seed  expected a whole number" in capsys.readouterr().err
    assert not (path.parent / "runs").exists()


def test_run_refuses_a_sweep_and_sweep_a_single_experiment(path: Path, capsys: Any) -> None:
    runs = str(path.parent / "runs")
    assert main(["run", str(path), "--runs", runs]) == 2
    assert "run them with `coterie sweep`" in capsys.readouterr().err
    path.write_text(FILE[: FILE.index("sweep:")], "utf-8")
    assert sweep(path) == 2
    assert "no section `sweep`" in capsys.readouterr().err
    assert not Path(runs).exists()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"seed": 1}, "seed=1"),
        ({"a.b": ["x", "y"], "c": True}, "a.b=+x+y,c=true"),
        ({"a": "x-y"}, "a=-x-y-"),
        ({"a": "../../etc"}, "a=-..-..-etc-"),
    ],
)
def test_names_are_safe_and_say_their_settings(settings: dict[str, Any], name: str) -> None:
    assert name_of(settings).startswith(name.rstrip("-"))
    assert "/" not in name_of(settings)


def test_settings_that_look_alike_have_folders_of_their_own() -> None:
    alike: list[Any] = [1, "1", ["1"], [1], "x+y", ["x", "y"], "x", ["x"], None, "null", "x" * 100, "x" * 101]
    assert len({name_of({"a": value}) for value in alike}) == len(alike)


def test_a_sweep_whose_file_changed_is_refused_with_advice_for_sweeps(path: Path, capsys: Any) -> None:
    assert sweep(path) == 0
    path.write_text(FILE.replace("limit: 4", "limit: 5"), "utf-8")
    capsys.readouterr()
    assert sweep(path) == 4
    err = capsys.readouterr().err
    assert "config.benchmark.limit: was 4, is 5" in err
    assert "begin a new sweep: another `name`, or another --runs" in err and "new run" not in err
