"""Learning curves as a picture: a panel for each metric, a line with a band for each group of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from coterie.experiments.comparison.learning_curves import SHARES, Group, label
from coterie.experiments.report.canvas import ON_WHITE, THEMED, WIDTH, Palette, draw, draw_png, limits
from coterie.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "reward": "reward per episode", "success": "success, % of drones", "collision": "collision, % of drones",
    "distance_1s": "distance to the goal at the end, m", "length": "ticks per episode",
    "right/solver": "solver accuracy, %", "reward/answer": "reward of solvers, per turn",
    "reward/evaluate": "reward of evaluators, per turn", "judge/youden": "Youden's J of judges, -1 to 1",
    "learning/entropy": "entropy of policies, nats per token",
}  # fmt: skip
"""What panels show; up to the comma, what sentences call a metric."""
_PANEL_HEIGHT, _LEGEND_ROW = 2.1, 0.24
_PER_ROW = 3


def learning_plot(groups: Sequence[Group]) -> str:
    """As inline SVG in the page's colours."""
    shows = f"Metrics of training over {groups[0].kind.unit}"
    return draw("learning", shows, _size(groups), lambda figure: _paint(figure, groups, THEMED))


def learning_picture(groups: Sequence[Group]) -> bytes:
    """As a PNG."""
    return draw_png(_size(groups), lambda figure: _paint(figure, groups, ON_WHITE))


def _rows(groups: Sequence[Group]) -> int:
    return -(-len(groups[0].metrics) // 2)


def _legend(groups: Sequence[Group]) -> float:
    return 0.1 + _LEGEND_ROW * -(-len(groups) // _PER_ROW) if len(groups) > 1 else 0.0


def _size(groups: Sequence[Group]) -> tuple[float, float]:
    return WIDTH, _PANEL_HEIGHT * max(_rows(groups), 1) + _legend(groups) + 0.08


def _paint(figure: Figure, groups: Sequence[Group], palette: Palette) -> None:
    wide, high = _size(groups)
    rows, count = max(_rows(groups), 1), len(groups[0].metrics)
    for index, metric in enumerate(groups[0].metrics):
        row, column = divmod(index, 2)
        bottom = 0.45 + _PANEL_HEIGHT * (rows - 1 - row)
        axes = figure.add_axes((0.075 + 0.5 * column, bottom / high, 0.41, (_PANEL_HEIGHT - 0.62) / high))
        _panel(axes, groups, metric, palette)
        if index >= count - 2:
            axes.set_xlabel(groups[0].kind.unit)
    if len(groups) > 1:
        # Legends are filled column by column, and read line by line.
        order = [i for column in range(_PER_ROW) for i in range(column, len(groups), _PER_ROW)]
        figure.legend(
            *zip(*[_key(groups, i, palette) for i in order], strict=True), loc="upper left", frameon=False,
            bbox_to_anchor=(0.06, 1), ncols=_PER_ROW, borderpad=0.2, handlelength=1.2, columnspacing=1.4,
        )  # fmt: skip


def _panel(axes: Axes, groups: Sequence[Group], metric: str, palette: Palette) -> None:
    from matplotlib.ticker import EngFormatter

    factor, shown = 100 if metric in SHARES else 1, []
    for index, group in enumerate(groups):
        band, colour = group.band(metric), _colour(index, palette)
        value, low, high = (factor * part for part in (band.value, band.low, band.high))
        shown += [value, low, high]
        axes.fill_between(group.used, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(group.used, value, _dashes(index, palette), color=colour, lw=1.8, solid_capstyle="round")
    axes.set_title(title(metric), loc="left", fontsize=9.5, color=palette.muted)
    axes.set_xlim(0, max(float(group.used[-1]) for group in groups if len(group.used)))
    axes.set_ylim(*limits(np.concatenate(shown), is_share=metric in SHARES))
    axes.xaxis.set_major_formatter(EngFormatter(sep="\u202f"))
    axes.locator_params(axis="x", nbins=5)
    axes.locator_params(axis="y", nbins=5)
    axes.tick_params(axis="y", colors=palette.muted)
    axes.grid(axis="y")


def title(metric: str) -> str:
    """Of a metric's panel."""
    return TITLES.get(metric, clean(metric).replace("_", " "))


def _key(groups: Sequence[Group], index: int, palette: Palette) -> tuple[object, str]:
    from matplotlib.lines import Line2D

    group = groups[index]
    line = Line2D([], [], color=_colour(index, palette), lw=2.2, ls=_dashes(index, palette))
    return line, f"{clean(label(groups, group))} ({len(group.runs)})"


def _colour(index: int, palette: Palette) -> str:
    return palette.series[index % len(palette.series)]


def _dashes(index: int, palette: Palette) -> str:
    return ("-", "--", ":", "-.")[index // len(palette.series) % 4]


def has_anything(groups: Sequence[Group]) -> bool:
    """Whether any episode has ended: else there is nothing to draw."""
    return any(np.isfinite(values).any() for group in groups for values in group.metrics.values())
