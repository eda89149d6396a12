"""The summary of a society's training on one screen of a terminal; plain where the output is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from rich.console import Console, RenderableType
from rich.table import Table

from coterie.experiments.monitoring.display_updates import Line, make_curves, show
from coterie.experiments.records.updates import Curve
from coterie.experiments.report.layout import break_label, make_table, plain
from coterie.experiments.report.wording import count, duration, number, percent, signed

SHOWN = (
    "right/", "reward/", "truth/", "judge/precision", "judge/recall", "judge/youden", "judge/unread",
    "judge/own_evaluations", "judge/own_scores", "judge/contradictions", "learning/entropy", "learning/kl",
    "learning/reference_kl", "learning/mismatch_kl", "length/", "speed/",
)  # fmt: skip
POLICY = {
    "loss": "loss", "entropy": "entropy", "kl": "KL", "reference_kl": "KL to\nstart", "mismatch_kl": "mis-\nmatch",
    "clipped": "clipped", "dropped": "dropped", "gradient_norm": "gradient",
}  # fmt: skip
"""The learner's metrics of each policy, and what their columns are headed with."""
_NARROW = ("entropy", "kl", "reference_kl", "mismatch_kl", "clipped", "gradient_norm")
_MOST_POLICIES = 12
_STYLES = {"yes": "bold green", "no": "bold red", "": "bold yellow"}
_TINY = 1e-9


def print_learning(summary: dict[str, Any], console: Console) -> None:
    """Show a training's summary: how far it is, how everything went, where the time went."""
    for part in _parts(summary):
        console.print(part)


def headline(learning: dict[str, Any]) -> str:
    """How often the solvers are right, in the first and in the last quarter of the iterations."""
    solver = next((curve for curve in learning["curves"] if curve["key"] == "right/solver"), None)
    if solver is None:
        return "Nothing is learnt yet"
    if learning["iterations"] < 2:
        return f"Solvers are right in {percent(solver['last'])} of their answers"
    return f"Solvers: from {percent(solver['first'])} right to {percent(solver['last'])}{_unclear(learning)}"


def direction(learning: dict[str, Any]) -> Literal["yes", "no", ""]:
    """Whether the solvers got better, or worse, by more than chance does; empty where nobody can tell."""
    change = learning["change"]
    if change is None or change["interval"][0] <= 0 <= change["interval"][1]:
        return ""
    return "yes" if change["difference"] > 0 else "no"


def _unclear(learning: dict[str, Any]) -> str:
    is_open = learning["change"] is not None and not direction(learning)
    return ", no change that so few tasks can show" if is_open else ""


def sentence(learning: dict[str, Any], seconds: float) -> str:
    """What was done, and what numbers are means over."""
    done = f"{learning['iterations']} of {count(learning['planned'], 'iteration')}"
    what = (
        f"{done} with {count(learning['episodes'], 'episode')} on {count(learning['tasks'], 'task')} "
        f"and {number(learning['tokens'])} generated tokens in {duration(seconds)}"
    )
    if learning["iterations"] < 2:
        return f"{what}."
    size = learning["quarter"]
    over = f"the first and the last {size} iterations" if size > 1 else "the first and the last iteration"
    return f"{what}; numbers compare {over}.{_how_sure(learning['change'])}"


def _how_sure(change: dict[str, Any] | None) -> str:
    """The solvers' difference with its interval, and what it is of."""
    if change is None:
        return ""
    answers, tasks, (low, high) = change["answers"], change["tasks"], change["interval"]
    shared = f"{change['common']} of them in both" if change["common"] else "none in both"
    return (
        f" Solvers differ by {signed(change['difference'])} points (95 % interval {signed(low)} to {signed(high)}, "
        f"counting tasks): {count(answers['first'], 'answer')} to {count(tasks['first'], 'task')} against "
        f"{count(answers['last'], 'answer')} to {tasks['last']}, {shared}."
    )


def lines_of(rows: Sequence[dict[str, Any]], keys: Sequence[str] = SHOWN) -> list[Line]:
    """Curves of a summary with their means over the first and the last quarter."""
    wanted = [row for row in rows if row["key"] in keys or f"{row['group']}/" in keys]
    return [
        Line(Curve(row["key"], row["label"], row["form"], row["values"]), row["first"], row["last"]) for row in wanted
    ]


def _parts(summary: dict[str, Any]) -> Iterator[RenderableType]:
    learning, telemetry = summary["facts"]["learning"], summary["telemetry"]
    yield plain(headline(learning), _STYLES[direction(learning)])
    yield plain(sentence(learning, telemetry["totals"]["seconds"]))
    if learning["iterations"]:
        yield ""
        yield make_curves(lines_of([*learning["curves"], *telemetry["curves"]]))
        yield plain("\nThe last iteration:")
        yield _policies(learning["policies"])
    if (more := len(learning["policies"]) - _MOST_POLICIES) > 0:
        yield plain(f"... and {count(more, 'more')}")
    yield from map(plain, _closing(summary))


def _policies(policies: Sequence[dict[str, Any]]) -> Table:
    """What the last iteration was like for each policy."""
    names = [name for name in _NARROW if any(name in policy["learning"] for policy in policies)]
    table = make_table("policy", ["tokens", *(POLICY[name] for name in names)])
    for policy in policies[:_MOST_POLICIES]:
        learnt = policy["learning"]
        cells = [show(learnt.get(name), "share" if name in ("clipped", "dropped") else "number") for name in names]
        table.add_row(*map(plain, (break_label(policy["policy"]), number(learnt.get("tokens", 0.0)), *cells)))
    return table


def _closing(summary: dict[str, Any]) -> Iterator[str]:
    learning, telemetry = summary["facts"]["learning"], summary["telemetry"]
    totals = telemetry["totals"]
    if scores := learning["scores"]:
        right, wrong = ("/".join(map(number, scores[kind])) for kind in ("right", "wrong"))
        yield f"Scores 1/2/3 in the last quarter: right solutions {right}, wrong ones {wrong}"
    rate = f", {number(totals['tokens_per_second'])} tokens/s in rollouts" if totals["tokens_per_second"] else ""
    codes = ", ".join(f"{n} x {code}" for code, n in telemetry["failures"]["by_code"].items())
    attempts = f"{duration(totals['seconds'])} in {count(totals['attempts'], 'attempt')}"
    yield f"Time: {attempts}{rate}; {f'failures: {codes}' if codes else 'no failures'}"
    whole = max(sum(totals["parts"].values()), _TINY)
    if totals["parts"]:
        yield "Of it: " + ", ".join(f"{name} {percent(seconds / whole)}" for name, seconds in totals["parts"].items())
    if learning["held_out"]:
        yield f"Held out: {count(learning['held_out'], 'task')}; compare with the untrained policies: coterie eval"
    yield f"Digest: {summary['facts']['digest']}"
