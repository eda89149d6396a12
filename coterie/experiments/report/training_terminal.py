"""The summary of a training run on one screen of a terminal; plain where the output is none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from coterie.experiments.comparison import learning_curves
from coterie.experiments.differences import within_kinds
from coterie.experiments.monitoring.display_plain import short
from coterie.experiments.report.layout import break_label, make_table, plain
from coterie.experiments.report.learning import title
from coterie.experiments.report.society_evaluation_terminal import show_interval
from coterie.experiments.report.wording import count, duration, number, p_value, percent, signed

SHARES = (*learning_curves.SHARES, "density")
"""Metrics that are shares, and shown in percent."""
UNITS = {"distance_1s": "m", "distance_5s": "m", "flight_time": "s", "length": "steps", "learning/entropy": "nats"}
HEADS = {
    "success": "succ.", "reached": "reach", "collision": "coll.", "drone_collision": "drone",
    "obstacle_collision": "obst.", "wall_hits": "walls", "distance_1s": "dist.",
    "distance_5s": "dist. 5s", "flight_time": "flight", "right/solver": "right\nsolvers",
    "reward/answer": "reward\nsolving", "reward/evaluate": "reward\njudging", "judge/youden": "Youden's\nJ",
    "learning/entropy": "entropy",
}  # fmt: skip
DIGITS = {"reward/answer": 3, "reward/evaluate": 3, "judge/youden": 3, "learning/entropy": 4}
_SECONDS_OF_NOTHING = 1e-9
_MOST_DIFFERENCES = 30
_LABEL = 16


def print_training(summary: dict[str, Any], console: Console) -> None:
    """Show a training's summary: how far it is, how good the policy was in the end, where the time went."""
    for part in _parts(summary):
        console.print(part)


def show_metric(name: str, value: float | None) -> str:
    """A metric as people write it."""
    if value is None:
        return ""
    if name in SHARES:
        return percent(value)
    digits = DIGITS.get(name, 2 if abs(value) < 100 else 0)
    return f"{number(value, digits)} {UNITS.get(name, '')}".strip()


def _parts(summary: dict[str, Any]) -> Iterator[RenderableType]:
    training, totals = summary["facts"]["training"], summary["telemetry"]["totals"]
    done = f"{number(training['agent_steps'])} of {number(training['planned'])} agent-steps"
    yield plain(f"Trained for {done}, {count(training['iterations'], 'iteration')}",
                "bold green" if training["is_complete"] else "bold yellow")  # fmt: skip
    if training["final"]["metrics"]:
        yield _final(training["final"])
    elif training["iterations"]:
        yield plain(tell_no_episode(summary["facts"]["run"]["config"], training["is_complete"]), "yellow")
    if best := training["best"]:
        yield plain(f"Best checkpoint: after iteration {best['iteration']} ({tell_best(best)})")
    yield from map(plain, _times(totals, summary["telemetry"]["attempts"]))
    yield plain(f"Digest: {summary['facts']['digest']}")


def tell_best(best: dict[str, Any]) -> str:
    """How good the policy was before its best checkpoint."""
    return f"{noun(best['metric'])} {show_metric(best['metric'], best['score'])} before it"


def _final(final: dict[str, Any]) -> Table:
    over = f"last {count(final['iterations'], 'iteration')},\nactions drawn as in training"
    table = make_table(over, [f"{number(final['episodes'])} episodes"])
    for name, value in final["metrics"].items():
        table.add_row(plain(name), plain(show_metric(name, value)))
    return table


def tell_no_episode(config: Mapping[str, Any], is_complete: bool) -> str:
    """That no episode ended, and what to do about it."""
    if not is_complete:
        return "No episode has ended yet: go on with `coterie resume`."
    env = config["env"]
    said = "No episode ended, so nothing is known of success: raise `learning.agent_steps`"
    if not {"seconds", "control_hz", "num_envs", "num_drones"} <= env.keys():
        return f"{said}."
    steps = round(env["seconds"] * env["control_hz"]) * env["num_envs"] * env["num_drones"]
    return f"{said} (one episode of all drones takes {number(steps)}), or make `env.seconds` or `env.num_envs` smaller."


