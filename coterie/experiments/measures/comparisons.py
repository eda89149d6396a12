"""Societies against their baselines, on the tasks both have finished, and self-consistency at equal tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.experiments.measures.costs import episode_cost
from coterie.experiments.measures.replies import answers_of, correct_answers
from coterie.experiments.records.run import Member, RunRecord
from coterie.experiments.statistics.inference import (
    detectable_difference,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    sign_flip_test,
    unvaried_shares,
)
from coterie.experiments.statistics.subsampling import at_budget, self_consistency_curve

Row = dict[str, Any]
Scores = Mapping[tuple[str, int], float]
"""What a method scored on each item: a task, and which repeat of it (0 where there is one)."""
AS_ASKED, EQUAL_TOKENS = "as asked", "equal tokens"
SAMPLED = "self_consistency"


@dataclass(frozen=True, slots=True)
class Curve:
    """Self-consistency at every number of samples: expected accuracy [tasks, n] and mean tokens [n] per task."""

    record: RunRecord
    tasks: tuple[str, ...]
    accuracy: NDArray[np.float64]
    tokens: NDArray[np.float64]

    def of(self, tasks: Sequence[str]) -> Curve:
        """The same over some of the tasks."""
        rows = [self.tasks.index(task) for task in tasks]
        tokens = _token_curve(self.record, tasks, self.accuracy.shape[1])
        return Curve(self.record, tuple(tasks), self.accuracy[rows], tokens)


@dataclass(frozen=True, slots=True)
class Matched:
    """A society and self-consistency at the society's cost: right or wrong against expected accuracy, by task."""

    society: Mapping[str, float]
    baseline: Mapping[str, float]
    details: Row


def comparison_facts(record: RunRecord, seed: int) -> tuple[list[Row], Row | None]:
    """Every society that is no baseline against every baseline, and the curve of self-consistency if there is one.

    Comparisons at equal tokens come first. All tests together are one family: `p_holm` is corrected for it.
    """
    curve = sampling_curve(record)
    rows = []
    for member in (s for s in record.societies if not s.is_baseline):
        if curve is not None and member.label != SAMPLED:
            rows.append(_at_equal_tokens(record, member, curve, seed))
        for baseline in (s for s in record.societies if s.is_baseline):
            rows.append(_as_asked(record, member, baseline, seed))
    correct_family(rows)
    return rows, None if curve is None else _curve_row(curve)


def compare(a: Scores, b: Scores, seed: int) -> Row:
    """Two methods on the items that both have: difference of means, interval, test, and what could have been found.

    Repeats of a task are averaged first, so that what is resampled are tasks. `p` is McNemar's exact test where every
    task stands once and is right or wrong on both sides, else the sign-flip test's, of which it is the case of equal
    differences. The interval is the bootstrap's, or, where all tasks differ alike and nothing can be drawn from their
    spread, Tango's. `only_a` and `only_b` count items.
    """
    items = sorted(a.keys() & b.keys())
    row: Row = {"tasks": len({task for task, _ in items}), "pairs": len(items), "difference": None, "interval": None,
                "p": None, "p_holm": None, "test": None, "detectable": None}  # fmt: skip
    if not items:
        return row
    left, right = ([scores[item] for item in items] for scores in (a, b))
    mine, theirs = _task_means(items, left), _task_means(items, right)
    gaps = mine - theirs
    is_same = bool((gaps == gaps[0]).all())
    difference = unvaried_shares(float(gaps[0]), gaps.size) if is_same else paired_bootstrap(mine, theirs, seed)
    row |= {"difference": difference.value, "interval": [difference.low, difference.high],
            "detectable": detectable_difference(mine, theirs)}  # fmt: skip
    if all(value in (0, 1) for value in (*left, *right)):
        exact = mcnemar_exact([bool(x) for x in left], [bool(x) for x in right])
        row |= {"only_a": exact.only_a, "only_b": exact.only_b}
        if row["tasks"] == row["pairs"]:
            return {**row, "p": exact.p, "test": "mcnemar"}
    return {**row, "p": sign_flip_test(mine, theirs, seed), "test": "sign_flip"}


