"""The evaluation of a policy on one screen of a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from coterie.experiments.evaluation.worlds import show_density
from coterie.experiments.records.training import SCORES
from coterie.experiments.report.layout import break_label, make_table, plain
from coterie.experiments.report.training_terminal import head, show_estimate, show_metric
from coterie.experiments.report.wording import count, percent

SHOWN = (
    "success", "reached", "collision", "drone_collision", "obstacle_collision", "wall_hits", "distance_1s",
    "flight_time",
)  # fmt: skip
_LABEL = 16


def print_evaluation(found: dict[str, Any], console: Console) -> None:
    """Show what `evaluation.policy.evaluate` found: a row for each cell."""
    conditions, checkpoint = found["conditions"], found["checkpoint"]
    actions = "the likeliest action" if conditions["is_deterministic"] else "drawn actions"
    console.print(plain(
        f"{str(checkpoint['which']).capitalize()} checkpoint, after iteration {checkpoint['iteration']}; {actions}; "
        f"{count(conditions['episodes'], 'episode')} each, seed {conditions['seed']}"
    ))  # fmt: skip
    console.print(_table(found["cells"]))
    console.print(plain("Below each number its 95 % interval, by a bootstrap over episodes."))
    if difference := tell_difference(found):
        console.print(plain(difference))
    for cell in found["cells"]:
        if attention := cell.get("attention"):
            console.print(plain(f"Attends, {' '.join(_label(cell).split())}: {tell_attention(attention)}"))


def tell_difference(found: dict[str, Any]) -> str:
    """That the training, which draws its actions, showed something else where it was; empty where it did not."""
    cell = next((cell for cell in found["cells"] if found["trained"].items() <= cell.items()), None)
    ending = found.get("training")
    if cell is None or not ending or not found["conditions"]["is_deterministic"]:
        return ""
    name = next((name for name in SCORES if name in ending["metrics"]), "")
    here, there = cell["metrics"].get(name), ending["metrics"].get(name)
    if here is None or here["low"] <= there <= here["high"]:
        return ""
    return (
        f"Here {name} is {show_metric(name, here['value'])}; in the last {count(ending['iterations'], 'iteration')} of "
        f"the training, with drawn actions, it was {show_metric(name, there)}. --stochastic draws them here, too."
    )


def tell_attention(attention: dict[str, Any]) -> str:
    """What a policy attends to, in words."""
    places = [f"neighbour {k} {percent(weight)}" for k, weight in enumerate(attention["neighbours"], 1)]
    places += [] if attention["obstacles"] is None else [f"obstacles {percent(attention['obstacles'])}"]
    even = "" if attention["evenness"] is None else f"; {percent(attention['evenness'])} of the most even"
    return ", ".join(places) + even


def _table(cells: list[dict[str, Any]]) -> Table:
    there = {name: None for cell in cells for name in cell["metrics"]}
    shown = [name for name in SHOWN if name in there] if "success" in there else list(there)
    table = make_table("", list(map(head, shown)))
    for cell in cells:
        metrics = [show_estimate(name, cell["metrics"].get(name)) for name in shown]
        table.add_row(*map(plain, (_label(cell), *metrics)))
    return table


def _label(cell: dict[str, Any]) -> str:
    """Where it was flown, a line for each part, as the numbers need the width."""
    scenario = cell["scenario"] if isinstance(cell["scenario"], str) else ", ".join(cell["scenario"])
    parts = [] if cell["density"] is None else [show_density(cell["density"])]
    parts += [count(cell["agents"], "agent")] if cell["agents"] else []
    return "\n".join(filter(None, (break_label(scenario, _LABEL), *parts)))