def _times(totals: dict[str, Any], attempts: Sequence[dict[str, Any]]) -> Iterator[str]:
    killed = sum(attempt["status"] == "killed" for attempt in attempts)
    known = f"; of {count(killed, 'killed one')} up to the last sign of life" if killed else ""
    yield f"Time: {duration(totals['seconds'])} in {count(totals['attempts'], 'attempt')}{known}"
    rate = totals["agent_steps_per_second"]
    speed = f"; after it {number(rate)} agent-steps/s" if rate else ""
    yield f"Start: {duration(totals['start_seconds'])} of it, for the world, compiling and loading{speed}"
    whole = max(sum(totals["parts"].values()), _SECONDS_OF_NOTHING)
    yield "Of the rest: " + ", ".join(f"{name} {percent(seconds / whole)}" for name, seconds in totals["parts"].items())


def print_trainings(found: dict[str, Any], console: Console) -> None:
    """Show what `training_contrasts.contrast_trainings` found: a table, and what differs in the configs."""
    for label in dict.fromkeys(run["label"] for run in found["runs"]):
        seeds = [f"seed {run['seed']} ({run['digest'][:8]})" for run in found["runs"] if run["label"] == label]
        console.print(plain(f"{label}: {', '.join(seeds)}"))
    console.print(_comparison(found["rows"]))
    used = f"{short(found['amount'])} {found['unit']}"
    console.print(plain(f"Over the last tenth of {used}: interquartile means, 95 % over seeds."))
    if found["pairs"]:
        console.print(plain(f"Probability of a higher {noun(found['pairs'][0]['metric'])}, over all pairs of seeds:"))
    for pair in found["pairs"]:
        span = "" if pair["low"] is None else f" ({100 * pair['low']:.0f}-{100 * pair['high']:.0f})"
        test = f"p {p_value(pair['p'])}, Holm {p_value(pair['p_holm'])}"
        console.print(plain(f"  {pair['label']} against {pair['against']}: {100 * pair['value']:.0f} %{span}, {test}"))
    if any(run["held_out"] for run in found["runs"]):
        console.print(plain("On held-out tasks (coterie eval), trained less untrained, in points, paired:"))
        console.print(_held_out(found["runs"]))
    differing = within_kinds(found["differences"])
    if differing:
        console.print(plain("What differs in the runs:"))
    for field in differing[:_MOST_DIFFERENCES]:
        console.print(plain(f"  {field['path']}: {' -> '.join(map(json.dumps, field['values']))}"))
    if (more := len(differing) - _MOST_DIFFERENCES) > 0:
        console.print(plain(f"  ... and {count(more, 'more field')}: --json"))


def _comparison(rows: Sequence[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    table = make_table("", ["seeds", *map(head, names)])
    for row in rows:
        cells = [show_estimate(name, row["metrics"].get(name)) for name in names]
        table.add_row(*map(plain, (break_label(row["label"], _LABEL), str(row["runs"]), *cells)))
    return table


def _held_out(runs: Sequence[dict[str, Any]]) -> Table:
    """A row for each run and protocol, below the name of their setting."""
    table = make_table("", ["trained\n%", "un-\ntrained", "differ-\nence", "\n95 %", "p\nHolm"])
    for label, mine in groupby(runs, lambda run: run["label"]):
        rows = [(run["seed"], row) for run in mine for row in run["held_out"]]
        table.add_row(plain(label if rows else f"{label}: not evaluated"))
        for seed, row in rows:
            shares = [f"{100 * row[side]:.1f}" for side in ("trained", "untrained")]
            cells = (*shares, signed(row["difference"]), show_interval(row), p_value(row["p_holm"]))
            table.add_row(*map(plain, (f"  {row['protocol']}, seed {seed}", *cells)))
    return table


def noun(name: str) -> str:
    """What a sentence calls a metric."""
    return title(name).partition(",")[0]


def head(name: str) -> str:
    """What a column of `show_estimate` is headed with: a short name, and the unit below it."""
    return f"{HEADS.get(name, name.replace('_', ' '))}\n{'%' if name in SHARES else UNITS.get(name, '')}"


def show_estimate(name: str, found: dict[str, Any] | None) -> str:
    """A metric without its unit, with its interval on the line below, where it has one."""
    if found is None or found["value"] is None:
        return ""
    factor, digits = (100, 1) if name in SHARES else (1, DIGITS.get(name, 2))
    value = f"{factor * found['value']:.{digits}f}"
    if found["low"] is None:
        return value
    low, high = (f"{factor * found[end]:.{digits - 1}f}" for end in ("low", "high"))
    return f"{value}\n{low}{' to ' if found['low'] < 0 else '-'}{high}"