def correct_family(rows: Sequence[Row]) -> None:
    """Write Holm's corrected p-value beside each raw one; the rows are one family of tests."""
    tested = [row for row in rows if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p


def _task_means(items: Sequence[tuple[str, int]], values: Sequence[float]) -> NDArray[np.float64]:
    _, place = np.unique([task for task, _ in items], return_inverse=True)
    weights: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    means: NDArray[np.float64] = np.bincount(place, weights=weights) / np.bincount(place)
    return means


def scores_of(record: RunRecord, member: Member) -> dict[str, float]:
    """1 or 0 for each task that a society has finished, and that a model, if one judges, could judge."""
    return {task: float(e.is_correct) for task, e in record.episodes[member.label].items() if not e.is_excluded}


def once(scores: Mapping[str, float]) -> Scores:
    """Scores of tasks that stand once each."""
    return {(task, 0): value for task, value in scores.items()}


def _as_asked(record: RunRecord, member: Member, baseline: Member, seed: int) -> Row:
    found = compare(once(scores_of(record, member)), once(scores_of(record, baseline)), seed)
    return {"society": member.label, "baseline": baseline.label, "matched": AS_ASKED, **found}


def _at_equal_tokens(record: RunRecord, member: Member, curve: Curve, seed: int) -> Row:
    head = {"society": member.label, "baseline": SAMPLED, "matched": EQUAL_TOKENS}
    matched = match_tokens(record, member, curve)
    if matched is None:
        return {**head, **compare({}, {}, seed)}
    return {**head, **compare(once(matched.society), once(matched.baseline), seed), **matched.details}


def match_tokens(record: RunRecord, member: Member, curve: Curve) -> Matched | None:
    """A society's tasks beside what self-consistency scores at the society's mean cost; None without common tasks."""
    mine = record.episodes[member.label]
    tasks = sorted(task for task in mine.keys() & set(curve.tasks) if not mine[task].is_excluded)
    if not tasks:
        return None
    common = curve.of(tasks)
    budget = float(np.mean([episode_cost(record.turns_of(mine[task])).total for task in tasks]))
    expected = {
        task: at_budget(row, common.tokens, budget).value for task, row in zip(tasks, common.accuracy, strict=True)
    }
    mean = at_budget(common.accuracy.mean(axis=0), common.tokens, budget)
    details = {
        "baseline_accuracy": mean.value,
        "society_tokens": budget,
        "samples": mean.samples,
        "samples_journalled": len(common.tokens),
        # The journalled samples do not reach the society's cost: what is compared is all of them, which cost less.
        "is_beyond": mean.is_beyond,
        "baseline_tokens": min(budget, float(common.tokens[-1])),
    }
    return Matched({task: float(mine[task].is_correct) for task in tasks}, expected, details)


def sampling_curve(record: RunRecord) -> Curve | None:
    """The curve of a run's self-consistency, baseline or not; None without one, or if it takes no majority vote."""
    asked = record.facts["config"]
    config = next((c for c in (asked["protocol"], *asked["baselines"]) if c["kind"] == SAMPLED), None)
    episodes = record.episodes.get(SAMPLED, {})
    if config is None or config["decision"]["rule"] != "majority":
        return None
    tasks = [t for t in sorted(episodes) if _num_samples(episodes[t].outcome.rounds) == config["samples"]]
    if not tasks:
        return None
    answers = [list(answers_of(record, episodes[task])[0].values()) for task in tasks]
    correct = [correct_answers(record, episodes[task]) for task in tasks]
    accuracy = self_consistency_curve(answers, correct, config["decision"]["tie"], config["decision"]["no_answer"])
    return Curve(record, tuple(tasks), accuracy, _token_curve(record, tasks, config["samples"]))


def _num_samples(rounds: Sequence[Any]) -> int:
    return len(rounds[0]) if rounds else 0


def _token_curve(record: RunRecord, tasks: Iterable[str], samples: int) -> NDArray[np.float64]:
    """Mean tokens per task of k = 1..n samples: the prompt is paid once, every reply in full."""
    costs = [episode_cost(record.turns_of(record.episodes[SAMPLED][task])) for task in tasks]
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
