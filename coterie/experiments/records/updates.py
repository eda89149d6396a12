"""The iterations of a society's training, as its journal tells them, and what is measured in each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from coterie.journal import Journal

PARTS = ("rollout", "credit", "learning", "checkpoint", "publication")
"""What an iteration's seconds go to; `credit` are replays, and what they show of who deserves what."""
ROLES = {"answer": "solver", "evaluate": "evaluator", "score": "scorer"}
"""What agents are called by the purpose of a turn."""
Form = Literal["share", "signed", "number"]


@dataclass(frozen=True, slots=True)
class Update:
    """One iteration.

    Attributes:
        facts: The fact `update`.
        seconds: By part; empty where the process died before it could tell.
        tokens: How many were generated in the rollout: fewer than all, where some of its turns had been said before.
    """

    facts: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0

    @property
    def iteration(self) -> int:
        """Counts from 1."""
        return int(self.facts["iteration"])


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over iterations; None where there was nothing to count.

    Attributes:
        key: `group/name`, as trackers are sent it.
        label: What people call it.
        form: A share of something; a number from -1 to 1; or any number.
        values: By iteration.
    """

    key: str
    label: str
    form: Form
    values: Sequence[float | None]

    @property
    def group(self) -> str:
        """The first part of the key."""
        return self.key.partition("/")[0]


# Key, name, form; in the order they are shown. Roles, policies and parts of the time come in between, see `_form`.
_KNOWN: tuple[tuple[str, str, Form], ...] = (
    ("right/solver", "solvers", "share"), ("right/society", "society", "share"), ("right/parsed", "parsed", "share"),
    ("reward/", "", "number"),
    ("truth/correlation", "reward with truth", "signed"), ("truth/if_right", "reward if right", "number"),
    ("truth/if_wrong", "reward if wrong", "number"),
    ("judge/base_rate", "solutions right", "share"), ("judge/precision", "precision", "share"),
    ("judge/recall", "recall", "share"), ("judge/youden", "Youden's J", "signed"),
    ("judge/correlation", "score with truth", "signed"), ("judge/unread", "unread scores", "share"),
    ("judge/own_evaluations", "own solution evaluated", "share"), ("judge/own_scores", "own solution scored", "share"),
    ("judge/unanswered_passed", "unanswered passed", "share"), ("judge/canary_score", "canary score", "share"),
    ("judge/contradictions", "contradictions passed", "share"),
    ("learning/loss", "loss", "number"), ("learning/entropy", "entropy, nats", "number"),
    ("learning/kl", "KL of the update", "number"), ("learning/reference_kl", "KL to the start", "number"),
    ("learning/mismatch_kl", "engine mismatch, KL", "number"), ("learning/clipped", "clipped tokens", "share"),
    ("learning/dropped", "tokens dropped", "share"), ("learning/factor", "token credit, mean factor", "number"),
    ("learning/shaped", "tokens shaped by credit", "share"), ("learning/added", "token credit, added", "number"),
    ("learning/gradient_norm", "gradient norm", "number"), ("learning/value_loss", "loss of the critic", "number"),
    ("learning/explained_variance", "returns explained by the critic", "number"),
    ("length/", "", "number"), ("cut/", "", "share"),
    ("speed/tokens_per_second", "tokens/s in rollouts", "number"), ("speed/lag", "lag, versions", "number"),
    ("time/", "", "share"),
)  # fmt: skip
_DECLARED = {key: (place, label, form) for place, (key, label, form) in enumerate(_KNOWN)}
LEARNING = tuple(key.partition("/")[2] for key in _DECLARED if key.startswith("learning/"))
"""Of the learner's metrics, those that are shown."""


def is_training(facts: Mapping[str, Any]) -> bool:
    """Whether the fact `run` is that of a society's training."""
    config = facts.get("config", {})
    return "env" not in config and config.get("learning") is not None


