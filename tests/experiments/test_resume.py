"""A run that was killed, interrupted or cut short goes on to the same facts; what may not go on is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coterie import rng
from coterie.experiments.measures.summary import summarize
from coterie.journal import Journal

PLUGIN = Path(__file__).parent.parent / "data" / "mortal.py"
YAML = f"""
name: mortal
seed: 3
determinism: exact
imports: ["{PLUGIN}"]
policy: {{engine: {{kind: mortal, max_batch: 4, delay: 0.01}}, model: none}}
seats: S2
protocol: {{kind: machinesom, strategy: [debate, reflect]}}
baselines: [single, {{kind: self_consistency, samples: 4}}]
benchmark: {{kind: sums, limit: 4}}
"""
NUM_CALLS = 13  # 4 tasks x (3 agents x 3 rounds + 4 samples) / 4 prompts a call


def coterie(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coterie", *arguments], cwd=cwd, env=os.environ | environment, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def start(cwd: Path, *arguments: str, text: str = YAML, **environment: str) -> subprocess.CompletedProcess[str]:
    (cwd / "society.yaml").write_text(text)
    return coterie("run", "society.yaml", "--display", "none", "--no-report", *arguments, cwd=cwd, **environment)


def facts(cwd: Path) -> tuple[str, str]:
    """The digest of the only run in a folder, and the facts of its summary."""
    (run,) = (cwd / "runs").iterdir()
    with Journal.read(run / "journal.sqlite") as journal:
        assert journal.verify() == []
        return journal.digest(), json.dumps(summarize(journal)["facts"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[str, str]:
    cwd = tmp_path_factory.mktemp("undisturbed")
    assert start(cwd).returncode == 0
    return facts(cwd)


@pytest.mark.parametrize("point", range(20))
def test_killing_the_driver_anywhere_and_resuming_gives_the_same_facts(tmp_path, undisturbed, point):
    draws = rng.uniforms(0, "kill", point, count=2)
    when = f"{int(draws[0] * NUM_CALLS)} {draws[1] * 0.03:.4f}"
    killed = start(tmp_path, MORTAL=when)
    assert killed.returncode == -signal.SIGKILL
    resumed = coterie("resume", "latest", "--no-report", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert facts(tmp_path) == undisturbed


def test_resuming_a_finished_run_says_there_is_nothing_to_do(tmp_path):
    assert start(tmp_path).returncode == 0
    before = facts(tmp_path)
    again = coterie("resume", "latest", cwd=tmp_path)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert facts(tmp_path) == before


def test_resuming_with_another_config_is_refused_field_by_field(tmp_path):
    start(tmp_path, MORTAL="2 0")
    refused = coterie("resume", "latest", "-o", "seed=4", "-o", "benchmark.limit=5", cwd=tmp_path)
    assert refused.returncode == 4
    assert "config.seed: was 3, is 4" in refused.stderr
    assert "config.benchmark.limit: was 4, is 5" in refused.stderr


def test_resuming_with_an_edited_file_is_refused(tmp_path):
    start(tmp_path, MORTAL="2 0")
    (tmp_path / "society.yaml").write_text(YAML.replace("seats: S2", "seats: S3"))
    refused = coterie("resume", "latest", "society.yaml", cwd=tmp_path)
    assert refused.returncode == 4
    assert "config.seats" in refused.stderr


def test_a_run_out_of_budget_is_resumed_with_more(tmp_path, undisturbed):
    cut = start(tmp_path, "-o", "budget.calls=20")
    assert cut.returncode == 0
    assert "20 of 20 calls" in cut.stderr
    assert facts(tmp_path)[0] != undisturbed[0]
    more = coterie("resume", "latest", "--no-report", "-o", "budget.calls=1000", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert facts(tmp_path) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_run_and_says_how_to_resume(tmp_path, undisturbed, number):
    (tmp_path / "society.yaml").write_text(YAML.replace("delay: 0.01", "delay: 0.15"))
    command = [sys.executable, "-m", "coterie", "run", "society.yaml", "--display", "none"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not turns(tmp_path):
        time.sleep(0.05)
    run.send_signal(number)
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 130, stderr
    assert "coterie resume" in stderr
    assert coterie("resume", "latest", cwd=tmp_path).returncode == 0
    resumed = json.loads(facts(tmp_path)[1])
    assert resumed["totals"]["is_complete"]


def turns(cwd: Path) -> int:
    found = list((cwd / "runs").glob("*/journal.sqlite"))
    if not found:
        return 0
    with Journal.read(found[0]) as journal:
        return journal.count("turn")


def test_a_damaged_resolved_file_is_one_clear_error(tmp_path):
    start(tmp_path, MORTAL="2 0")
    (run,) = (tmp_path / "runs").iterdir()
    (run / "resolved.json").write_text('{"base": "x", ')
    refused = coterie("resume", "latest", cwd=tmp_path)
    assert refused.returncode == 4
    assert "resolved.json" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unknown_run_lists_the_runs_there_are(tmp_path):
    start(tmp_path)
    refused = coterie("resume", "nothing-like-it", cwd=tmp_path)
    assert refused.returncode == 4
    assert "mortal-" in refused.stderr


def test_a_run_whose_journal_is_gone_is_not_started_anew(tmp_path):
    start(tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    (run / "journal.sqlite").unlink()
    before = (run / "STATUS.json").read_text()
    refused = coterie("resume", "latest", "--no-report", cwd=tmp_path)
    assert refused.returncode == 4
    assert "journal is gone" in refused.stderr
    assert (run / "STATUS.json").read_text() == before
