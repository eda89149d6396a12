"""Whether a run's journal can be trusted: its pages, its hashes, and that what it says fits together."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from coterie.errors import JournalError, ResumeError
from coterie.experiments.folder import RunFolder
from coterie.experiments.records.training import (
    Checkpoint,
    TrainingRecord,
    check_checkpoint,
    is_of_world,
    read_training,
)
from coterie.journal import Journal

_VERDICT = "verdict/"


def audit(folder: RunFolder) -> tuple[str, list[str]]:
    """The digest, and what is wrong: nothing if all is well. Only finished runs are compared with their STATUS.json.

    Raises:
        JournalError: there is no journal, or one of another version.
    """
    with Journal.read(folder.journal) as journal:
        try:
            faults = journal.verify()
            digest = journal.digest()
        except (JournalError, OSError, ValueError) as error:
            return "", [f"the journal cannot be read: {error}"]
        if not faults:
            faults += _check_facts(folder, journal)
        return digest, faults + list(_check_status(folder, digest))


def _check_facts(folder: RunFolder, journal: Journal) -> list[str]:
    if not is_of_world(journal.get("run") or {}):
        return [*check_references(journal), *_check_updates(folder, journal)]
    try:
        return [*_check_iterations(journal), *_check_checkpoints(folder, read_training(journal))]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return [f"a payload has not the form it should have: {type(error).__name__}: {error}"]


def _check_iterations(journal: Journal) -> Iterator[str]:
    steps = 0
    for number, fact in enumerate(journal.facts("iteration"), 1):
        if (fact.key, fact.payload["iteration"]) != (f"iteration/{number:08d}", number):
            yield f"{fact.key!r} stands where iteration {number} should"
            return
        if fact.payload["agent_steps"] <= steps:
            yield f"{fact.key!r} has no more agent-steps than the one before it"
        steps = fact.payload["agent_steps"]


def _check_updates(folder: RunFolder, journal: Journal) -> Iterator[str]:
    """Of a society's training: they follow each other, and the last checkpoint is there."""
    checkpoint = None
    for number, fact in enumerate(journal.facts("update"), 1):
        if fact.payload.get("iteration") != number:
            yield f"{fact.key!r} stands where iteration {number} should"
            return
        if "checkpoint" in fact.payload:
            checkpoint = Checkpoint(number, fact.payload["checkpoint"])
    try:
        if checkpoint is not None:
            check_checkpoint(folder, checkpoint)
    except ResumeError as error:
        yield f"{error.what} ({error.where})"


def _check_checkpoints(folder: RunFolder, record: TrainingRecord) -> Iterator[str]:
    """The last one and the best one are on disk, and are those that were journalled."""
    kept = {found.iteration: found for found in (record.last, record.best and record.best[0]) if found}
    for checkpoint in kept.values():
        try:
            check_checkpoint(folder, checkpoint)
        except ResumeError as error:
            yield f"{error.what} ({error.where})"


def check_references(journal: Journal) -> list[str]:
    """Faults in how turns, verdicts and episodes refer to each other. Every payload must be readable."""
    try:
        run = journal.get("run")
        if run is None:
            return ["there is no fact `run`, which every other follows from"]
        turns = {fact.key: fact.payload for fact in journal.facts("turn")}
        verdicts = {fact.key.removeprefix(_VERDICT): fact.payload for fact in journal.facts("verdict")}
        episodes = list(journal.facts("episode"))
        # Where a model judges, it is asked when an episode is over.
        awaited = set(turns)
        if "judge" in run.get("config", {}).get("benchmark", {}):
            awaited = {turn for fact in episodes for turn in fact.payload["turns"]}
        faults = [*_check_turns(turns, verdicts, awaited), *_check_verdicts(turns, verdicts)]
        for fact in episodes:
            faults += _check_episode(fact.key, fact.payload, turns, run)
        strays = (note.key for note in journal.notes("sample") if note.key not in turns)
        return faults + [f"there is telemetry of {key!r}, which is no turn" for key in strays]
    except (KeyError, TypeError, AttributeError, ValueError, zlib.error) as error:
        return [f"a payload has not the form it should have: {type(error).__name__}: {error}"]


def _check_turns(turns: dict[str, Any], verdicts: dict[str, Any], awaited: set[str]) -> Iterator[str]:
    for key, turn in turns.items():
        place = turn["place"]
        logical = f"{place['task']}/{place['round']:03d}/{place['seat']}/{place['repeat']:03d}/{place['purpose']}"
        if not key.startswith(f"turn/{logical}/"):
            yield f"the key of {key!r} is not that of its place {logical}"
        if place["purpose"] == "answer" and key in awaited and key not in verdicts:
            yield f"{key!r} is an answer without a verdict"
        if turn["token_ids"] is not None and len(turn["token_ids"]) != turn["num_tokens"]:
            yield f"{key!r} says {turn['num_tokens']} tokens and has {len(turn['token_ids'])}"


def _check_verdicts(turns: dict[str, Any], verdicts: dict[str, Any]) -> Iterator[str]:
    for key, verdict in verdicts.items():
        if key not in turns:
            yield f"a verdict is on {key!r}, which is no turn"
        elif turns[key]["answer"] is None and verdict["correct"]:
            yield f"{key!r} has no answer and is judged correct"


def _check_episode(key: str, episode: dict[str, Any], turns: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    agents = {s["label"]: {a["name"] for a in s["agents"]} for s in run["societies"]}
    if episode["society"] not in agents:
        yield f"{key!r} is of a society that the run does not have"
        return
    used = [*episode["turns"], *(turn for moment in episode["rounds"] for turn in moment.values())]
    for turn in dict.fromkeys(used):
        if turn not in turns:
            yield f"{key!r} refers to {turn!r}, which is no turn"
        elif turns[turn]["place"]["task"] != episode["task"]:
            yield f"{key!r} refers to {turn!r}, which is of another task"
        elif turns[turn]["place"]["seat"] not in agents[episode["society"]]:
            yield f"{key!r} refers to {turn!r}, whose agent is not of its society"
    speakers = {name for moment in episode["rounds"] for name in moment}
    ends = {edge[end] for edge in episode["edges"] for end in ("source", "target")}
    for name in sorted(ends - speakers - agents[episode["society"]]):
        yield f"{key!r} has an edge of {name!r}, who is not of its society"


def _check_status(folder: RunFolder, digest: str) -> Iterator[str]:
    try:
        written = json.loads(folder.status.read_text("utf-8"))
    except (OSError, ValueError):
        return
    if written.get("status") == "finished" and written.get("digest", digest) != digest:
        yield f"facts came, went or changed after the end: the digest was {written['digest']}, it is {digest}"
