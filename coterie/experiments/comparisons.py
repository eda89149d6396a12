"""Societies against their baselines, on the tasks both have finished, and self-consistency at equal tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.experiments.costs import episode_cost
from coterie.experiments.record import Member, RunRecord
from coterie.experiments.societies import answers_of, correct_answers
from coterie.experiments.statistics import at_budget, mcnemar_exact, paired_bootstrap, self_consistency_curve

Row = dict[str, Any]
_SAMPLED = "self_consistency"


@dataclass(frozen=True, slots=True)
class Curve:
    """Self-consistency at every number of samples: expected accuracy [tasks, n] and mean tokens [n] per task."""

    tasks: tuple[str, ...]
    accuracy: NDArray[np.float64]
    tokens: NDArray[np.float64]

    def of(self, tasks: Sequence[str], record: RunRecord) -> Curve:
        """The same over some of the tasks."""
        rows = [self.tasks.index(task) for task in tasks]
        return Curve(tuple(tasks), self.accuracy[rows], _token_curve(record, tasks, self.accuracy.shape[1]))


def comparison_facts(record: RunRecord, seed: int) -> tuple[list[Row], Row | None]:
    """Every society that is no baseline against every baseline, and the curve of self-consistency if there is one."""
    curve = sampling_curve(record)
    rows = []
    for member in (s for s in record.societies if not s.is_baseline):
        for baseline in (s for s in record.societies if s.is_baseline):
            rows.append(_as_asked(record, member, baseline, seed))
        if curve is not None:
            rows.append(_at_equal_tokens(record, member, curve, seed))
    return rows, None if curve is None else _curve_row(curve)


def paired_row(a: Sequence[bool], b: Sequence[bool], seed: int) -> Row:
    """Two methods' right and wrong answers to the same tasks: difference of accuracies, interval, and exact test."""
    if not a:
        return {"tasks": 0, "difference": None, "interval": None, "p": None, "only_a": 0, "only_b": 0}
    difference, exact = paired_bootstrap(a, b, seed), mcnemar_exact(a, b)
    return {
        "tasks": len(a),
        "difference": difference.value,
        "interval": [difference.low, difference.high],
        "p": exact.p,
        "only_a": exact.only_a,
        "only_b": exact.only_b,
    }


def _as_asked(record: RunRecord, member: Member, baseline: Member, seed: int) -> Row:
    mine, theirs = record.episodes[member.label], record.episodes[baseline.label]
    tasks = sorted(mine.keys() & theirs.keys())
    paired = paired_row([mine[t].is_correct for t in tasks], [theirs[t].is_correct for t in tasks], seed)
    return {"society": member.label, "baseline": baseline.label, "matched": "as asked", **paired}


def _at_equal_tokens(record: RunRecord, member: Member, curve: Curve, seed: int) -> Row:
    mine = record.episodes[member.label]
    tasks = sorted(mine.keys() & set(curve.tasks))
    head = {"society": member.label, "baseline": _SAMPLED, "matched": "equal tokens", "tasks": len(tasks)}
    if not tasks:
        return {**head, "difference": None, "interval": None, "p": None}
    common = curve.of(tasks, record)
    budget = float(np.mean([episode_cost(record.turns_of(mine[task])).total for task in tasks]))
    expected = [at_budget(row, common.tokens, budget).value for row in common.accuracy]
    mean = at_budget(common.accuracy.mean(axis=0), common.tokens, budget)
    difference = paired_bootstrap([mine[task].is_correct for task in tasks], expected, seed)
    return {
        **head,
        "difference": difference.value,
        "interval": [difference.low, difference.high],
        "p": difference.p,
        "baseline_accuracy": mean.value,
        "society_tokens": budget,
        "samples": mean.samples,
        "samples_journalled": len(common.tokens),
        # The journalled samples do not reach the society's cost: what is compared is all of them, which cost less.
        "is_beyond": mean.is_beyond,
        "baseline_tokens": min(budget, float(common.tokens[-1])),
    }


def sampling_curve(record: RunRecord) -> Curve | None:
    """The curve of the self-consistency baseline, or None where none was asked for or it does not vote by majority."""
    config = next((b for b in record.facts["config"]["baselines"] if b["kind"] == _SAMPLED), None)
    episodes = record.episodes.get(_SAMPLED, {})
    is_baseline = any(s.is_baseline and s.label == _SAMPLED for s in record.societies)
    if config is None or not is_baseline or config["decision"]["rule"] != "majority":
        return None
    tasks = [t for t in sorted(episodes) if _num_samples(episodes[t].outcome.rounds) == config["samples"]]
    if not tasks:
        return None
    answers = [list(answers_of(record, episodes[task])[0].values()) for task in tasks]
    correct = [correct_answers(record, episodes[task]) for task in tasks]
    accuracy = self_consistency_curve(answers, correct, config["decision"]["tie"], config["decision"]["no_answer"])
    return Curve(tuple(tasks), accuracy, _token_curve(record, tasks, config["samples"]))


def _num_samples(rounds: Sequence[Any]) -> int:
    return len(rounds[0]) if rounds else 0


def _token_curve(record: RunRecord, tasks: Iterable[str], samples: int) -> NDArray[np.float64]:
    """Mean tokens per task of k = 1..n samples: the prompt is paid once, every reply in full."""
    costs = [episode_cost(record.turns_of(record.episodes[_SAMPLED][task])) for task in tasks]
    prompt = float(np.mean([cost.fresh for cost in costs]))
    # A reply without a token still is a call: the curve must rise for a budget to have one place on it.
    reply = max(float(np.mean([cost.generated / samples for cost in costs])), 1e-9)
    return np.array([prompt + k * reply for k in range(1, samples + 1)])


def _curve_row(curve: Curve) -> Row:
    return {
        "tasks": len(curve.tasks),
        "samples": len(curve.tokens),
        "accuracy": curve.accuracy.mean(axis=0).tolist(),
        "tokens": curve.tokens.tolist(),
    }
