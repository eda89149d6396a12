from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from coterie.experiments.cli.main import main
from coterie.experiments.folder import RunFolder
from coterie.experiments.measures.telemetry import read_telemetry
from coterie.experiments.records.run import read_record
from coterie.journal import Journal, Note


def test_the_list_of_runs_is_a_table_newest_first(make_run: Any, tmp_path: Path, capsys: Any) -> None:
    old, new = make_run("old"), make_run("new", episodes=3, status="stopped")
    os.utime(old.resolved, (1, 1))
    assert main(["status", "--runs", str(tmp_path / "runs")]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "status", "episodes", "turns", "attempts", "started"]
    assert first.split()[:5] == [new.path.name, "stopped", "3/8", "9", "1"]
    assert second.split()[:5] == [old.path.name, "finished", "8/8", "20", "1"]


def test_no_runs_is_said_and_is_an_empty_list_in_json(tmp_path: Path, capsys: Any) -> None:
    assert main(["status", "--runs", str(tmp_path)]) == 0
    assert "coterie run FILE" in capsys.readouterr().out
    assert main(["status", "--runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_one_run_shows_societies_tokens_budget_attempts_and_what_is_next(make_run: Any, capsys: Any) -> None:
    folder = make_run(episodes=3, status="stopped")
    assert main(["status", str(folder.path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "stopped", "debate 2/4 100% (2/2)", "single (baseline) 1/4 100% (1/1)", "9 turns, 90 tokens in, 36 out",
        "0% of the answers unparsed", "budget: 126 of 1000 tokens used (13%)", "attempt 1:", "stopped after 2 s",
        f"next: coterie resume {folder.path.name}",
    ):  # fmt: skip
        assert part in shown, part


def test_the_json_of_one_run_has_the_same_numbers(make_run: Any, capsys: Any) -> None:
    assert main(["status", str(make_run().path), "--json"]) == 0
    progress = json.loads(capsys.readouterr().out)
    assert [s["accuracy"] for s in progress["societies"]] == [0.75, 0.25]
    assert progress["unparsed_rate"] == 0.35
    assert progress["budget"] == {"tokens": {"used": 280, "limit": 1000}, "calls": {"used": 20, "limit": None}}


def test_failures_are_counted_by_code(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    with Journal.open(folder.journal) as journal:
        payload = {"code": "E_TIMEOUT", "what": "late", "where": ""}
        journal.commit(notes=[Note("failure", "turn/x", payload), Note("failure", "turn/y", payload)])
    main(["status", str(folder.path)])
    assert "failures: E_TIMEOUT 2" in capsys.readouterr().out


def telemetry(folder: RunFolder) -> dict[str, Any]:
    with Journal.read(folder.journal) as journal:
        return read_telemetry(journal, read_record(journal))


def test_a_run_is_running_while_its_journal_is_held_and_killed_when_nobody_holds_it(make_run: Any, capsys: Any) -> None:
    folder = make_run(episodes=2, status="running")
    with Journal.open(folder.journal):
        main(["status", str(folder.path), "--json"])
        going, summary = json.loads(capsys.readouterr().out), telemetry(folder)
    assert (going["status"], going["attempts"][0]["status"], summary["status"]) == ("running", "running", "running")
    main(["status", str(folder.path), "--json"])
    left, summary = json.loads(capsys.readouterr().out), telemetry(folder)
    assert (left["status"], left["attempts"][0]["status"], summary["status"]) == ("killed", "killed", "killed")


def test_looking_does_not_keep_a_writer_out(make_run: Any) -> None:
    folder = make_run(episodes=2, status="running")
    assert main(["status", str(folder.path)]) == 0
    with Journal.open(folder.journal) as opened:
        assert opened.count("episode") == 2


def test_a_damaged_journal_is_a_row_in_the_list(make_run: Any, tmp_path: Path, capsys: Any) -> None:
    make_run("good")
    bad = make_run("bad")
    bad.journal.write_bytes(b"no database at all, but long enough" * 100)
    assert main(["status", "--runs", str(tmp_path / "runs"), "--json"]) == 0
    assert {r["status"] for r in json.loads(capsys.readouterr().out)} == {"finished", "unreadable"}
    assert main(["status", "--runs", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    bad_row = next(line for line in lines if line.startswith("bad"))
    assert "unreadable  the journal is damaged" in bad_row
    assert max(len(line) for line in lines if line != bad_row) < 100, "the reason widens the other rows"


def test_the_list_tells_a_failed_run_and_why(make_run: Any, tmp_path: Path, capsys: Any) -> None:
    folder = make_run(episodes=2, status="failed")
    folder.status.write_text(json.dumps({"status": "failed", "reason": "E_ENGINE: no model\n  where: x"}))
    assert main(["status", str(folder.path)]) == 0
    assert "failed: E_ENGINE: no model" in capsys.readouterr().out
