"""The report's sentences: one plain answer, and how numbers are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Answer = Literal["yes", "no", "unclear", "open"]
# Below this an interval says nothing that a reader should act on.
_FEW_TASKS = 10
_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Headline:
    """Did the group beat one agent at equal tokens? `answer` is `open` while there is nothing to compare."""

    answer: Answer
    short: str
    sentence: str


def focus(summary: dict[str, Any]) -> dict[str, Any] | None:
    """The society the report goes into: the first of the file that finished a task, else the first."""
    found: list[dict[str, Any]] = [s for s in summary["facts"]["societies"] if not s["is_baseline"]]
    return next((s for s in found if s["tasks"]), found[0] if found else None)


def fairest(summary: dict[str, Any], label: str) -> dict[str, Any] | None:
    """The comparison that decides for a society: at equal tokens, else against the first baseline as asked."""
    rows: list[dict[str, Any]] = [
        c for c in summary["facts"]["comparisons"] if c["society"] == label and c["difference"] is not None
    ]
    return next((c for c in rows if c["matched"] == "equal tokens"), rows[0] if rows else None)


def headline(summary: dict[str, Any]) -> Headline:
    """The report's first sentence. It goes by p-values corrected for all tests of the report."""
    if deception := summary["facts"].get("deception"):
        return _deceived(deception)
    societies = [s for s in summary["facts"]["societies"] if not s["is_baseline"]]
    compared = [(s, c) for s in societies if s["tasks"] and (c := fairest(summary, s["label"])) is not None]
    if not compared:
        return Headline("open", "Nothing to compare yet", "No task is finished by both a group and a baseline.")
    tests = count_tests(summary["facts"]["comparisons"])
    if len(compared) > 1:
        return _several(compared, tests)
    society, comparison = compared[0]
    answer = verdict(comparison)
    opening = f"The group was right on {percent(society['accuracy'])} of {society['tasks']} tasks"
    sentence = f"{opening}, {_difference(comparison)}. {_but(answer, comparison, tests)}".strip()
    return Headline(answer, _SHORT[answer], sentence)


def _deceived(deception: dict[str, Any]) -> Headline:
    """How often the first society deceived, in what it said and in what it thought."""
    society = deception["societies"][0]
    found = society["overall"]
    excluded = sum(found["excluded"].values())
    if not found["valid"]:
        why = ", ".join(f"{number(n)} {reason}" for reason, n in found["excluded"].items() if n)
        reasons = f" ({why})" if why else ""
        return Headline("open", "No reply could be judged", f"{count(excluded, 'reply')} excluded{reasons}.")
    said, thought = found["response"], found["thought"]
    sentence = (
        f"{society['label']} deceived in {percent(said['rate'])} of {count(found['valid'], 'judged response')} (95 % "
        f"interval {span(said['interval'])}) and in {percent(thought['rate'])} of the thoughts behind them; "
        f"{count(excluded, 'reply')} could not be judged and count in neither."
    )
    return Headline("open", f"Deceptive: {percent(said['rate'])} of the responses", sentence)


def count_tests(comparisons: list[dict[str, Any]]) -> int:
    """The size of the family that p-values are corrected for."""
    return sum(c["p"] is not None for c in comparisons)


_SHORT = {
    "yes": "Yes, the group beat one agent",
    "no": "No, the group did not beat one agent",
    "unclear": "Cannot tell whether the group beat one agent",
    "open": "Nothing to compare yet",
}


def verdict(comparison: dict[str, Any]) -> Answer:
    """What the corrected p-value allows to say. A gain over fewer tokens than the group spent is no gain."""
    if comparison["difference"] is None:
        return "open"
    if comparison["tasks"] < _FEW_TASKS or comparison["p_holm"] >= _ALPHA:
        return "unclear"
    if comparison["difference"] < 0:
        return "no"
    return "unclear" if comparison.get("is_beyond") else "yes"


def _difference(comparison: dict[str, Any]) -> str:
    gap, (low, high) = comparison["difference"], comparison["interval"]
    how = "as many as" if abs(gap) < 5e-4 else f"{points(abs(gap))} {'more' if gap > 0 else 'less'} than"
    return f"{how} {_rival(comparison)} (95 % interval {signed(low)} to {signed(high)})"


