"""`coterie log export` into the files of other programs."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

import coterie.experiments.api as api
from coterie.experiments.api import Run
from coterie.experiments.cli.main import main
from coterie.experiments.exports.lm_eval import file_name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return api.run(
        {
            "name": "trial", "policy": {"engine": {"kind": "scripted", "accuracy": 0.5, "faults": {"empty": 0.2}}},
            "seats": [{"name": "a"}, {"name": "b"}], "protocol": {"kind": "machinesom", "strategy": ["debate"]},
            "baselines": ["single"], "benchmark": {"kind": "reasoning_gym", "task": "chain_sum", "limit": 6},
        },
        runs=tmp_path_factory.mktemp("runs"),
    )  # fmt: skip


def export(run: Run, to: str, out: Path, capsys: Any) -> list[Path]:
    assert main(["log", "export", str(run.path), "--to", to, "--out", str(out), "--json"]) == 0
    return [Path(line) for line in json.loads(capsys.readouterr().out)]


def test_rows_and_exported_tables_call_things_by_the_same_names(run: Run, tmp_path: Path, capsys: Any) -> None:
    turns, _, episodes = export(run, "jsonl", tmp_path, capsys)
    exported = json.loads(turns.read_text().splitlines()[0])
    row = next(r for r in run.turns() if r["key"] == exported["key"])
    shared = row.keys() - {"is_correct", "labels"}  # of verdicts
    assert {name: exported[name] for name in shared} == {name: row[name] for name in shared}
    first = json.loads(episodes.read_text().splitlines()[0])
    assert {"society", "task", "answer", "is_correct", "decision"} <= first.keys() & run.episodes()[0].keys()
    assert "seat" not in exported


def test_lm_eval_results_hold_each_societys_accuracy_and_its_error(run: Run, tmp_path: Path, capsys: Any) -> None:
    files = export(run, "lm-eval", tmp_path, capsys)
    assert {file.parent.name for file in files} == {"debate", "single"}
    results = json.loads(next(f for f in files if f.parent.name == "debate" and f.suffix == ".json").read_text())
    found = results["results"]["reasoning_gym_chain_sum"]
    rights = [r["is_correct"] for r in run.episodes() if r["society"] == "debate"]
    assert found["exact_match,none"] == pytest.approx(sum(rights) / 6)
    assert results["n-samples"]["reasoning_gym_chain_sum"] == {"original": 6, "effective": 6}
    assert results["higher_is_better"] == {"reasoning_gym_chain_sum": {"exact_match": True}}


def test_lm_eval_samples_can_be_read_as_a_data_set(run: Run, tmp_path: Path, capsys: Any) -> None:
    import datasets

    files = [str(f) for f in export(run, "lm-eval", tmp_path / "out", capsys) if f.name.startswith("samples_")]
    rows = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert len(rows) == 12
    # What lm-evaluation-harness 0.4.13 writes, beside one column per metric.
    assert set(rows.column_names) == {
        "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash",
        "prompt_hash", "target_hash", "exact_match",
    }  # fmt: skip
    assert {len(row["resps"][0]) for row in rows} == {1, 2}
    assert all(row["arguments"]["gen_args_0"]["arg_0"] for row in rows)


def test_an_export_is_the_same_to_the_byte_each_time(run: Run, tmp_path: Path, capsys: Any) -> None:
    first, second = (export(run, "lm-eval", tmp_path / name, capsys) for name in ("a", "b"))
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_a_societys_label_cannot_leave_the_folder_of_an_export() -> None:
    assert file_name("../debate: a/b") == "..__debate__ a__b"


READ = """
import json, sys
from inspect_ai.log import read_eval_log
log = read_eval_log(sys.argv[1])
print(json.dumps({
    "status": log.status, "accuracy": log.results.scores[0].metrics["accuracy"].value,
    "samples": [{"id": s.id, "is_correct": s.scores["verdict"].value == "C", "target": s.target,
                 "turns": [event.event for event in s.events].count("model")} for s in log.samples],
}))
"""


@pytest.fixture
def inspect(tmp_path: Path) -> Path:
    """An interpreter with Inspect above the packages of this one, whose versions Inspect does not all accept."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    (packages,) = home.glob("lib/python*/site-packages")
    below = [path for path in sys.path if path.endswith("site-packages")]
    # Not the bare path: only so are the `.pth` files in there read as well.
    (packages / "below.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in below))
    python = home / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "inspect-ai>=0.3.285,<0.4"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if "from versions: none" in done.stderr or "Max retries" in done.stderr:
        pytest.skip("a package index with inspect-ai cannot be reached")
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.slow
def test_inspect_reads_its_logs_again(run: Run, tmp_path: Path, inspect: Path) -> None:
    def call(*words: str) -> Any:
        return json.loads(subprocess.run([inspect, *words], stdout=subprocess.PIPE, check=True).stdout)

    out = str(tmp_path / "out")
    files = call("-m", "coterie", "log", "export", str(run.path), "--to", "inspect", "--out", out, "--json")
    assert [Path(file).name for file in files] == ["debate.eval", "single.eval"]
    read = call("-c", READ, files[0])
    rights = {row["task"]: row["is_correct"] for row in run.episodes() if row["society"] == "debate"}
    assert (read["status"], read["accuracy"]) == ("success", pytest.approx(sum(rights.values()) / 6))
    assert {sample["id"]: sample["is_correct"] for sample in read["samples"]} == rights
    assert all((sample["turns"], sample["target"]) == (4, "") for sample in read["samples"])


def test_without_inspect_the_remedy_is_named(run: Run, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.delitem(sys.modules, "coterie.experiments.exports.inspect_log", raising=False)
    monkeypatch.setitem(sys.modules, "inspect_ai.event", None)
    assert main(["log", "export", str(run.path), "--to", "inspect"]) == 3
    assert "pip install 'coterie[inspect]'" in capsys.readouterr().err
