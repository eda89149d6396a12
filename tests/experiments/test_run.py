"""What a run consists of, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.config.load import loads
from coterie.config.problems import InvalidConfig
from coterie.config.references import resolve_secret
from coterie.errors import ConfigError, EngineError, EnvironmentMissing, ResumeError
from coterie.experiments import society_attempt
from coterie.experiments.cli.main import main
from coterie.experiments.monitoring.tracker_backends import TensorboardTracker
from coterie.experiments.run import societies
from coterie.journal import Journal
from coterie.testing.scripted import ScriptedEngine
from coterie.testing.sums import Sums

PLUGIN = Path(__file__).parent.parent / "data" / "sleepy.py"

CONFIG: dict[str, Any] = {
    "name": "trial",
    "policy": {"engine": "scripted", "model": "none"},
    "seats": "S2",
    "protocol": {"kind": "machinesom", "strategy": ["debate"]},
    "baselines": ["single"],
    "benchmark": {"kind": "sums", "limit": 3},
}


@pytest.mark.parametrize("kind", ["single", "self_consistency"])
def test_a_protocol_that_is_a_default_baseline_too_is_still_the_society(kind):
    config = CONFIG | {"protocol": kind, "baselines": ["single", "self_consistency"]}
    found = {s.label: (s.is_baseline, len(s.agents)) for s in societies(loads(config).config)}
    assert found.pop(kind) == (False, 3)
    assert list(found.values()) == [(True, 1)]


def test_a_default_baseline_gives_way_to_a_protocol_of_its_kind_also_when_the_run_is_resumed(tmp_path):
    protocol = {"kind": "self_consistency", "samples": 4}
    config = {name: value for name, value in CONFIG.items() if name != "baselines"} | {"protocol": protocol}
    run = coterie.run(config | {"budget": {"calls": 2}}, runs=tmp_path)
    assert coterie.resume(run, **{"budget.calls": 1000}).status == "finished"


def test_limits_of_a_task_may_not_change_between_attempts(tmp_path):
    config = CONFIG | {"budget": {"calls": 6, "task_calls": 4}}
    run = coterie.run(config, runs=tmp_path)
    assert run.status == "stopped"
    with pytest.raises(ResumeError, match="config.budget.task_calls: was 4, is 5"):
        coterie.resume(run, **{"budget.task_calls": 5})
    assert coterie.resume(run, **{"budget.calls": 600}).status == "finished"


def test_a_run_killed_after_its_last_commit_is_marked_finished_by_resume(tmp_path):
    run = coterie.run(CONFIG, runs=tmp_path)
    before = json.loads(run.folder.status.read_text())
    run.folder.status.write_text(json.dumps(before | {"status": "running"}))
    assert coterie.resume(run).status == "finished"
    assert json.loads(run.folder.status.read_text()) == before


def test_a_secret_in_an_engines_error_is_not_written(tmp_path, monkeypatch):
    async def generate(self, prompts, sampling, keys):
        raise EngineError(f"the server said no to {resolve_secret('${secret:TRIAL_KEY}')}")

    monkeypatch.setenv("TRIAL_KEY", "hush-hush-123")
    monkeypatch.setattr(ScriptedEngine, "generate", generate)
    with pytest.raises(EngineError):
        coterie.run(CONFIG, runs=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert "no to ***" in (folder / "STATUS.json").read_text()
    with Journal.read(folder / "journal.sqlite") as journal:
        assert len(list(journal.notes("failure"))) == 3
        assert "hush" not in repr(list(journal.notes()))


def test_a_run_whose_benchmark_refuses_leaves_no_folder_and_is_told_the_place(tmp_path, monkeypatch):
    def refuse(self, config, seed, base):
        raise ConfigError("too many", where="benchmark.limit")

    monkeypatch.setattr(Sums, "__init__", refuse)
    monkeypatch.setattr(Sums, "check", lambda config, seed, base: None, raising=False)
    (tmp_path / "society.yaml").write_text(json.dumps(CONFIG, indent=1))
    with pytest.raises(InvalidConfig, match=r"society.yaml:19:12 benchmark.limit  too many"):
        coterie.run(tmp_path / "society.yaml", runs=tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_whose_tracker_cannot_start_leaves_no_folder(tmp_path):
    pytest.importorskip("mlflow")
    config = CONFIG | {"track": ["tensorboard", {"kind": "mlflow", "uri": "nosuch://x"}]}
    with pytest.raises(EnvironmentMissing, match="the tracker mlflow cannot start"):
        coterie.run(config, runs=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_cannot_start_on_resume_leaves_the_run_as_it_is(tmp_path, use_tracker):
    run = coterie.run(CONFIG | {"budget": {"calls": 2}}, runs=tmp_path)
    before = run.folder.resolved.read_text()
    use_tracker(RuntimeError("no room"))
    with pytest.raises(EnvironmentMissing, match="no room"):
        coterie.resume(run, track=["tensorboard"])
    assert (run.status, len(run.turns())) == ("stopped", 2)
    assert run.folder.resolved.read_text() == before


def test_a_run_whose_engine_cannot_start_has_failed_and_says_why(tmp_path, monkeypatch):
    async def start(self):
        raise EnvironmentMissing("there is no model")

    monkeypatch.setattr(ScriptedEngine, "start", start)
    with pytest.raises(EnvironmentMissing):
        coterie.run(CONFIG, runs=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert coterie.Run(folder).status == "failed"
    assert "there is no model" in json.loads((folder / "STATUS.json").read_text())["reason"]


def test_the_status_file_follows_a_run_that_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(society_attempt, "_EVERY", 0.01)
    seen = []
    write = society_attempt.write_json
    monkeypatch.setattr(society_attempt, "write_json", lambda path, value: (seen.append(value), write(path, value)))
    engine = {"kind": "scripted", "max_batch": 1, "delay": 0.05}
    run = coterie.run(CONFIG | {"policy": {"engine": engine, "model": "none"}}, runs=tmp_path)
    going = [row["turns"] for row in seen if row.get("status") == "running"]
    assert going[0] == 0 and going == sorted(going) and len(set(going)) > 5
    assert json.loads(run.folder.status.read_text())["turns"] == len(run.turns())


def test_the_status_file_of_a_killed_run_is_no_older_than_a_second_or_two(tmp_path):
    config = CONFIG | {"policy": {"engine": {"kind": "scripted", "max_batch": 1, "delay": 0.5}, "model": "none"}}
    (tmp_path / "society.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "coterie", "run", "society.yaml", "--display", "none"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _wait_for(lambda: any(json.loads(p.read_text())["turns"] for p in tmp_path.glob("runs/*/STATUS.json")))
    run.kill()
    run.wait()
    (folder,) = (tmp_path / "runs").iterdir()
    done = coterie.Run(folder)
    written = json.loads(done.folder.status.read_text())["turns"]
    assert done.status == "killed"
    assert 0 < written <= len(done.turns()) <= written + 3


def test_what_an_engine_says_of_itself_is_journalled_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAL_KEY", "hush-hush-123")
    describe = ScriptedEngine.describe
    secret = resolve_secret("${secret:TRIAL_KEY}")
    monkeypatch.setattr(ScriptedEngine, "describe", lambda self: describe(self) | {"url": [f"http://{secret}/"]})
    run = coterie.run(CONFIG, runs=tmp_path)
    with Journal.read(run.folder.journal) as journal:
        (note,) = journal.notes("executor")
    assert note.payload["engines"]["engine-0"]["url"] == ["http://***/"]


def test_a_secret_address_is_used_and_written_nowhere(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TRIAL_SERVER", "http://127.0.0.1:9/hush-hush-123")
    engine = {"kind": "openai", "base_url": "${secret:TRIAL_SERVER}/v1", "api_key": "${secret:TRIAL_KEY}", "retries": 0}
    monkeypatch.setenv("TRIAL_KEY", "hush-hush-456")
    config = CONFIG | {"policy": {"engine": engine, "model": "none"}}
    (tmp_path / "society.yaml").write_text(json.dumps(config))
    assert main(["run", str(tmp_path / "society.yaml"), "--runs", str(tmp_path / "runs"), "--display", "plain"]) == 3
    out, err = capfd.readouterr()
    assert "cannot be reached" in err and "${secret:TRIAL_SERVER}" in err and "hush" not in out + err
    (folder,) = (tmp_path / "runs").iterdir()
    assert "cannot be reached" in (folder / "STATUS.json").read_text()
    with Journal.read(folder / "journal.sqlite") as journal:
        kept = repr([*journal.facts(), *journal.notes()])
    kept += "".join(p.read_text() for p in folder.iterdir() if p.suffix in (".json", ".yaml"))
    assert "TRIAL_SERVER" in kept and "hush" not in kept


def test_a_second_signal_stops_at_once_without_a_traceback(tmp_path):
    config = CONFIG | {"policy": {"engine": {"kind": "scripted", "delay": 60}, "model": "none"}}
    (tmp_path / "society.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "coterie", "run", "society.yaml", "--display", "none"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    _wait_for_status(tmp_path, "running")
    time.sleep(0.3)
    for _ in range(2):
        os.kill(run.pid, signal.SIGINT)
        time.sleep(0.2)
    _, stderr = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "coterie resume" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_an_engine_starts_is_an_interruption_and_says_how_to_resume(tmp_path, number):
    config = CONFIG | {"imports": [str(PLUGIN)], "policy": {"engine": "sleepy", "model": "none"}}
    (tmp_path / "society.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "coterie", "run", "society.yaml", "--display", "none"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    _wait_for_status(tmp_path, "starting")
    time.sleep(0.3)
    os.kill(run.pid, number)
    _, stderr = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "coterie resume" in stderr and "Traceback" not in stderr
    (folder,) = (tmp_path / "runs").iterdir()
    written = json.loads((folder / "STATUS.json").read_text())
    assert (written["status"], written["reason"]) == ("stopped", "interrupted")


@pytest.fixture
def use_tracker(monkeypatch):
    """Makes TensorBoard fail to start, in a way of the test's own."""

    def fail(error):
        def start(self, run_name, config, folder):
            raise error

        monkeypatch.setattr(TensorboardTracker, "start", start)

    return fail


def _wait_for_status(folder: Path, status: str) -> None:
    _wait_for(lambda: any(json.loads(p.read_text())["status"] == status for p in folder.glob("runs/*/STATUS.json")))


def _wait_for(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if is_true():
            return
        time.sleep(0.05)
    raise AssertionError("it never was so")
