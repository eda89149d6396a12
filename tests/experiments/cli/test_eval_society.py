"""`coterie eval` of a society's training: what it taught, on tasks that it held out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.experiments.cli.main import main
from coterie.experiments.folder import RunFolder
from coterie.experiments.measures.comparisons import compare, once, scores_of
from coterie.experiments.records.run import RunRecord, read_record
from coterie.journal import Journal
from coterie.testing.models import write_llama

ASKED = ("--protocol", "single,self_consistency,debate", "--samples", "2", "--limit", "4", "--display", "none")


def school(model: Path, **changes: Any) -> dict[str, Any]:
    """Two policies that begin alike, and are paid for right sums."""
    return {
        "name": "school", "seed": 1, "determinism": "exact", "device": "cpu",
        "policy": {"model": str(model), "engine": "transformers", "sampling": {"temperature": 1.0, "max_tokens": 1}},
        "seats": [{"name": "agent", "count": 2}], "protocol": {"kind": "debate", "rounds": 1},
        "rewards": [{"kind": "verifier"}], "benchmark": {"kind": "sums", "limit": 24, "largest": 2},
        "learning": {"kind": "policy_gradient", "iterations": 2, "tasks": 8, "episodes_per_task": 2, "sharing": "agent",
                     "held_out": 6, "updates": 2, "learning_rate": 0.02, "mask_cut": False},
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "digits"
    return write_llama(folder, alphabet="01234", layers=1, width=16, heads=2, context=1024)


@pytest.fixture(scope="session")
def school_run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished training, evaluated once."""
    folder = coterie.run(school(model), runs=tmp_path_factory.mktemp("schools")).folder
    assert main(["eval", str(folder.path), *ASKED]) == 0
    return folder


def evaluation(folder: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder.report / "evaluation.json").read_text())
    return found


def record_of(folder: RunFolder, start: str) -> RunRecord:
    [path] = [path for path in (folder.path / "evaluations").iterdir() if path.name.startswith(start)]
    with Journal.read(path / "journal.sqlite") as journal:
        return read_record(journal)


def test_each_policy_alone_and_all_together_are_compared_on_held_out_tasks(school_run: RunFolder) -> None:
    found = evaluation(school_run)
    assert [(row["protocol"], row["speaker"], row["policies"]) for row in found["rows"]] == [
        ("single", "", 2), ("single", "agent-1", 1), ("single", "agent-2", 1),
        ("self_consistency", "", 2), ("self_consistency", "agent-1", 1), ("self_consistency", "agent-2", 1),
        ("debate", "", 1),
    ]  # fmt: skip
    for row in found["rows"]:
        low, high = row["interval"]
        assert low <= row["difference"] <= high and row["tasks"] == 4 and 0 < row["p_holm"] <= 1
        assert row["difference"] == pytest.approx(row["trained"]["accuracy"] - row["untrained"]["accuracy"])
        assert row["trained"]["per_task"]["tokens"] > 0
    assert found["tasks"] == 4 and found["checkpoint"]["iteration"] == 2


def test_no_task_of_the_training_is_in_the_evaluation(school_run: RunFolder) -> None:
    with Journal.read(school_run.journal) as journal:
        trained = {fact.payload["task"].partition("@")[0] for fact in journal.facts("episode")}
    asked = set(record_of(school_run, "trained-debate").complete_tasks)
    assert len(asked) == 4 and not asked & trained


def test_the_numbers_are_those_of_ordinary_runs(school_run: RunFolder) -> None:
    trained, untrained = record_of(school_run, "trained-debate"), record_of(school_run, "untrained-debate")
    sides = [once(scores_of(one, one.societies[0])) for one in (trained, untrained)]
    expected, row = compare(*sides, seed=1), evaluation(school_run)["rows"][-1]
    assert (row["difference"], row["interval"]) == (expected["difference"], pytest.approx(expected["interval"]))


def test_trained_policies_speak_with_what_they_learnt(school_run: RunFolder) -> None:
    trained, untrained = record_of(school_run, "trained-debate"), record_of(school_run, "untrained-debate")
    models = [one.facts["config"]["policies"]["agent-1"]["model"] for one in (trained, untrained)]
    assert "evaluations/weights/agent-1-" in models[0] and models[0] != models[1]
    with Journal.read(school_run.journal) as journal:
        last = journal.get("update/000002") or {}
    assert models[0].endswith(last["policies"]["agent-1"]["weights"][:16])


def test_as_many_runs_as_there_are_minds(school_run: RunFolder) -> None:
    runs = {path.name.rpartition("-")[0] for path in (school_run.path / "evaluations").iterdir()}
    assert runs - {""} == {
        "trained-debate-single-self_consistency", "untrained-debate-single-self_consistency",
        "trained-agent-2-single-self_consistency",
    }  # fmt: skip


def test_what_is_worked_is_not_worked_again(school_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = evaluation(school_run)
    assert main(["eval", str(school_run.path), *ASKED]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "2 policies, mean" in out and max(map(len, out.splitlines()[:-1])) <= 80
    assert evaluation(school_run)["rows"] == before["rows"]


def test_a_run_that_was_lost_is_worked_again_and_finds_the_same(
    school_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = evaluation(school_run)
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(school_run.path, copy.path)
    [lost] = (copy.path / "evaluations").glob("untrained-*")
    shutil.rmtree(lost)
    assert main(["eval", str(copy.path), *ASKED, "--json"]) == 0
    assert "1/1  untrained-debate" in capsys.readouterr().err
    assert evaluation(copy)["rows"] == before["rows"]


def test_adapters_are_evaluated_beside_one_model(model: Path, tmp_path: Path) -> None:
    config = school(model)
    config["learning"]["lora"] = {"rank": 2}
    run = coterie.run(config, runs=tmp_path)
    rows = run.evaluate(protocols=("debate",), limit=2)["rows"]
    assert [row["protocol"] for row in rows] == ["debate"]
    [path] = (run.path / "evaluations").glob("trained-debate-*")
    policy = json.loads((path / "resolved.json").read_text())["config"]["policies"]["agent-2"]
    assert policy["model"] == str(model) and (Path(policy["adapter"]) / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    {
        ("--protocol", "debat"): "there is no protocol 'debat'",
        ("--protocol", "single,single"): "twice",
        ("--density", "0.2"): "for the training of a world",
        ("--display", "loud"): "there is no display 'loud'",
    }.items(),
    ids=["unknown", "twice", "of worlds", "display"],
)
def test_what_cannot_be_asked_is_one_clear_error(
    arguments: tuple[str, str], words: str, school_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(school_run.path), *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("E_") == 1


def test_a_training_that_held_nothing_out_is_refused(
    school_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(school_run.path, copy.path)
    resolved = json.loads(copy.resolved.read_text())
    resolved["config"]["learning"]["held_out"] = 0
    copy.resolved.write_text(json.dumps(resolved))
    assert main(["eval", str(copy.path)]) == 2
    assert "learning.held_out" in capsys.readouterr().err


def test_options_of_societies_are_refused_for_worlds(trained: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(trained.path), "--protocol", "single"]) == 2
    assert "for the training of a society" in capsys.readouterr().err