def read_updates(journal: Journal) -> list[Update]:
    """All that are kept, in order."""
    notes = {note.key: note.payload for note in journal.notes("iteration")}
    return [make_update(fact.payload, notes.get(fact.key, {})) for fact in journal.facts("update")]


def make_update(facts: Mapping[str, Any], note: Mapping[str, float]) -> Update:
    """From a fact, and the note on how it went."""
    seconds = {name: float(note[name]) for name in PARTS if name in note}
    return Update(facts, seconds, int(note.get("tokens", facts["tokens"])))


def measure(update: Update) -> dict[str, float]:
    """Every quantity of one iteration that there is, by its key."""
    row = update.facts
    solver, judge = row["solver"], row.get("judge") or {}
    found: dict[str, float | None] = {
        "right/solver": solver["accuracy"], "right/society": row["accuracy"], "right/parsed": solver["parsed"],
        **{f"reward/{role}": numbers["reward"] for role, numbers in row["roles"].items()},
        "truth/correlation": solver["correlation"], "truth/if_right": solver["reward_if_right"],
        "truth/if_wrong": solver["reward_if_wrong"],
        **{key: judge.get(key.removeprefix("judge/")) for key in _DECLARED if key.startswith("judge/")},
        **{f"learning/{name}": value for name, value in mean_learning(row["policies"]).items()},
        **{f"length/{role}": numbers["tokens"] for role, numbers in row["roles"].items()},
        **{f"cut/{role}": numbers["cut"] for role, numbers in row["roles"].items()},
        "speed/tokens_per_second": _rate(update), "speed/lag": row.get("lag"),
        **{f"time/{part}": share for part, share in shares([update]).items()},
    }  # fmt: skip
    return {key: float(value) for key, value in found.items() if value is not None and math.isfinite(value)}


def mean_learning(policies: Mapping[str, Any]) -> dict[str, float]:
    """What is shown of the learner's metrics, as means over the policies that learnt."""
    learnt = [policy["learning"] for policy in policies.values() if policy["learning"]]
    named = {name: [one[name] for one in learnt if one.get(name) is not None] for name in LEARNING}
    return {name: fmean(values) for name, values in named.items() if values}


def _rate(update: Update) -> float | None:
    """Generated tokens per second of the rollout."""
    seconds = update.seconds.get("rollout")
    return update.tokens / seconds if seconds and update.tokens else None


def shares(updates: Iterable[Update]) -> dict[str, float]:
    """Of the time of all of them, by part."""
    parts = sum_seconds(updates)
    whole = sum(parts.values())
    return {name: seconds / whole for name, seconds in parts.items()} if whole else {}


def sum_seconds(updates: Iterable[Update]) -> dict[str, float]:
    """By part, over all of them; the parts that have any."""
    rows = [update.seconds for update in updates]
    return {part: sum(row.get(part, 0.0) for row in rows) for part in PARTS if any(part in row for row in rows)}


def curves(updates: Sequence[Update]) -> list[Curve]:
    """Every quantity that any of them has, in the order they are shown."""
    rows = [measure(update) for update in updates]
    keys = sorted({key for row in rows for key in row}, key=_place)
    return [_curve(key, [row.get(key) for row in rows]) for key in keys]


def _curve(key: str, values: Sequence[float | None]) -> Curve:
    group, _, name = key.partition("/")
    if key in _DECLARED:
        _, label, form = _DECLARED[key]
        return Curve(key, label, form, values)
    return Curve(key, ROLES.get(name, name), _DECLARED[f"{group}/"][2], values)


def _place(key: str) -> tuple[int, int, str]:
    """Declared ones as declared; roles and parts in their own order, others by name."""
    group, _, name = key.partition("/")
    return (_DECLARED[key][0] if key in _DECLARED else _DECLARED[f"{group}/"][0]), *place_of(name)


def place_of(name: str) -> tuple[int, str]:
    """Where a role, or a part of the time, is shown among the others."""
    order = [*ROLES, *PARTS]
    return (order.index(name) if name in order else len(order)), name


def flatten(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers of a fact under names with dots: `roles.answer.reward`."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
