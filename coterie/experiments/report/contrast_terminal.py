"""Two runs side by side, on a terminal."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from coterie.experiments.report.terminal import make_table, plain
from coterie.experiments.report.wording import number, p_value, percent, signed


def print_contrast(found: dict[str, Any], console: Console) -> None:
    """Show what `contrasts.contrast` found; the second run is compared with the first."""
    console.print(plain(f"first:  {found['first']['name']}  digest {found['first']['digest'][:12]}"))
    console.print(plain(f"second: {found['second']['name']}  digest {found['second']['digest'][:12]}"))
    if found["same_digest"]:
        console.print(plain("The digests are equal: every fact is the same."))
        return
    heads = ["tasks", "1st %", "2nd %", "diff.", "95 %", "p", "tokens"]
    table = make_table("society", heads)
    for pair in found["pairs"]:
        table.add_row(*map(plain, _cells(pair)), style="dim" if pair["is_baseline"] else "")
    console.print(table)
    console.print(
        plain("Differences are second minus first, in points, on the tasks both runs have finished; p is McNemar's.")
    )
    if found["config"]:
        console.print(plain("What differs in the runs:"))
    for field in found["config"]:
        console.print(plain(f"  {field['path']}: {json.dumps(field['first'])} -> {json.dumps(field['second'])}"))


def _cells(pair: dict[str, Any]) -> tuple[str, ...]:
    first, second = pair["first"], pair["second"]
    label = first["society"] if first["society"] == second["society"] else f"{first['society']} / {second['society']}"
    low, high = pair["interval"] or (None, None)
    shares = [percent(side["accuracy"]).removesuffix("\u00a0%") for side in (first, second)]
    tokens = [number(side["cost_per_task"]["tokens"] if side["cost_per_task"] else None) for side in (first, second)]
    return (
        label, str(pair["tasks"]), *shares, signed(pair["difference"]),
        "n/a" if low is None else f"{signed(low, 0)} to {signed(high, 0)}", p_value(pair["p"]), ", ".join(tokens),
    )  # fmt: skip