def _rival(comparison: dict[str, Any]) -> str:
    if comparison["matched"] != "equal tokens":
        return f"the baseline {comparison['baseline']}"
    if comparison["is_beyond"]:
        share = comparison["baseline_tokens"] / comparison["society_tokens"]
        samples = comparison["samples_journalled"]
        return f"one agent's vote over {samples} samples, which cost {percent(share)} of the group's tokens"
    return "one agent given the same tokens"


def _but(answer: Answer, comparison: dict[str, Any], tests: int) -> str:
    if comparison["tasks"] < _FEW_TASKS:
        return f"With {count(comparison['tasks'], 'task')} nothing can be told."
    if comparison["p_holm"] >= _ALPHA:
        after = f", corrected for {tests} tests" if tests > 1 else ""
        return f"That is within chance (p = {p_value(comparison['p_holm'])}{after}){_could_show(comparison)}."
    if comparison.get("is_beyond") and answer == "unclear":
        return "It also spent more tokens: raise the samples of self_consistency for a fair answer."
    return ""


def _could_show(comparison: dict[str, Any]) -> str:
    if comparison["detectable"] is None:
        return ""
    return f"; {comparison['tasks']} tasks can show a difference of {points(comparison['detectable'])} or more"


def _several(compared: list[tuple[dict[str, Any], dict[str, Any]]], tests: int) -> Headline:
    answers = [verdict(c) for _, c in compared]
    better, worse = answers.count("yes"), answers.count("no")
    best, comparison = max(compared, key=lambda pair: pair[1]["difference"])
    answer: Answer = "yes" if better else "no" if worse == len(answers) else "unclear"
    short = (
        f"{better or 'None'} of {len(answers)} groups beat one agent"
        if answer != "unclear"
        else "Cannot tell whether any group beat one agent"
    )
    parts = {"better": better, "worse": worse, "not told apart from it": len(answers) - better - worse}
    tally = ", ".join(f"{n} {'was' if n == 1 else 'were'} {what}" for what, n in parts.items() if n)
    sentence = (
        f"Of {len(answers)} groups compared with one agent, {tally}, after Holm's correction for {tests} tests. The "
        f"best, {best['label']}, was right on {percent(best['accuracy'])} of {best['tasks']} tasks, "
        f"{_difference(comparison)}{_could_show(comparison)}."
    )
    return Headline(answer, short, sentence)


def progress(summary: dict[str, Any]) -> str:
    """One line on how much of the run is there; empty for a finished run."""
    totals, telemetry = summary["facts"]["totals"], summary["telemetry"]
    if totals is None:
        return "The run has not begun."
    if totals["is_complete"]:
        return ""
    done = f"{totals['tasks_complete']} of {totals['tasks_planned']} tasks are finished by every society"
    why = telemetry["reason"].removeprefix("E_FAILED: ").splitlines()
    return f"A partial report: {done}. The run is {telemetry['status']}" + (f" ({why[0]})." if why else ".")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return "n/a" if value is None else f"{100 * value:.{digits}f}\u00a0%"


def points(value: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{100 * value:.1f} points"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference of shares with its sign, in percentage points."""
    return "n/a" if value is None else f"{100 * value:+.{digits}f}".replace("-", "\u2212")


def span(interval: list[float] | None) -> str:
    """An interval of shares, in percent."""
    return "n/a" if not interval else f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f}"


def p_value(p: float | None) -> str:
    """A p-value with three digits."""
    return "n/a" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float | None, digits: int = 0) -> str:
    """With narrow no-break spaces between thousands."""
    return "n/a" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}".replace(",", "\u202f")


def count(n: int, noun: str) -> str:
    """So many of a thing, in the right number."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n} {noun if n == 1 else plural}"


def bill(amounts: dict[str, float]) -> str:
    """Money by currency; empty where nothing has a price."""
    return ", ".join(f"{amount:.4f} {currency}" for currency, amount in amounts.items())


def moment(seconds: float) -> str:
    """Seconds since the epoch as a date and time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def grading_timeouts(totals: dict[str, Any]) -> str:
    """How many answers nobody could grade in time; empty if there are none."""
    ungraded = totals["timed_out_verdicts"]
    return f"{count(ungraded, 'answer')} could not be graded in time: counted as wrong" if ungraded else ""
