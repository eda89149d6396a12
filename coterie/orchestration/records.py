"""How turns, verdicts and episodes stand in the journal, and how they are read back."""

from __future__ import annotations

import dataclasses
from typing import Any

from coterie.journal import Fact, Note
from coterie.orchestration.jobs import Job, Performed
from coterie.types import Edge, Message, Outcome, Place, Turn, Verdict

_TURN_FIELDS = tuple(field.name for field in dataclasses.fields(Turn) if field.name != "key")


def turn_fact(turn: Turn) -> Fact:
    """The fact of a turn; everything but its key, which is the fact's key."""
    # `asdict` of the whole would copy every token id by itself.
    payload = {name: getattr(turn, name) for name in _TURN_FIELDS}
    if turn.continues is None:
        del payload["continues"]
    prompt = [dataclasses.asdict(part) if isinstance(part, Message) else part for part in turn.prompt]
    return Fact(turn.key, "turn", payload | {"place": turn.place._asdict(), "prompt": prompt})


def read_turn(key: str, payload: dict[str, Any]) -> Turn:
    """A turn from its key and payload."""
    prompt = payload["prompt"]
    is_chat = bool(prompt) and isinstance(prompt[0], dict)
    return Turn(
        **{
            **payload,
            "key": key,
            "place": Place(**payload["place"]),
            "prompt": tuple(Message(**m) for m in prompt) if is_chat else tuple(prompt),
            "prompt_ids": _ids(payload["prompt_ids"]),
            "token_ids": _ids(payload["token_ids"]),
        }
    )


def _ids(value: list[int] | None) -> tuple[int, ...] | None:
    return None if value is None else tuple(value)


def sample_note(done: Performed, host: str, replica: int) -> Note:
    """The telemetry of a turn: what may differ between two executions of the same run."""
    return Note(
        "sample",
        done.turn.key,
        {
            "seconds": round(done.seconds, 4),
            "cached_tokens": done.sample.num_cached_tokens,
            "logprobs": [round(x, 5) for x in done.sample.logprobs] if done.sample.logprobs else None,
            "host": host,
            "replica": replica,
        },
    )


def verdict_fact(turn: Turn, verdict: Verdict) -> Fact:
    """The fact of a verdict on a turn."""
    payload = {"answer": verdict.answer, "correct": verdict.correct, **_labels(verdict), **_lateness(verdict)}
    return Fact(f"verdict/{turn.key}", "verdict", payload)


def _labels(verdict: Verdict) -> dict[str, Any]:
    return {} if verdict.labels is None else {"labels": dict(verdict.labels)}


def _lateness(verdict: Verdict) -> dict[str, Any]:
    return {"timed_out": True} if verdict.timed_out else {}


def episode_fact(job: Job, outcome: Outcome, verdict: Verdict) -> Fact:
    """The fact of a finished episode, or replay."""
    payload = dataclasses.asdict(outcome) | {
        "society": job.society,
        "task": job.task.id,
        "correct": verdict.correct,
        **_labels(verdict),
        **_lateness(verdict),
        **({"features": dict(job.task.features)} if job.task.features else {}),
    }
    return Fact(job.key, job.kind, payload)


def read_episode_verdict(payload: dict[str, Any]) -> Verdict:
    """The verdict on a society's answer from the payload of its episode."""
    return Verdict(payload["answer"], payload["correct"], payload.get("labels"), payload.get("timed_out", False))


def read_outcome(payload: dict[str, Any]) -> Outcome:
    """An outcome from the payload of its episode."""
    return Outcome(
        payload["answer"],
        tuple(payload["rounds"]),
        tuple(Edge(**edge) for edge in payload["edges"]),
        payload["decision"],
        payload["extra"],
        tuple(payload["turns"]),
    )
