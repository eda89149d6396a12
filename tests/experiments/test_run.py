"""What a run consists of, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.config.load import loads
from coterie.config.references import resolve_secret
from coterie.errors import EngineError, ResumeError
from coterie.experiments.run import societies
from coterie.journal import Journal
from coterie.testing.scripted import ScriptedEngine

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


def _wait_for_status(folder: Path, status: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if any(json.loads(p.read_text())["status"] == status for p in folder.glob("runs/*/STATUS.json")):
            return
        time.sleep(0.05)
    raise AssertionError(f"the run never was {status}")
