"""The promises of `exact`, on the real model with vLLM."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coterie.journal import Journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
YAML = """
name: real
seed: 3
determinism: exact
policy:
  engine: {kind: vllm, dtype: DTYPE, max_batch: 4, memory: 0.5, context: 1024}
  sampling: {temperature: 0.7, max_tokens: 12}
seats: S3
protocol: {kind: machinesom, strategy: [debate]}
baselines: [single]
benchmark: {kind: sums, limit: 3}
"""


@pytest.fixture(autouse=True)
def _needs_vllm():
    pytest.importorskip("vllm")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "coterie", *arguments, "--display", "none", "--no-report"]


def run(cwd: Path, *arguments: str, dtype: str = "float32") -> None:
    (cwd / "society.yaml").write_text(YAML.replace("DTYPE", dtype))
    subprocess.run(command("run", "society.yaml", *arguments), cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def journal(cwd: Path) -> Journal:
    (path,) = (cwd / "runs").glob("*/journal.sqlite")
    return Journal.read(path)


def digest(cwd: Path) -> str:
    with journal(cwd) as opened:
        assert opened.verify() == []
        return opened.digest()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_killed_run_of_the_real_model_goes_on_to_the_same_digest(tmp_path, dtype):
    (one := tmp_path / "undisturbed").mkdir()
    run(one, dtype=dtype)
    (two := tmp_path / "killed").mkdir()
    (two / "society.yaml").write_text(YAML.replace("DTYPE", dtype))
    process = subprocess.Popen(command("run", "society.yaml"), cwd=two, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not num_turns(two):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < num_turns(two) < 3 * 7
    subprocess.run(command("resume", "latest"), cwd=two, check=True, stdout=subprocess.DEVNULL)
    assert digest(two) == digest(one)


def num_turns(cwd: Path) -> int:
    if not list((cwd / "runs").glob("*/journal.sqlite")):
        return 0
    with journal(cwd) as opened:
        return opened.count("turn")


def test_local_and_ray_give_the_same_tokens_in_float32(tmp_path):
    found = []
    for executor in ("local", "ray"):
        (cwd := tmp_path / executor).mkdir()
        run(cwd, "--executor", executor)
        found.append(digest(cwd))
    assert found[0] == found[1]
