"""What is sent to the engines next, and in which batches. The two levels of determinism differ only here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coterie.journal import Journal, Note
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.jobs import Request
from coterie.orchestration.pool import EngineInfo
from coterie.types import Sampling, Sight

# How much a continuous engine is given, in batches. What it has beyond one waits inside it, to fill places that get
# free before we hear of it. More would wait there for nothing, while the deadline of each call runs.
_AHEAD = 1.25


@dataclass(slots=True)
class Wanted:
    """A request that some workers wait for."""

    request: Request
    engine: str
    workers: list[int]
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One `generate` call: requests to one engine, all drawn in the same way, performed by one worker on one replica.

    Its turns are committed together, or not at all.
    """

    engine: str
    worker: int
    replica: int
    wanted: tuple[Wanted, ...]


@dataclass(slots=True)
class Loads:
    """How many requests each replica of each engine is working on."""

    engines: Mapping[str, EngineInfo]
    counts: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = {name: [0] * info.replicas for name, info in self.engines.items()}

    def add(self, call: Call, sign: int = 1) -> None:
        self.counts[call.engine][call.replica] += sign * len(call.wanted)

    def slots(self, engine: str, *, one_by_one: bool) -> tuple[int, int]:
        """How many calls an engine takes now, and how many requests each."""
        info, counts = self.engines[engine], self.counts[engine]
        if one_by_one and info.is_continuous:
            return max(0, math.ceil(_AHEAD * info.max_batch) * info.replicas - sum(counts)), 1
        return counts.count(0), info.max_batch


class Dispatcher(Protocol):
    """Plans calls from what is ready (sorted in logical order), and reserves their cost.

    `is_idle` says that every worker waits and nothing is in flight. The second value, if not empty, is why the run
    has to stop.
    """

    def plan(
        self, ready: Sequence[Wanted], loads: Loads, budget: RunBudget, is_idle: bool
    ) -> tuple[list[Call], str]: ...


class Continuous:
    """`statistical`: each request goes out as soon as its engine has room."""

    def plan(self, ready: Sequence[Wanted], loads: Loads, budget: RunBudget, is_idle: bool) -> tuple[list[Call], str]:
        calls = _fill(ready, loads, budget, one_by_one=True)
        if not calls and ready and is_idle:
            return [], budget.explain()
        return calls, ""


class Supersteps:
    """`exact`: batches are a function of what was asked, never of time.

    When all is idle, what fits the budget is admitted in logical order and noted in the journal. The admitted requests
    are answered in batches cut from that order. A batch is committed whole, so what is left after a failure, or in a
    killed run, is cut into the same batches.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._admitted: list[str] = journal.last_note("superstep", "") or []

    def plan(self, ready: Sequence[Wanted], loads: Loads, budget: RunBudget, is_idle: bool) -> tuple[list[Call], str]:
        if not is_idle or not ready:
            return [], ""
        by_key = {wanted.request.key: wanted for wanted in ready}
        open_ = [by_key[key] for key in self._admitted if key in by_key]
        if not open_:
            open_ = self._admit(ready, budget)
        # What an attempt with a larger budget admitted may be too much for this one.
        calls = _fill(open_, loads, budget, one_by_one=False)
        return calls, "" if calls else budget.explain()

    def _admit(self, ready: Sequence[Wanted], budget: RunBudget) -> list[Wanted]:
        admitted: list[Wanted] = []
        cost = calls = 0
        for wanted in ready:
            cost += wanted.request.cost
            calls += len(wanted.request.keys)
            if not budget.fits(cost, calls):
                break
            admitted.append(wanted)
        self._admitted = [wanted.request.key for wanted in admitted]
        if admitted:
            self._journal.commit(notes=[Note("superstep", "", self._admitted)])
        return admitted


def _fill(ready: Sequence[Wanted], loads: Loads, budget: RunBudget, *, one_by_one: bool) -> list[Call]:
    """Full calls for the engines' free slots, reserved; stops at the first request that does not fit the budget.

    In logical order a request joins the open call of its engine, worker, sampling and sight, or opens one where there
    is a slot: policies that share an engine are asked together. A worker performs only its own requests: a call filled
    up with another's would be two half-empty calls.
    """
    slots = {engine: loads.slots(engine, one_by_one=one_by_one) for engine in loads.engines}
    left = {engine: count for engine, (count, _) in slots.items()}
    parts: list[list[Wanted]] = []
    filling: dict[tuple[str, int, Sampling | None, Sight | None], list[Wanted]] = {}
    for wanted in ready:
        request = wanted.request
        group = wanted.engine, wanted.workers[0], request.sampling, request.sight
        part = filling.get(group)
        if part is None or len(part) == slots[wanted.engine][1]:
            if not left[wanted.engine]:
                continue
            part = []
        if not budget.fits(request.cost, len(request.keys)):
            break
        budget.reserve(request.cost, len(request.keys))
        if not part:
            left[wanted.engine] -= 1
            parts.append(part)
            filling[group] = part
        part.append(wanted)
    return [_assign(part, loads) for part in parts]


def _assign(part: list[Wanted], loads: Loads) -> Call:
    """A call on the least busy replica."""
    counts = loads.counts[part[0].engine]
    call = Call(part[0].engine, part[0].workers[0], counts.index(min(counts)), tuple(part))
    loads.add(call)
    return call
