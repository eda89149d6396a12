"""A study on one screen of a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from coterie.experiments.report.layout import break_label, make_table, plain
from coterie.experiments.report.wording import count, p_value

Row = dict[str, Any]
_CREDITS = {
    "leave_one_out": "leave one out", "sway": "sway", "shapley": "Shapley", "counterfactual": "counterfactual",
}  # fmt: skip
_NOTES = (
    "rho: Spearman's rank correlation of a measure with a credit from replays, which is a mean over its draws; pooled "
    "over all agents of all episodes, and within: a mean over the episodes in which both tell agents apart; adjusted: "
    "within, with each seat's mean taken from the measure. 95 %: over resampled episodes. p: agents permuted within "
    "episodes, two-sided; Holm: for all tests of `within` here. attention: the share of the answer that flows back to "
    "an agent; heard: what others attend to its words where they read them. sway: the share of the others that end "
    "with another answer where an agent says nothing. halves: what one half of a credit's draws says of the other; no "
    "measure can be expected to say more."
)


def print_study(found: Row, console: Console) -> None:
    """Show what `study.results.study_results` found."""
    console.print(plain(describe(found)))
    console.print(_rows(found["rows"]))
    console.print(_societies(found["societies"]))
    for row in found["societies"]:
        console.print(plain(noise_floor(row, found["draws"])))
    console.print(plain(_NOTES, "dim"))


def describe(found: Row) -> str:
    """What was done, in a sentence."""
    episodes, replays = count(found["episodes"], "episode"), f"{found['replays']} replays"
    return f"{found['name']}: {episodes}, {replays}, {found['draws']} draws of each coalition, seed {found['seed']}."


def _rows(rows: list[Row]) -> Table:
    table = make_table("credit ~ measure", ["", "over", "rho", "95 %", "p", "Holm"])
    society = ""
    for row in rows:
        if row["society"] != society:
            society = row["society"]
            table.add_row(plain(break_label(society), "bold"))
        pooled, within = row["pooled"], row["within"]
        label = f" {_CREDITS[row['credit']]} ~ {row['measure']}"
        first = label, "pooled", str(row["episodes"]), *_estimate(pooled), _p(pooled["p"]), ""
        second = "", "within", str(row["informative"]), *_estimate(within), _p(within["p"]), _p(within.get("p_holm"))
        third = "", "adjusted", "", *_estimate(row["adjusted"]), _p(row["adjusted"]["p"]), ""
        for cells in (first, second, third):
            table.add_row(*map(plain, cells))
    return table


def _societies(societies: list[Row]) -> Table:
    table = make_table("credit", ["over", "size", "nothing\n%", "halves", "95 %"])
    for row in societies:
        table.add_row(plain(break_label(row["society"]), "bold"))
        for name, credit in row["credits"].items():
            size = str(credit["episodes"]), f"{credit['size']:.3f}", f"{100 * credit['nothing']:.0f}"
            table.add_row(*map(plain, (f" {_CREDITS[name]}", *size, *_estimate(credit["halves"]["within"]))))
    return table


def noise_floor(row: Row, draws: int) -> str:
    """What a society reached, and how much of it is chance, in a sentence."""
    noise = row["noise"]
    return (
        f"{row['society']}: {100 * row['accuracy']:.1f} % right. Noise floor: unchanged episodes spread by "
        f"{noise['draw']:.3f} from draw to draw, two means of {draws} draws by {noise['difference']:.3f}."
    )


def _estimate(found: Row) -> tuple[str, str]:
    if found["value"] is None:
        return "n/a", ""
    if found["low"] is None:
        return f"{found['value']:+.2f}", ""
    return f"{found['value']:+.2f}", f"{found['low']:+.2f}, {found['high']:+.2f}"


def _p(value: float | None) -> str:
    return "n/a" if value is None else p_value(value)
