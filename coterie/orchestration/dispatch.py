"""What is sent to the engines next, and in which batches. The two levels of determinism differ only here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coterie.journal import Journal, Note
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.pool import EngineInfo
from coterie.orchestration.worker import Request

# Requests given to a continuous engine beyond its batch size wait inside it; a few batches keep it busy.
_BATCHES_AHEAD = 4


@dataclass(slots=True)
class Wanted:
    """A request that some workers wait for."""

    request: Request
    engine: str
    workers: list[int]
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One `generate` call: requests of one policy, performed by one worker on one replica."""

    engine: str
    worker: int
    replica: int
    wanted: tuple[Wanted, ...]


Wave = tuple[Call, ...]
"""Calls whose turns are committed together, or not at all."""


@dataclass(slots=True)
class Loads:
    """How many requests each replica of each engine is working on."""

    engines: Mapping[str, EngineInfo]
    counts: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = {name: [0] * info.replicas for name, info in self.engines.items()}

    def add(self, call: Call, sign: int = 1) -> None:
        self.counts[call.engine][call.replica] += sign * len(call.wanted)

    @property
    def total(self) -> int:
        return sum(map(sum, self.counts.values()))

    def room(self, engine: str) -> int:
        """How many requests the engine takes now."""
        info, counts = self.engines[engine], self.counts[engine]
        if info.is_continuous:
            return max(0, _BATCHES_AHEAD * info.max_batch * info.replicas - sum(counts))
        return info.max_batch * counts.count(0)


class Dispatcher(Protocol):
    """Plans waves from what is ready (sorted in logical order), and reserves their cost.

    `is_idle` says that every worker waits and nothing is in flight. The second value, if not empty, is why the run
    has to stop.
    """

    def plan(
        self, ready: Sequence[Wanted], loads: Loads, budget: RunBudget, is_idle: bool
    ) -> tuple[list[Wave], str]: ...


class Continuous:
    """`statistical`: each request goes out as soon as its engine has room; each call is a wave of its own."""

    def plan(self, ready: Sequence[Wanted], loads: Loads, budget: RunBudget, is_idle: bool) -> tuple[list[Wave], str]:
        chosen: list[Wanted] = []
        room = {engine: loads.room(engine) for engine in loads.engines}
        for wanted in ready:
            if not room[wanted.engine]:
                continue
            if not budget.fits(wanted.request.cost):
                if not chosen and not loads.total:
                    return [], budget.explain()
                break
            budget.reserve(wanted.request.cost)
            room[wanted.engine] -= 1
            chosen.append(wanted)
        waves: list[Wave] = []
        for call in _calls(chosen, loads, one_by_one=True):
            waves.append((call,))
        return waves, ""


class Supersteps:
    """`exact`: batches are a function of what was asked, never of time.

    When all is idle, what fits the budget is admitted in logical order and noted in the journal. The admitted requests
    are answered in batches cut from that order, one wave at a time; a killed run takes up the same batches.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._admitted: list[str] = []
        for note in journal.notes("superstep"):
            self._admitted = note.payload

    def plan(self, ready: Sequence[Wanted], loads: Loads, budget: RunBudget, is_idle: bool) -> tuple[list[Wave], str]:
        if not is_idle or not ready:
            return [], ""
        by_key = {wanted.request.key: wanted for wanted in ready}
        open_ = [by_key[key] for key in self._admitted if key in by_key]
        if not open_:
            open_ = self._admit(ready, budget)
            if not open_:
                return [], budget.explain()
        room = {engine: loads.room(engine) if not info.is_continuous else info.max_batch * info.replicas
                for engine, info in loads.engines.items()}  # fmt: skip
        chosen = []
        for wanted in open_:
            if room[wanted.engine]:
                room[wanted.engine] -= 1
                chosen.append(wanted)
                budget.reserve(wanted.request.cost)
        return [tuple(_calls(chosen, loads, one_by_one=False))], ""

    def _admit(self, ready: Sequence[Wanted], budget: RunBudget) -> list[Wanted]:
        admitted: list[Wanted] = []
        cost = 0
        for wanted in ready:
            cost += wanted.request.cost
            if not budget.fits(cost, calls=len(admitted) + 1):
                break
            admitted.append(wanted)
        self._admitted = [wanted.request.key for wanted in admitted]
        if admitted:
            self._journal.commit(notes=[Note("superstep", "", self._admitted)])
        return admitted


def _calls(chosen: Iterable[Wanted], loads: Loads, *, one_by_one: bool) -> list[Call]:
    """Group by worker and policy, cut to batches, give each to the least busy replica."""
    groups: dict[tuple[str, int, str], list[Wanted]] = {}
    for wanted in chosen:
        groups.setdefault((wanted.engine, wanted.workers[0], wanted.request.policy), []).append(wanted)
    calls = []
    for (engine, worker, _), group in groups.items():
        info = loads.engines[engine]
        size = 1 if one_by_one and info.is_continuous else info.max_batch
        for start in range(0, len(group), size):
            counts = loads.counts[engine]
            call = Call(engine, worker, counts.index(min(counts)), tuple(group[start : start + size]))
            loads.add(call)
            calls.append(call)
    return calls
