"""What a run's token credit made of its replies: read from its journal, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from coterie.errors import ConfigError
from coterie.experiments.folder import RunFolder
from coterie.journal import Journal
from coterie.orchestration import records
from coterie.types import Turn

Spelling = Callable[[Sequence[int]], list[str]]
"""From the ids of a reply to the text of each."""
HEAT = ("waad", "fai", "influence", "received", "value", "entropy")
"""Signals that tokens are shaded by, in this order, before what credit made of them."""


@dataclass(frozen=True, slots=True)
class Shade:
    """One quantity of a reply.

    Attributes:
        name: `factor`, `added`, or a signal's.
        least: Of all its tokens.
        most: Of all its tokens.
        heat: Of each token from 0 (least) to 1 (most); None where it is not known.
    """

    name: str
    least: float
    most: float
    heat: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class CreditedTurn:
    """A reply with what its tokens were worth.

    Attributes:
        turn: What was said.
        rule: The kind of token credit.
        iteration: In which it was learnt from.
        pieces: The text of each token.
        advantage: The mean over tokens, as is learnt from.
        shades: Signals, the factor, and what is added where anything is.
        marks: What each token was chosen as, such as `preplan`; empty for most.
    """

    turn: Turn
    rule: str
    iteration: int
    pieces: Sequence[str]
    advantage: float
    shades: Sequence[Shade]
    marks: Sequence[str]


@dataclass(frozen=True, slots=True)
class HeadGrid:
    """Roles of a policy's heads.

    Attributes:
        policy: Whose.
        iteration: Since when.
        rows: By layer, the last first: its number, and of each head the role (`local`, `global` or nothing) and its
            mean span.
    """

    policy: str
    iteration: int
    rows: Sequence[tuple[int, Sequence[tuple[str, float]]]]


def read_credit(
    folder: RunFolder, spell: Callable[[str], Spelling], iteration: int | None, most: int
) -> tuple[list[CreditedTurn], list[HeadGrid]]:
    """What was kept of an iteration.

    Args:
        folder: Of a training with token credit.
        spell: From a policy's name to what tells the text of each of its tokens.
        iteration: None: the last one of which something was kept.
        most: How many turns, at most.

    Raises:
        ConfigError: Nothing was kept.
        JournalError: The journal cannot be read.
    """
    with Journal.read(folder.journal) as journal:
        notes = {(note.payload["iteration"], note.key): note.payload for note in journal.notes("token_credit")}
        known = sorted({number for number, _ in notes})
        chosen = known[-1] if iteration is None and known else iteration
        if chosen is None or chosen not in known:
            raise _nothing_kept(folder, iteration, known)
        keys = [key for number, key in sorted(notes) if number == chosen][:most]
        turns = [records.read_turn(key, journal.get(key) or {}) for key in keys]
        grids = {note.key: note.payload for note in journal.notes("head_roles")}
    credited = [_credited(turn, notes[chosen, turn.key], spell(turn.policy)) for turn in turns]
    return credited, _grids(grids, chosen)


def _nothing_kept(folder: RunFolder, iteration: int | None, known: Sequence[int]) -> ConfigError:
    where = str(folder.path)
    if not known:
        what, remedy = "no token credit was kept in this run", "train with `credit: {token: ...}` and `keep` above 0"
    else:
        what, remedy = f"nothing was kept of iteration {iteration}", f"there are {known[0]} to {known[-1]}"
    return ConfigError(what, where=where, remedy=remedy)


def _credited(turn: Turn, note: Mapping[str, Any], spell: Spelling) -> CreditedTurn:
    factor = note["factor"]
    added = note.get("added", [0.0] * len(factor))
    shaped = [f * given + more for f, given, more in zip(factor, note["advantage"], added, strict=True)]
    marks = [""] * len(factor)
    for name, places in note["marks"].items():
        for place in places:
            marks[place] = f"{marks[place]} {name}".strip()
    signals = {**note["signals"], **{name: note[name] for name in ("factor", "added") if name in note}}
    if "fai" in signals:
        signals["fai"] = [v if n else None for v, n in zip(signals["fai"], signals["fai_queries"], strict=True)]
    shades = [shade(name, signals[name]) for name in (*HEAT, "factor", "added") if name in signals]
    return CreditedTurn(
        turn, note["rule"], note["iteration"], spell(turn.token_ids or ()), fmean(shaped), shades, marks
    )  # fmt: skip


def shade(name: str, values: Sequence[float | None]) -> Shade:
    """From numbers to heat; all alike are cold."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    least, most = min(known, default=0.0), max(known, default=0.0)
    width = most - least
    heat = [None if value is None else (value - least) / width if width else 0.0 for value in values]
    return Shade(name, least, most, heat)


def _grids(notes: Mapping[str, Mapping[str, Any]], iteration: int) -> list[HeadGrid]:
    """Of each policy the roles that held in an iteration."""
    found: dict[str, HeadGrid] = {}
    for key in sorted(notes):
        policy, _, since = key.rpartition("/")
        if int(since) <= iteration:
            found[policy] = _grid(policy, int(since), notes[key])
    return list(found.values())


def _grid(policy: str, since: int, roles: Mapping[str, Any]) -> HeadGrid:
    named = {tuple(head): role for role, group in (("local", "local"), ("global", "distant")) for head in roles[group]}
    rows = [
        (layer, [(named.get((layer, head), ""), span) for head, span in enumerate(spans)])
        for layer, spans in zip(roles["layers"], roles["span"], strict=True)
    ]
    return HeadGrid(policy, since, rows[::-1])
