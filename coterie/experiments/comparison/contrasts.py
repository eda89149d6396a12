"""Runs side by side: the same tasks, paired, and what was different in their configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from coterie.experiments.comparison.settings import Setting, has_same_tasks, pair_repeats, sort_runs
from coterie.experiments.measures.comparisons import (
    AS_ASKED,
    EQUAL_TOKENS,
    SAMPLED,
    Curve,
    Scores,
    compare,
    correct_family,
    match_tokens,
    sampling_curve,
    scores_of,
)
from coterie.experiments.measures.costs import Cost, cost_row, episode_cost
from coterie.experiments.records.run import Member, RunRecord
from coterie.experiments.statistics.inference import Estimate, anova, mean_interval, wilson

Row = dict[str, Any]


def contrast(records: Sequence[RunRecord], *, pool: bool | None = None) -> Row:
    """What several runs show beside each other, JSON-able.

    Args:
        records: At least one.
        pool: Whether runs that differ in nothing but their seed are repeats of one setting; default: with more than
            two. Of exactly two runs each stands for itself.

    Returns:
        `settings`, `rows` (one for each society of each setting), `comparisons` (each society with its baseline at
        equal tokens, and with the first setting on the same tasks; one family for Holm's correction), `anova`,
        `curves` of self-consistency, and `differences` of the configs.

    Raises:
        ConfigError: a run has not begun.
    """
    settings, differing = sort_runs(records, pool=len(records) > 2 if pool is None else pool)
    seed = int(records[0].facts["config"]["seed"])
    rows = [_row(i, setting, member) for i, setting in enumerate(settings) for member in setting.first.societies]
    curves = [[sampling_curve(run) for run in setting.runs.values()] for setting in settings]
    comparisons = [
        _with_baseline(i, setting, member, [_find_curve(run, curves) for run in setting.runs.values()], seed)
        for i, setting in enumerate(settings) for member in _mains(setting.first)
    ]  # fmt: skip
    comparisons += _with_first(settings, seed)
    correct_family(comparisons)
    return {
        "settings": [_setting_row(setting) for setting in settings],
        "same_digest": len({record.digest for record in records}) == 1 and len(records) > 1,
        "rows": rows,
        "comparisons": comparisons,
        "anova": _variances(settings, rows),
        "curves": [row for i, found in enumerate(curves) if (row := _curve(i, found)) is not None],
        "differences": differing,
    }


def _mains(record: RunRecord) -> list[Member]:
    return [member for member in record.societies if not member.is_baseline]


def _setting_row(setting: Setting) -> Row:
    runs = [{"seed": seed, "name": r.facts["config"]["name"], "digest": r.digest, "tasks": r.facts["tasks"],
             "tasks_complete": len(r.complete_tasks)} for (seed, _), r in setting.runs.items()]  # fmt: skip
    return {"label": setting.label, "benchmark": setting.first.facts["config"]["benchmark"], "runs": runs}


def _row(index: int, setting: Setting, member: Member) -> Row:
    """One society of a setting over all its repeats. With several, accuracy is the mean over tasks of their means."""
    runs = list(setting.runs.values())
    scores = [scores_of(run, member) for run in runs]
    share = _accuracy(scores)
    by_repeat = [fmean(found.values()) for found in scores if found]
    episodes = [(run, e) for run in runs for e in run.episodes[member.label].values()]
    cost = sum((episode_cost(run.turns_of(e)) for run, e in episodes), Cost())
    return {
        "setting": index,
        "society": member.label,
        "is_baseline": member.is_baseline,
        "tasks": len({task for found in scores for task in found}),
        "repeats": len(by_repeat),
        "episodes": len(episodes),
        "accuracy": share.value,
        "interval": [share.low, share.high],
        "by_repeat": by_repeat,
        "std": stdev(by_repeat) if len(by_repeat) > 1 else None,
        "cost_per_task": {k: v / len(episodes) for k, v in cost_row(cost).items()} if episodes else None,
    }


def _accuracy(scores: Sequence[Mapping[str, float]]) -> Estimate:
    """Wilson's interval over tasks; Student's over the means of tasks that stand several times, which are alike."""
    by_task: dict[str, list[float]] = {}
    for found in scores:
        for task, value in found.items():
            by_task.setdefault(task, []).append(value)
    means = [fmean(values) for values in by_task.values()]
    if len(set(means)) <= 1 or max(map(len, by_task.values())) == 1:
        return wilson(sum(means), len(means))
    mean = mean_interval(means)
    return Estimate(mean.value, max(0.0, mean.low), min(1.0, mean.high))


def _find_curve(run: RunRecord, curves: Sequence[Sequence[Curve | None]]) -> Curve | None:
    """A run's own curve of self-consistency, or that of another run on the same tasks with the same policies.

    Only such another's that was sampled as the run's own baseline would be: by the first seat's policy, without a
    persona. Of several the one under the same seed, else the first.
    """
    config = run.facts["config"]
    fit = [
        curve for found in curves for curve in found
        if curve is not None and has_same_tasks(curve.record, run)
        and curve.record.facts["config"]["policies"] == config["policies"]
        and _sampled(curve.record) == (config["seats"][0]["policy"], "")
    ]  # fmt: skip
    fit.sort(key=lambda curve: (curve.record is not run, curve.record.facts["config"]["seed"] != config["seed"]))
    return fit[0] if fit else None


def _sampled(record: RunRecord) -> tuple[str, str]:
    """Policy and persona of the agent that answers in a run's self-consistency."""
    agents = next(society["agents"] for society in record.facts["societies"] if society["label"] == SAMPLED)
    return agents[0]["policy"], agents[0]["persona"]


def _with_baseline(index: int, setting: Setting, member: Member, curves: Sequence[Curve | None], seed: int) -> Row:
    """A society and self-consistency at equal tokens; without such a baseline, the first one as it was asked."""
    head = {"setting": index, "society": member.label}
    mine: dict[tuple[str, int], float] = {}
    theirs: dict[tuple[str, int], float] = {}
    details = []
    for repeat, (run, curve) in enumerate(zip(setting.runs.values(), curves, strict=True)):
        if member.label == SAMPLED or curve is None or (matched := match_tokens(run, member, curve)) is None:
            continue
        mine |= _at(repeat, matched.society)
        theirs |= _at(repeat, matched.baseline)
        details.append(matched.details)
    if details:
        means = {name: fmean(float(d[name]) for d in details) for name in details[0] if name != "is_beyond"}
        beyond = any(d["is_beyond"] for d in details)
        row = {**head, "against": "self_consistency", "matched": EQUAL_TOKENS, **compare(mine, theirs, seed)}
        return {**row, **means, "is_beyond": beyond}
    baseline = next((m for m in setting.first.societies if m.is_baseline), None)
    pairs = [(run, run) for run in setting.runs.values()]
    scores = _paired_scores(pairs, member, baseline) if baseline is not None else ({}, {})
    name = "" if baseline is None else baseline.label
    return {**head, "against": name, "matched": AS_ASKED, **compare(*scores, seed)}


def _with_first(settings: Sequence[Setting], seed: int) -> list[Row]:
    """Every setting after the first with the first one on the same tasks: later minus earlier."""
    rows = []
    for index, setting in enumerate(settings):
        earlier = (i for i in range(index) if has_same_tasks(settings[i].first, setting.first))
        base = next(earlier, None)
        if base is None:
            continue
        for old, new in _matches(settings[base].first, setting.first):
            pairs = [(b, a) for a, b in pair_repeats(settings[base], setting)]
            found = compare(*_paired_scores(pairs, new, old), seed)
            head = {"setting": index, "society": new.label, "against": old.label, "against_setting": base}
            rows.append({**head, "matched": "settings", **found})
    return rows


def _matches(first: RunRecord, second: RunRecord) -> list[tuple[Member, Member]]:
    """Societies of equal name, or the first ones where no name is common."""
    others = {member.label: member for member in _mains(second)}
    same = [(member, others[member.label]) for member in _mains(first) if member.label in others]
    return same or list(zip(_mains(first)[:1], _mains(second)[:1], strict=False))


def _paired_scores(
    pairs: Sequence[tuple[RunRecord, RunRecord]], member: Member, other: Member
) -> tuple[Scores, Scores]:
    mine: dict[tuple[str, int], float] = {}
    theirs: dict[tuple[str, int], float] = {}
    for repeat, (a, b) in enumerate(pairs):
        mine |= _at(repeat, scores_of(a, member))
        theirs |= _at(repeat, scores_of(b, other))
    return mine, theirs


def _at(repeat: int, scores: Mapping[str, float]) -> dict[tuple[str, int], float]:
    return {(task, repeat): value for task, value in scores.items()}


def _variances(settings: Sequence[Setting], rows: Sequence[Row]) -> list[Row]:
    """One-way analyses over the accuracies of repeats: of a setting's societies, and of the settings of a society.

    Where every setting has one society, they are taken for the same one under whatever name. Settings on other tasks
    are not mixed.
    """
    tested = [row for row in rows if not row["is_baseline"]]
    is_one = len(tested) == len(settings)
    families: dict[tuple[str, str, str], list[list[float]]] = {}
    for row in tested:
        setting = settings[row["setting"]]
        tasks = str(setting.first.facts["benchmark"])
        families.setdefault(("society", setting.label, tasks), []).append(row["by_repeat"])
        families.setdefault(("setting", "" if is_one else row["society"], tasks), []).append(row["by_repeat"])
    found = []
    for (factor, at, _), groups in families.items():
        if (result := anova(groups)) is not None:
            head = {"factor": factor, "at": at, "groups": len(groups), "values": sum(map(len, groups))}
            found.append({**head, "f": result.f, "p": result.p, "levene_p": result.levene_p})
    return found


def _curve(index: int, found: Sequence[Curve | None]) -> Row | None:
    """The mean over repeats of self-consistency's accuracy and tokens at each number of samples."""
    curves = [curve for curve in found if curve is not None]
    if not curves:
        return None
    return {
        "setting": index,
        "accuracy": [fmean(values) for values in zip(*(c.accuracy.mean(axis=0).tolist() for c in curves), strict=True)],
        "tokens": [fmean(values) for values in zip(*(c.tokens.tolist() for c in curves), strict=True)],
    }
