"""A journal's facts as tables for other programs: JSON lines, or Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from coterie.experiments.exports.rows import turn_row
from coterie.experiments.records.training import is_of_world, iteration_rows
from coterie.experiments.records.updates import is_training
from coterie.journal import Fact, Journal
from coterie.orchestration.records import read_turn
from coterie.types import Edge

Format = Literal["jsonl", "parquet"]
Row = dict[str, Any]
_BATCH = 2000


def export_tables(journal: Journal, folder: Path, form: Format) -> list[Path]:
    """Write the tables `turns`, `verdicts` and `episodes` into `folder`, replacing what is there; returns the files.

    Of a training in a world there is one table, `iterations`; of a society's that one too.

    Texts are as the models wrote them; lone surrogates, which Parquet cannot hold, become `?` there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_of_world(journal.get("run") or {}):
        return [_write(form, folder / f"iterations.{form}", "iterations", iter(iteration_rows(journal)))]
    files = [_write(form, folder / f"{name}.{form}", name, _rows(journal, name)) for name in _TABLES]
    if is_training(journal.get("run") or {}):
        files.append(_write(form, folder / f"iterations.{form}", "iterations", iter(iteration_rows(journal))))
    return files


def _rows(journal: Journal, table: str) -> Iterator[Row]:
    kind, row = _TABLES[table]
    return map(row, journal.facts(kind))


def _turn_row(fact: Fact) -> Row:
    turn = fact.payload
    is_chat = bool(turn["prompt"]) and isinstance(turn["prompt"][0], dict)
    ids = turn["prompt_ids"] if is_chat or turn["prompt_ids"] is not None else turn["prompt"]
    return {
        **turn_row(read_turn(fact.key, turn)), "messages": turn["prompt"] if is_chat else None, "prompt_ids": ids,
        "token_ids": turn["token_ids"],
    }  # fmt: skip


def _verdict_row(fact: Fact) -> Row:
    verdict = fact.payload
    return {
        "turn": fact.key.removeprefix("verdict/"), "answer": verdict["answer"], "is_correct": verdict["correct"],
        "labels": verdict.get("labels"), "timed_out": verdict.get("timed_out", False),
    }  # fmt: skip


def _episode_row(fact: Fact) -> Row:
    """`standing`: by which turn each agent stands after each round; the turns of a round are in the table `turns`."""
    episode = fact.payload
    standing = [
        {"round": number, "agent": agent, "turn": turn}
        for number, keys in enumerate(episode["rounds"]) for agent, turn in keys.items()
    ]  # fmt: skip
    fields = ("society", "task", "answer", "decision", "turns")
    # What protocols put into `extra` has no common form, so it stays text.
    extra = json.dumps(episode["extra"], sort_keys=True)
    return {
        "key": fact.key, **{name: episode[name] for name in fields}, "is_correct": episode["correct"],
        "edges": [asdict(Edge(**edge)) for edge in episode["edges"]], "standing": standing, "extra": extra,
    }  # fmt: skip


_TABLES: dict[str, tuple[str, Callable[[Fact], Row]]] = {
    "turns": ("turn", _turn_row),
    "verdicts": ("verdict", _verdict_row),
    "episodes": ("episode", _episode_row),
}


def _write(form: Format, path: Path, table: str, rows: Iterator[Row]) -> Path:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if form == "jsonl":
            _write_jsonl(scratch, rows)
        else:
            _write_parquet(scratch, table, rows)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="ascii") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")


def _write_parquet(path: Path, table: str, rows: Iterator[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if table not in _TABLES:
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return
    schema = _schema(table)
    with pq.ParquetWriter(path, schema) as out:
        while batch := list(islice(rows, _BATCH)):
            out.write_table(pa.Table.from_pylist([_encodable(row) for row in batch], schema=schema))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {name: _encodable(item) for name, item in value.items()}
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return [_encodable(item) for item in value]
    return value


def _schema(table: str) -> Any:
    import pyarrow as pa

    text, number, ids = pa.string(), pa.int64(), pa.list_(pa.int32())
    edge = {"round": number, "source": text, "target": text, "turn": text, "purpose": text}
    if table == "verdicts":
        columns = {"turn": text, "answer": text, "is_correct": pa.bool_(), "labels": pa.map_(text, text)}
        return pa.schema({**columns, "timed_out": pa.bool_()})
    if table == "episodes":
        return pa.schema({
            "key": text, "society": text, "task": text, "answer": text, "decision": text, "is_correct": pa.bool_(),
            "edges": pa.list_(pa.struct(edge)), "turns": pa.list_(text),
            "standing": pa.list_(pa.struct({"round": number, "agent": text, "turn": text})), "extra": text,
        })  # fmt: skip
    return pa.schema({
        "key": text, "task": text, "round": number, "agent": text, "repeat": number, "purpose": text, "policy": text,
        "policy_version": number, "text": text, "answer": text, "finish": text, "prompt_tokens": number,
        "generated_tokens": number, "dropped_tokens": number, "continues": text,
        "messages": pa.list_(pa.struct({"role": text, "content": text})), "prompt_ids": ids, "token_ids": ids,
    })  # fmt: skip
