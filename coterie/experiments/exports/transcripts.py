"""What was said in a run, for people: episodes as transcripts, other records as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from coterie.config.problems import nearest
from coterie.errors import ConfigError
from coterie.experiments.measures.replies import by_round, question_of
from coterie.experiments.records.training import is_of_world
from coterie.journal import Fact, Journal, Note
from coterie.orchestration.records import read_turn
from coterie.types import Turn

_INDENT = "    "
_MOST_NAMED = 5
# What a journal may hold; plugins and later versions may add to it.
_KINDS = (
    "run", "engine", "turn", "verdict", "episode", "reward", "probe", "update", "iteration",
    "attempt", "executor", "superstep", "sample", "failure", "checkpoint", "attempt-end",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records: `task` and `society` are exact names or empty for all; `kind` is that of facts or notes."""

    kind: str = "episode"
    task: str = ""
    society: str = ""


def select(journal: Journal, selection: Selection) -> Iterator[dict[str, Any]]:
    """The selected records as `key`, `kind`, `payload`, and `time` if they are notes; facts by key, notes by time.

    Raises:
        ConfigError: no journal has such a kind, or this one no such task or society.
    """
    belongs = _belongs_to(journal, selection)
    found: Iterator[Fact | Note] = (
        journal.facts(selection.kind) if journal.count(selection.kind) else journal.notes(selection.kind)
    )
    seen = is_given = False
    for record in found:
        seen = True
        if belongs(record.key, record.payload):
            is_given = True
            row = {"key": record.key, "kind": record.kind, "payload": record.payload}
            yield row | ({"time": record.time} if isinstance(record, Note) else {})
    if not seen and selection.kind not in _KINDS:
        raise ConfigError(
            f"there are no records of the kind {selection.kind!r}",
            where=str(journal.path), remedy=f"this journal has: {', '.join(kinds(journal))}",
        )  # fmt: skip
    if not is_given:
        _check_names(journal, selection)


def main_kind(journal: Journal) -> str:
    """What is shown if nobody asks for anything else."""
    return "iteration" if is_of_world(journal.get("run") or {}) else "episode"


def _check_names(journal: Journal, selection: Selection) -> None:
    """Refuse names that stand nowhere in the journal; a task or society of which nothing is selected is no mistake."""
    tasks = {fact.payload["place"]["task"] for fact in journal.facts("turn")}
    societies = {society["label"] for society in (journal.get("run") or {}).get("societies", ())}
    for noun, name, known in (("task", selection.task, tasks), ("society", selection.society, societies)):
        if name and known and name not in known:
            close = nearest(name, known)
            names = ", ".join(sorted(known)[:_MOST_NAMED]) + (", ..." if len(known) > _MOST_NAMED else "")
            raise ConfigError(
                f"the run has no {noun} {name!r}", where=str(journal.path),
                remedy=f"did you mean {close!r}?" if close else f"it has: {names}",
            )  # fmt: skip


def kinds(journal: Journal) -> list[str]:
    """The kinds of records in a journal, facts before notes."""
    facts = dict.fromkeys(fact.kind for fact in journal.facts())
    return list(dict.fromkeys([*facts, *(note.kind for note in journal.notes())]))


def _belongs_to(journal: Journal, selection: Selection) -> Callable[[str, Any], bool]:
    turns: set[str] | None = None
    if selection.society and selection.kind != "episode":
        mine = [f.payload for f in journal.facts("episode") if f.payload["society"] == selection.society]
        turns = {key for episode in mine for key in episode["turns"]}

    def belongs(key: str, payload: Any) -> bool:
        if selection.kind == "episode":
            return selection.task in ("", payload["task"]) and selection.society in ("", payload["society"])
        turn = key.removeprefix("verdict/")
        if selection.task and not turn.startswith(f"turn/{selection.task}/"):
            return False
        return turns is None or turn in turns

    return belongs


def show(journal: Journal, selection: Selection, limit: int) -> Iterator[str]:
    """At most `limit` selected records as texts for reading. Not cleaned: that is for whoever shows them."""
    records = select(journal, selection)
    for record in islice(records, limit):
        if record["kind"] == "episode":
            yield "\n".join(transcript(journal, record["payload"]))
        elif record["kind"] == "turn":
            turn = read_turn(record["key"], record["payload"])
            yield "\n".join(_turn(turn, _verdict(journal, turn.key)))
        else:
            yield f"{record['key'] or record['kind']}\n{_INDENT}{json.dumps(record['payload'], ensure_ascii=False)}"
    if more := sum(1 for _ in records):
        yield f"({more} more; show them with --limit {limit + more})"


def transcript(journal: Journal, episode: dict[str, Any]) -> Iterator[str]:
    """An episode line by line: every turn of each round, whatever it was for, and what came of it."""
    yield f"=== {episode['task']}, society {episode['society']}"
    found = {key: journal.get(key) for key in episode["turns"]}
    turns = [read_turn(key, payload) for key, payload in found.items() if payload is not None]
    yield from _quote("question", question_of(turns) or "(token ids)")
    for number, mine in by_round(turns):
        yield f"--- round {number}"
        for turn in mine:
            yield from _turn(turn, _verdict(journal, turn.key))
    yield from (f"{key} is missing" for key, payload in found.items() if payload is None)
    mark = "right" if episode["correct"] else "wrong"
    answer = "no answer" if episode["answer"] is None else f"answer {episode['answer']}"
    yield f"--- {answer}, {mark} ({episode['decision']})"


def _verdict(journal: Journal, key: str) -> str:
    verdict = journal.get(f"verdict/{key}")
    if verdict is None:
        return "not judged"
    if verdict["answer"] is None:
        return "unparsed"
    late = ", its grading timed out" if verdict.get("timed_out") else ""
    return f"{verdict['answer']}, {'right' if verdict['correct'] else 'wrong'}{late}"


def _turn(turn: Turn, verdict: str) -> Iterator[str]:
    place = turn.place
    purpose = "" if place.purpose == "answer" else f", {place.purpose}"
    repeat = f", sample {place.repeat}" if place.repeat else ""
    cut = ", cut at the limit" if turn.finish == "length" else ""
    yield from _quote(f"{place.seat} ({place.task}, round {place.round}{purpose}{repeat})", turn.text)
    yield f"{_INDENT}[{verdict}; {turn.num_prompt_tokens} tokens in, {turn.num_tokens} out{cut}]"


def _quote(head: str, body: str) -> Iterator[str]:
    yield f"{head}:"
    # Indented, so that no reply can pass for a line of ours.
    yield from (f"{_INDENT}| {line}" for line in body.splitlines() or [""])
