"""How a society's training went, as a picture: a panel for what belongs together, a line for each quantity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.experiments.report.canvas import ON_WHITE, THEMED, WIDTH, Palette, draw, draw_png, limits
from coterie.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT, _COLUMNS = 2.35, 2
_MOST_LINES = 6
"""In a panel of policies; more of them are drawn alike, without names."""
_TITLE = "What was measured in each iteration of the training"


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Attributes:
        title: What is drawn.
        lines: By name, a value for each iteration; None is a gap.
        is_share: In percent.
    """

    title: str
    lines: Mapping[str, Sequence[float | None]]
    is_share: bool = False


# Title, the keys of its curves (a group with a stroke at its end), whether they are shares.
_PANELS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("right, % of answers", ("right/solver", "right/society"), True),
    ("reward per turn, by role", ("reward/",), False),
    ("solvers' reward, by truth", ("truth/if_right", "truth/if_wrong"), False),
    ("agreement with the truth, -1 to 1", ("truth/correlation", "judge/correlation", "judge/youden"), False),
    ("judges, %", ("judge/base_rate", "judge/precision", "judge/recall"), True),
    ("what goes wrong in judging, %", ("judge/unread", "judge/own_scores", "judge/contradictions"), True),
    ("tokens per turn, by role", ("length/",), False),
    ("replies cut at their limit, %", ("cut/",), True),
    ("generated tokens per second, in rollouts", ("speed/tokens_per_second",), False),
)
_OF_POLICIES = (
    ("entropy", "entropy of each policy, nats per token"), ("kl", "KL of each policy's update, nats per token"),
    ("reference_kl", "KL of each policy to its start"), ("mismatch_kl", "KL between engine and learner, by policy"),
)  # fmt: skip


def panels_of(curves: Sequence[dict[str, Any]], policies: Sequence[dict[str, Any]]) -> list[Panel]:
    """Those that have anything to show, from the rows of a summary."""
    shown = [_panel(title, [c for c in curves if c["key"] in keys or f"{c['group']}/" in keys], is_share)
             for title, keys, is_share in _PANELS]  # fmt: skip
    own = [Panel(title, {p["policy"]: p["curves"][metric] for p in policies if metric in p["curves"]})
           for metric, title in _OF_POLICIES]  # fmt: skip
    head = len(shown) - 3
    return [panel for panel in (*shown[:head], *own, *shown[head:]) if panel.lines]


def _panel(title: str, curves: Sequence[dict[str, Any]], is_share: bool) -> Panel:
    return Panel(title, {curve["label"]: curve["values"] for curve in curves}, is_share)


def learning_plot(panels: Sequence[Panel]) -> str:
    """As inline SVG in the page's colours."""
    return draw("learning", _TITLE, _size(panels), lambda figure: _paint(figure, panels, THEMED))


def learning_picture(panels: Sequence[Panel]) -> bytes:
    """As a PNG."""
    return draw_png(_size(panels), lambda figure: _paint(figure, panels, ON_WHITE))


def _size(panels: Sequence[Panel]) -> tuple[float, float]:
    return WIDTH, _HEIGHT * -(-len(panels) // _COLUMNS) + 0.1


def _paint(figure: Figure, panels: Sequence[Panel], palette: Palette) -> None:
    wide, high = _size(panels)
    rows = -(-len(panels) // _COLUMNS)
    for index, panel in enumerate(panels):
        row, column = divmod(index, _COLUMNS)
        bottom = 0.42 + _HEIGHT * (rows - 1 - row)
        axes = figure.add_axes((0.075 + 0.5 * column, bottom / high, 0.41, (_HEIGHT - 0.95) / high))
        _draw(axes, panel, palette)
        if index >= len(panels) - _COLUMNS:
            axes.set_xlabel("iteration")


def _draw(axes: Axes, panel: Panel, palette: Palette) -> None:
    lines = list(_lines(panel))
    for place, (name, values) in enumerate(lines):
        number = np.arange(1, len(values) + 1)
        style = "o" if np.isfinite(values).sum() == 1 else "-"
        colour = palette.series[place % len(palette.series)]
        axes.plot(number, values, style, color=colour, lw=1.6, ms=4, label=clean(name), solid_capstyle="round")
    axes.set_title(panel.title, loc="left", fontsize=9.5, color=palette.muted, pad=20 if _is_named(panel) else 6)
    count = max(len(values) for _, values in lines)
    axes.set_xlim(1 - 0.02 * count, count + 0.02 * count + (count == 1))
    _scale(axes, panel, [values for _, values in lines])
    axes.tick_params(axis="y", colors=palette.muted)
    axes.grid(axis="y")
    if _is_named(panel):
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=len(lines), frameon=False, fontsize=7.6,
                    handlelength=1.0, columnspacing=0.9, handletextpad=0.4, borderpad=0)  # fmt: skip


def _scale(axes: Axes, panel: Panel, lines: Sequence[np.ndarray[Any, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    # A factor of all labels would stand above the axis, where the names of the lines are.
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(*limits(np.concatenate(lines), is_share=panel.is_share))


def _lines(panel: Panel) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for name, values in panel.lines.items():
        numbers = np.asarray([np.nan if value is None else value for value in values], np.float64)
        if np.isfinite(numbers).any():
            yield name, numbers * (100 if panel.is_share else 1)


def _is_named(panel: Panel) -> bool:
    return 1 < len(panel.lines) <= _MOST_LINES
