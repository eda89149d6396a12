from __future__ import annotations

import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest

from coterie.experiments.cli.main import main
from coterie.journal import Fact, Journal, Note

EVIL = "Sure\x1b[2J\x1b]0;owned\x07 \u202e the answer\r\n=== sum-0001, society debate"


def faults(folder: Any, capsys: Any) -> list[str]:
    code = main(["log", "verify", str(folder.path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["ok"]) == ((1, False) if found["faults"] else (0, True))
    return list(found["faults"])


def add(folder: Any, *facts: Fact, notes: tuple[Note, ...] = ()) -> None:
    with Journal.open(folder.journal) as journal:
        journal.commit(facts, notes)


def a_fact(folder: Any, kind: str) -> Fact:
    with Journal.read(folder.journal) as journal:
        return next(journal.facts(kind))


def test_an_intact_journal_verifies_and_shows_its_digest(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    assert main(["log", "verify", str(folder.path)]) == 0
    with Journal.read(folder.journal) as journal:
        assert capsys.readouterr().out == f"{folder.path.name}: ok, digest {journal.digest()}\n"


def change(folder: Any, command: str, *values: Any) -> None:
    with sqlite3.connect(folder.journal) as db:
        db.execute(command, values)
    db.close()


@pytest.mark.parametrize("column", ["payload", "hash"])
def test_a_changed_payload_or_hash_is_found(column: str, make_run: Any, capsys: Any) -> None:
    folder = make_run()
    key = a_fact(folder, "turn").key
    value = zlib.compress(b'{"text":"forged"}') if column == "payload" else b"0" * 32
    change(folder, f"UPDATE facts SET {column} = ? WHERE key = ?", value, key)
    assert faults(folder, capsys) == [f"the payload of {key!r} does not match its hash"]


def test_a_removed_turn_is_missed_by_its_verdict_its_episode_and_its_telemetry(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    key = a_fact(folder, "turn").key
    change(folder, "DELETE FROM facts WHERE key = ?", key)
    found = faults(folder, capsys)
    assert len(found) == 3
    assert all(repr(key) in fault for fault in found)


def test_an_answer_without_a_verdict_is_found(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    change(folder, "DELETE FROM facts WHERE key = ?", a_fact(folder, "verdict").key)
    assert [f for f in faults(folder, capsys) if "an answer without a verdict" in f]


def test_facts_that_do_not_fit_together_are_found(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    episode, turn = a_fact(folder, "episode").payload, a_fact(folder, "turn")
    edges = [{"round": 1, "source": "nobody", "target": "calm"}]
    add(
        folder,
        Fact("episode/single/sum-0008", "episode", episode | {"society": "single", "edges": edges}),
        Fact("verdict/turn/nowhere", "verdict", {"answer": "1", "correct": True}),
        Fact("episode/other/sum-0000", "episode", episode | {"society": "other"}),
        Fact("episode/debate/sum-0009", "episode", episode | {"task": "sum-0009"}),
        Fact("turn/elsewhere/x", "turn", turn.payload | {"num_tokens": 7}),
    )
    found = "\n".join(faults(folder, capsys))
    for part in (
        "which is no turn", "an edge of 'nobody'", "whose agent is not of its society",
        "a society that the run does not have", "of another task", "is not that of its place",
        "says 7 tokens and has 4",
    ):  # fmt: skip
        assert part in found, part


def test_a_real_run_with_baselines_verifies(tmp_path: Path, capsys: Any) -> None:
    import coterie.experiments.api as api

    done = api.run(
        {
            "name": "real", "policy": {"engine": "scripted"}, "seats": [{"name": "a"}, {"name": "b", "count": 2}],
            "protocol": {"kind": "machinesom", "strategy": "all", "rounds": 2},
            "benchmark": {"kind": "reasoning_gym", "task": "chain_sum", "limit": 3},
        },
        runs=tmp_path,
    )  # fmt: skip
    assert main(["log", "verify", str(done.path)]) == 0, capsys.readouterr().err


def test_many_faults_are_not_all_printed(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    add(folder, *(Fact(f"verdict/turn/{i}", "verdict", {"answer": None, "correct": False}) for i in range(100)))
    assert main(["log", "verify", str(folder.path)]) == 1
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 22
    assert "100 faults" in shown


def test_a_digest_that_moved_after_the_end_is_found(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    folder.status.write_text(json.dumps({"status": "finished", "digest": "0" * 64}))
    assert "facts came, went or changed" in faults(folder, capsys)[0]


def test_a_payload_of_another_form_is_a_fault_and_no_crash(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    add(folder, Fact("turn/x", "turn", {"text": "only"}))
    assert "has not the form it should have" in faults(folder, capsys)[0]


def test_a_page_overwritten_on_disk_is_a_fault_and_no_crash(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    data = bytearray(folder.journal.read_bytes())
    data[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    folder.journal.write_bytes(data)
    assert main(["log", "verify", str(folder.path)]) == 1
    assert capsys.readouterr().err


def test_a_transcript_shows_the_question_each_round_and_the_outcome(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    assert main(["log", "show", str(folder.path), "--task", "sum-0003", "--society", "debate"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "=== sum-0003, society debate", "What is 3 + 1?", "--- round 0", "--- round 1", "calm (sum-0003, round 1):",
        "[unparsed; 10 tokens in, 4 out]", "no answer, wrong (majority)",
    ):  # fmt: skip
        assert part in shown, part
    assert shown.count("===") == 1


def test_a_transcript_holds_every_turn_once_in_its_round_whatever_it_was_for(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    with Journal.read(folder.journal) as journal:
        fact = next(f for f in journal.facts("episode") if f.key.startswith("episode/debate"))
        turn = journal.get(fact.payload["turns"][0]) or {}
    review = Fact("turn/review", "turn", turn | {"text": "Not so!", "place": turn["place"] | {"purpose": "review"}})
    stands = [fact.payload["rounds"][0]] * 3
    asked = [key for key in fact.payload["turns"] if key in stands[0].values()] + [review.key]
    episode = fact.payload | {"rounds": stands, "turns": asked, "society": "silent", "edges": []}
    add(folder, review, Fact(f"episode/silent/{episode['task']}", "episode", episode))
    main(["log", "show", str(folder.path), "--society", "silent"])
    shown = capsys.readouterr().out
    assert (shown.count("--- round"), shown.count("calm (sum-0000, round 0):")) == (1, 1)
    assert f"{turn['place']['seat']} (sum-0000, round 0, review):\n    | Not so!" in shown


def test_model_text_reaches_the_terminal_cleaned_and_cannot_pass_for_ours(make_run: Any, capsys: Any) -> None:
    folder = make_run(text=EVIL)
    main(["log", "show", str(folder.path), "--task", "sum-0009"])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\u202e" not in shown and "owned" not in shown
    assert [line for line in shown.splitlines() if line.startswith("===")] == ["=== sum-0009, society single"]


def test_turns_are_shown_one_by_one_and_the_limit_says_how_many_more(make_run: Any, capsys: Any) -> None:
    folder = make_run()
    main(["log", "show", str(folder.path), "--kind", "turn", "--society", "single", "--limit", "3"])
    shown = capsys.readouterr().out
    assert shown.count("solo (") == 3
    assert "(1 more; show them with --limit 4)" in shown


@pytest.mark.parametrize(
    ("kind", "count"), [("run", 1), ("verdict", 20), ("attempt", 1), ("sample", 20), ("episode", 8)]
)
def test_every_kind_can_be_read_as_json(kind: str, count: int, make_run: Any, capsys: Any) -> None:
    folder = make_run()
    assert main(["log", "show", str(folder.path), "--kind", kind, "--limit", "99", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert len(records) == count
    assert {r["kind"] for r in records} == {kind}


def test_an_unknown_kind_is_refused_with_the_known_ones(make_run: Any, capsys: Any) -> None:
    assert main(["log", "show", str(make_run().path), "--kind", "trun"]) == 2
    assert "this journal has: run, episode" in capsys.readouterr().err.replace("episode, run", "run, episode")


@pytest.mark.parametrize("kind", ["failure", "reward", "superstep"])
def test_a_known_kind_without_records_is_said_and_no_failure(kind: str, make_run: Any, capsys: Any) -> None:
    folder = make_run()
    assert main(["log", "show", str(folder.path), "--kind", kind]) == 0
    assert capsys.readouterr().err == f"the run has no records of the kind {kind}\n"
    assert main(["log", "show", str(folder.path), "--kind", kind, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (["--task", "sum-000"], "the run has no task 'sum-000'"),
        (["--task", "nope", "--kind", "verdict"], "it has: sum-0000, sum-0001"),
        (["--society", "debat"], "did you mean 'debate'?"),
    ],
)
def test_a_name_that_the_run_does_not_know_is_refused(
    choice: list[str], words: str, form: list[str], make_run: Any, capsys: Any
) -> None:
    assert main(["log", "show", str(make_run().path), *choice, *form]) == 2
    assert words in capsys.readouterr().err


def test_a_task_without_a_finished_episode_is_no_mistake(make_run: Any, capsys: Any) -> None:
    folder = make_run(episodes=1)
    with Journal.open(folder.journal) as journal:
        key = "episode/debate/sum-0000"
        journal._db.execute("DELETE FROM facts WHERE key = ?", (key,))
        journal._db.commit()
    assert main(["log", "show", str(folder.path), "--task", "sum-0000"]) == 0
    assert "no records of the kind episode of this task" in capsys.readouterr().err


def test_a_run_can_be_read_while_it_is_written(make_run: Any, capsys: Any) -> None:
    folder = make_run(episodes=2, status="running")
    with Journal.open(folder.journal):
        assert main(["log", "verify", str(folder.path)]) == 0
        assert main(["log", "show", str(folder.path)]) == 0


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_exported_tables_hold_every_turn_verdict_and_episode(form: str, make_run: Any, capsys: Any) -> None:
    import pyarrow.parquet as pq

    folder = make_run()
    assert main(["log", "export", str(folder.path), "--to", form]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [f.name for f in files] == [f"turns.{form}", f"verdicts.{form}", f"episodes.{form}"]
    read = _read_jsonl if form == "jsonl" else lambda f: pq.read_table(f).to_pylist()
    turns, verdicts, episodes = map(read, files)
    assert (len(turns), len(verdicts), len(episodes)) == (20, 20, 8)
    assert turns[0]["messages"][0]["role"] in ("system", "user")
    assert turns[0]["token_ids"] == [1, 2, 3, 4]
    assert turns[0]["agent"] in ("calm", "bold", "solo")
    assert {v["turn"] for v in verdicts} == {t["key"] for t in turns}
    standing = {(row["round"], row["agent"]): row["turn"] for row in episodes[0]["standing"]}
    assert standing[0, "calm"] == episodes[0]["turns"][0]


def test_both_formats_hold_the_same_rows(make_run: Any, tmp_path: Path, capsys: Any) -> None:
    import pyarrow.parquet as pq

    folder = make_run()
    for form in ("jsonl", "parquet"):
        main(["log", "export", str(folder.path), "--to", form, "--out", str(tmp_path / "out")])
    for table in ("turns", "verdicts", "episodes"):
        rows = pq.read_table(tmp_path / "out" / f"{table}.parquet").to_pylist()
        assert rows == _read_jsonl(tmp_path / "out" / f"{table}.jsonl")


def test_a_lone_surrogate_survives_jsonl_and_does_not_stop_parquet(make_run: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = make_run(text="half \ud800 a pair")
    for form in ("jsonl", "parquet"):
        assert main(["log", "export", str(folder.path), "--to", form, "--out", str(tmp_path)]) == 0
    assert any(r["text"] == "half \ud800 a pair" for r in _read_jsonl(tmp_path / "turns.jsonl"))
    assert any(r["text"] == "half ? a pair" for r in pq.read_table(tmp_path / "turns.parquet").to_pylist())


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
