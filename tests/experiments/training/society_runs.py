"""Small societies that are trained by the command line, in processes that may be killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

from coterie.journal import Journal

PLUGIN = Path(__file__).parents[2] / "data" / "mortal_training.py"
ALPHABET = "0123456789 +-=.\nScore:Answer"
LEARNING = {
    "kind": "policy_gradient", "iterations": 2, "tasks": 2, "episodes_per_task": 2, "learning_rate": 0.01, "updates": 2,
    "held_out": 2, "advantage": {"kind": "rae"}, "mask_cut": False,
}  # fmt: skip


def experiment(model: Path, name: str, max_tokens: int, **changes: object) -> dict[str, object]:
    """Two agents of one policy, who are rewarded for digits; dies at the commit that MORTAL names."""
    engine = {"kind": "transformers", "dtype": "float32", "context": 512}
    policy = {"engine": engine, "model": str(model), "sampling": {"temperature": 1.0, "max_tokens": max_tokens}}
    return {
        "name": name, "seed": 5, "determinism": "exact", "imports": [str(PLUGIN)],
        "policies": {"base": policy},
        "seats": [{"name": "ann", "policy": "base"}, {"name": "bob", "policy": "base"}],
        "protocol": {"kind": "comas", "rounds": 1}, "benchmark": {"kind": "sums", "limit": 6},
        "rewards": [{"kind": "digits"}], "learning": LEARNING, "device": "cpu", **changes,
    }  # fmt: skip


def coterie(*arguments: str, cwd: Path, seconds: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "coterie", *arguments, "--no-report"], cwd=cwd, env=os.environ | environment,
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


def start(
    cwd: Path, config: dict[str, object], seconds: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A run of this file."""
    (cwd / "society.yaml").write_text(json.dumps(config))
    return coterie("run", "society.yaml", "--display", "plain", cwd=cwd, seconds=seconds, **environment)


def journal_of(cwd: Path) -> Journal:
    """That of the only run in a folder."""
    (run,) = (cwd / "runs").iterdir()
    return Journal.read(run / "journal.sqlite")


def outcome(cwd: Path) -> tuple[str, list[dict[str, object]]]:
    """The digest of the only run in a folder, and its updates."""
    with journal_of(cwd) as journal:
        assert journal.verify() == []
        return journal.digest(), [fact.payload for fact in journal.facts("update")]
