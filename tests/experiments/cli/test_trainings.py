"""What a person reads of a training run: status, log, report, comparison, sweep, rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.experiments.cli.main import main
from coterie.experiments.folder import RunFolder

Capture = pytest.CaptureFixture[str]


def said(capsys: Capture, *arguments: str, code: int = 0) -> str:
    assert main(list(arguments)) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_status_tells_steps_speed_and_the_next_command(trained: RunFolder, capsys: Capture) -> None:
    out = said(capsys, "status", str(trained.path))
    for words in ("finished", "640/640 steps after iteration 5", "agent-steps/s", "success", "next: coterie report"):
        assert words in out, words
    found = json.loads(said(capsys, "status", str(trained.path), "--json"))
    assert found["training"]["agent_steps"] == found["training"]["planned"] == 640


def test_the_list_of_runs_holds_trainings_beside_societies(trained: RunFolder, capsys: Capture) -> None:
    assert "640/640 steps" in said(capsys, "status", "--runs", str(trained.path.parent))


def test_the_log_shows_iterations_checkpoints_and_exports_them(
    trained: RunFolder, tmp_path: Path, capsys: Capture
) -> None:
    assert "ok, digest" in said(capsys, "log", "verify", str(trained.path))
    assert said(capsys, "log", "show", str(trained.path)).count("iteration/0000000") == 5
    assert said(capsys, "log", "show", str(trained.path), "--kind", "checkpoint").count("sha256") == 3
    for form in ("jsonl", "parquet"):
        said(capsys, "log", "export", str(trained.path), "--to", form, "--out", str(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "iterations.jsonl").read_text().splitlines()]
    assert [row["agent_steps"] for row in rows] == [128, 256, 384, 512, 640]
    assert {"metrics.success", "learning.kl", "checkpoint", "weights"} <= set(rows[0])
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "iterations.parquet").to_pylist() == rows
    assert "has no answers" in said(capsys, "log", "export", str(trained.path), "--to", "lm-eval", code=2)


def test_the_report_prints_the_metrics_in_the_end_and_where_the_time_went(trained: RunFolder, capsys: Capture) -> None:
    out = said(capsys, "report", str(trained.path))
    times = "Start: ", "Of the rest: simulator"
    for words in ("Trained for 640 of 640 agent-steps", "success", *times, "Digest: ", "index.html"):
        assert words in out.replace("\u202f", " "), words
    summary = json.loads((trained.report / "summary.json").read_text())
    training = summary["facts"]["training"]
    assert training["is_complete"] and training["iterations"] == 5 and training["final"]["episodes"] > 0
    assert summary["telemetry"]["totals"]["checkpoint_bytes"] < 2**20


def test_rows_of_a_training_from_python(trained: RunFolder) -> None:
    run = coterie.Run(trained.path)
    assert run.status == "finished" and run.turns() == run.episodes() == []
    assert {"success", "reward"} <= {row["metric"] for row in run.metrics()}
    assert [row["iteration"] for row in run.iterations()] == [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def swept(make_tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a sweep over two seeds and two policies was run."""
    folder = tmp_path_factory.mktemp("swept")
    config = make_tiny() | {"sweep": {"seed": [1, 2], "policy.kind": ["attention", "mlp"]}}
    (folder / "sweep.yaml").write_text(json.dumps(config))
    return folder


def test_a_sweep_trains_every_combination_and_compares_them_over_seeds(swept: Path, capsys: Capture) -> None:
    arguments = ["sweep", str(swept / "sweep.yaml"), "--runs", str(swept / "runs"), "--display", "none"]
    found = json.loads(said(capsys, *arguments, "--json"))
    assert [(row["label"], row["runs"], row["seeds"]) for row in found["rows"]] == [
        ("policy=attention", 2, [1, 2]), ("policy=mlp", 2, [1, 2]),
    ]  # fmt: skip
    assert len({row["digest"] for row in found["runs"]}) == 4
    out = said(capsys, *arguments)
    picture = swept / "runs" / "tiny-sweep" / "comparison.png"
    assert f"picture: {picture}" in out and picture.read_bytes().startswith(b"\x89PNG")
    assert "policy=mlp" in out and "Probability of a higher success" in out
    page = picture.with_suffix(".html")
    assert f"page: {page}" in out and f"coterie {' '.join(arguments)}" in page.read_text("utf-8")
    assert picture.with_suffix(".marl_eval.json").is_file()


def test_trainings_are_compared_with_trainings_alone(
    trained: RunFolder, make_tiny: Any, tmp_path: Path, capsys: Capture
) -> None:
    other = coterie.run(make_tiny() | {"seed": 2}, runs=tmp_path)
    found = json.loads(said(capsys, "compare", str(trained.path), str(other.path), "--json"))
    assert [(row["runs"], row["amount"]) for row in found["rows"]] == [(2, 640)] and found["unit"] == "agent-steps"
    society = {"name": "a", "policy": {"engine": "scripted", "model": "none"}, "seats": "S1", "protocol": "single",
               "baselines": [], "benchmark": {"kind": "sums", "limit": 1}}  # fmt: skip
    talked = coterie.run(society, runs=tmp_path)
    assert "training in a world" in said(capsys, "compare", str(trained.path), str(talked.path), code=2)
    stopped = coterie.run(make_tiny() | {"budget": {"seconds": 1e-6}}, runs=tmp_path)
    assert "no iteration yet" in said(capsys, "compare", str(trained.path), str(stopped.path), code=2)


def test_light_verbs_take_worlds_without_torch_or_numba(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "a.yaml").write_text(
        "name: a\nenv: quad_swarm_v0\npolicy: attention\nlearning: {kind: ippo}\nsweep: {seed: [1, 2]}\n"
    )
    heavy = ("torch", "numba", "scipy", "matplotlib", "gymnasium", "pettingzoo")
    code = f"""
import sys
from coterie.experiments.cli.main import main
codes = [main(["validate", {str(tmp_path / "a.yaml")!r}]), main(["ls", "envs"]), main(["schema"])]
print(codes, [m for m in {heavy} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] []", done.stdout[-500:] + done.stderr
