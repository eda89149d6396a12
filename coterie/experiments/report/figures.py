"""The report's figures: SVG made by matplotlib, themed by the page's CSS, the same to the byte each time."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from coterie.experiments.report.wording import percent
from coterie.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins for the page's CSS variables: matplotlib wants colours, the page wants light and dark.
_INK, _MUTED, _GRID, _SURFACE, _ACCENT = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
_VARIABLES = {
    _INK: "--ink", _MUTED: "--muted", _GRID: "--line", _SURFACE: "--surface", _ACCENT: "--accent",
    "#0a0b06": "--right", "#0a0b07": "--wrong", "#0a0b08": "--unparsed",
}  # fmt: skip
STATE_COLORS = {"right": "#0a0b06", "wrong": "#0a0b07", "unparsed": "#0a0b08"}
_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "coterie", "font.family": "DejaVu Sans", "font.size": 9.5,
    "text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _INK, "text.color": _INK, "grid.color": _GRID,
    "xtick.major.size": 0, "ytick.major.size": 0, "grid.linewidth": 0.8, "axes.axisbelow": True,
}  # fmt: skip
_POINTS_PER_INCH = 72
_WIDTH = 6.6
_LABEL_GAP = 0.055
MANY = 3
"""With more societies than this, figures name them by number."""


def draw(name: str, title: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """An inline SVG element.

    Args:
        name: Unique on the page; prefixes the ids inside.
        title: What the picture shows, for those who do not see it.
        size: In inches.
        paint: Draws on the figure.
    """
    with _style():
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.StringIO()
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    return _inline(buffer.getvalue(), name, title, size)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        yield


def _inline(svg: str, name: str, title: str, size: tuple[float, float]) -> str:
    body = svg[svg.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    width, height = (side * _POINTS_PER_INCH for side in size)
    safe = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (
        f'<svg role="img" aria-label="{safe}" viewBox="0 0 {width:g} {height:g}" style="max-width:{width * 1.4:.0f}px" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{body.rstrip()}'
    )


def accuracy_plot(summary: dict[str, Any]) -> str:
    """Accuracy of every society and baseline with 95 % intervals; self-consistency at equal tokens on the same rows."""
    rows = [s for s in summary["facts"]["societies"] if s["tasks"]]
    equal = {c["society"]: c for c in summary["facts"]["comparisons"] if c["matched"] == "equal tokens"}
    names = _numbered(rows)

    def paint(figure: Figure) -> None:
        left = min(0.42, 0.03 + 0.0125 * max(map(len, names), default=1))
        axes = figure.add_axes((left, 0.42 / height, 0.86 - left, 1 - 0.55 / height))
        for y, row in enumerate(rows):
            _interval(axes, row["accuracy"], row["interval"], y, is_baseline=row["is_baseline"])
            rival = equal.get(row["label"], {}).get("baseline_accuracy")
            if rival is not None:
                axes.plot([rival], [y], "s", ms=7, mfc="none", mec=_INK, mew=1.3, zorder=4)
            axes.text(1.02, y, f"{percent(row['accuracy'])}", va="center", transform=axes.get_yaxis_transform())
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        _percent_axis(axes, "x")
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")

    height = 0.75 + 0.34 * len(rows)
    return draw("accuracy", "Accuracy of every society and baseline with 95 % intervals", (_WIDTH, height), paint)


def _interval(axes: Axes, value: float, interval: Sequence[float], y: float, *, is_baseline: bool) -> None:
    color = _MUTED if is_baseline else _ACCENT
    axes.plot(interval, [y, y], "-", color=color, lw=3, alpha=0.35, solid_capstyle="round")
    face = _SURFACE if is_baseline else color
    axes.plot([value], [y], "D" if is_baseline else "o", ms=7, mfc=face, mec=color, mew=1.6, zorder=3)


def _percent_axis(axes: Axes, which: str) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    labels = [f"{100 * t:.0f} %" for t in ticks]
    if which == "x":
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks(ticks, labels)
    else:
        axes.set_ylim(-0.02, 1.05)
        axes.set_yticks(ticks, labels)
        axes.tick_params(axis="y", colors=_MUTED)


def _numbered(rows: Sequence[dict[str, Any]]) -> list[str]:
    is_many = sum(not row["is_baseline"] for row in rows) > MANY
    return [f"{i}  {clean(r['label'])}" if is_many and not r["is_baseline"] else clean(r["label"]) for i, r in enumerate(rows, 1)]


def curve_plot(summary: dict[str, Any]) -> str:
    """Expected accuracy of self-consistency over its tokens, with every society at its own cost."""
    curve = summary["facts"]["self_consistency"]
    rows = [s for s in summary["facts"]["societies"] if s["tasks"] and not s["is_baseline"]]

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.09, 0.17, 0.87, 0.78))
        tokens, accuracy = curve["tokens"], curve["accuracy"]
        axes.plot(tokens, accuracy, "-", color=_MUTED, lw=2)
        shown = [i for i in range(len(tokens)) if (i + 1) & i == 0 or i == len(tokens) - 1]
        axes.plot([tokens[i] for i in shown], [accuracy[i] for i in shown], "o", ms=4, color=_MUTED)
        for i in shown:
            axes.annotate(str(i + 1), (tokens[i], accuracy[i]), (0, 6), textcoords="offset points", ha="center", color=_MUTED, fontsize=8)
        for row in rows:
            axes.plot([row["cost"]["per_task"]["tokens"]], [row["accuracy"]], "o", ms=7, color=_ACCENT, zorder=3)
        (_label_few if len(rows) <= MANY else _label_many)(axes, rows)
        axes.set_xscale("log")
        _token_ticks(axes, [*tokens, *(row["cost"]["per_task"]["tokens"] for row in rows)])
        axes.set_xlabel("tokens per task (generated + non-cached prompt), logarithmic")
        _percent_axis(axes, "y")
        axes.grid(axis="y")

    return draw("curve", "Accuracy of self-consistency over its tokens, and the societies at theirs", (_WIDTH, 3.3), paint)


def _label_few(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Names beside the points, and intervals."""
    for row in rows:
        x, y = row["cost"]["per_task"]["tokens"], row["accuracy"]
        axes.plot([x, x], row["interval"], "-", color=_ACCENT, lw=3, alpha=0.3, solid_capstyle="round")
        name = clean(row["label"])
        axes.annotate(name, (x, y), (-9, 0), textcoords="offset points", ha="right", va="center", color=_ACCENT)


def _label_many(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Numbers in a column at the right, apart from each other, with a line to their points."""
    order = sorted(range(len(rows)), key=lambda i: rows[i]["accuracy"])
    heights = [rows[i]["accuracy"] for i in order]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + _LABEL_GAP)
    excess = max(0.0, heights[-1] - 1)
    right = max(row["cost"]["per_task"]["tokens"] for row in rows) * 1.13
    for i, y in zip(order, heights, strict=True):
        point = rows[i]["cost"]["per_task"]["tokens"], rows[i]["accuracy"]
        axes.annotate(str(i + 1), point, (right, y - excess), ha="left", va="center", color=_ACCENT, fontsize=8,
                      arrowprops={"arrowstyle": "-", "color": _ACCENT, "lw": 0.5, "alpha": 0.5})  # fmt: skip


def _token_ticks(axes: Axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    low, high = min(values), max(values)
    ticks = [m * 10**e for e in range(12) for m in (1, 2, 5) if low / 1.6 <= m * 10**e <= high * 1.6]
    axes.set_xlim(low / 1.4, high * 1.25)
    axes.set_xticks([t for t in ticks if low / 1.4 <= t <= high * 1.25], [f"{t:,}".replace(",", "\u2009") for t in ticks if low / 1.4 <= t <= high * 1.25])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def flow_plot(name: str, society: dict[str, Any]) -> str:
    """How many agents were right, wrong or unparsed in each round, and where they went from there."""
    rounds = society["rounds"]

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.02, 0.1, 0.96, 0.87))
        for moment in rounds:
            _bar(axes, moment)
            if moment["round"]:
                _bands(axes, moment, rounds[moment["round"] - 1])
        axes.set_xlim(-0.2, len(rounds) - 1 + 0.2)
        axes.set_ylim(-0.01, 1.01)
        axes.set_yticks([])
        axes.set_xticks(range(len(rounds)), [f"round {moment['round']}" for moment in rounds])
        for spine in axes.spines.values():
            spine.set_visible(False)

    return draw(f"flow-{name}", f"How opinions moved between rounds in {clean(society['label'])}", (_WIDTH, 2.9), paint)


_HALF_BAR = 0.085
_ORDER = ("wrong", "unparsed", "right")


def _bar(axes: Axes, moment: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    total, bottom, x = sum(moment["states"].values()), 0.0, moment["round"]
    for state in _ORDER:
        share = moment["states"][state] / total
        axes.add_patch(Rectangle((x - _HALF_BAR, bottom), 2 * _HALF_BAR, share, color=STATE_COLORS[state], lw=0))
        if share >= 0.08:
            axes.text(x, bottom + share / 2, f"{100 * share:.0f}%", ha="center", va="center", color=_SURFACE, fontsize=8.5)
        bottom += share


def _bands(axes: Axes, after: dict[str, Any], before: dict[str, Any]) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    sizes = {(move["from"], move["to"]): move["count"] for move in after["flow"]}
    total_before, total_after = sum(before["states"].values()), sum(after["states"].values())
    starts, ends = _bottoms(before["states"]), _bottoms(after["states"])
    x0, x1 = before["round"] + _HALF_BAR, after["round"] - _HALF_BAR
    middle = (x0 + x1) / 2
    for source, target in ((s, t) for s in _ORDER for t in _ORDER if (s, t) in sizes):
        a, b = starts[source], ends[target]
        starts[source] += sizes[source, target] / total_before
        ends[target] += sizes[source, target] / total_after
        corners = [(x0, a), (middle, a), (middle, b), (x1, b), (x1, ends[target]), (middle, ends[target]), (middle, starts[source]), (x0, starts[source]), (x0, a)]
        codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
        axes.add_patch(PathPatch(Path(corners, codes), color=STATE_COLORS[source], alpha=0.28, lw=0))


def _bottoms(states: dict[str, int]) -> dict[str, float]:
    total, bottom, found = sum(states.values()), 0.0, {}
    for state in _ORDER:
        found[state] = bottom
        bottom += states[state] / total
    return found


def graph_plot(name: str, society: dict[str, Any], moment: dict[str, Any]) -> str:
    """One round: agents on a circle, ringed by their share of right answers, arrows to those who read them."""
    agents = {row["name"]: row for row in moment["agents"]}
    names = [a["name"] for a in society["agents"] if a["name"] in agents]
    angles = [math.pi / 2 - 2 * math.pi * i / len(names) for i in range(len(names))]
    places = {n: (math.cos(t), math.sin(t)) if len(names) > 1 else (0.0, 0.0) for n, t in zip(names, angles, strict=True)}
    radius = min(0.4, 1.3 / max(3, len(names)))

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        for edge in moment["edges"]:
            if edge["source"] in places and edge["target"] in places:
                _arrow(axes, places[edge["source"]], places[edge["target"]], edge["tasks"] / moment["tasks"], radius)
        for agent in names:
            _node(axes, places[agent], radius, agents[agent])
        axes.set_xlim(-1.6, 1.6)
        axes.set_ylim(-1.5, 1.75)
        axes.set_aspect("equal")
        axes.axis("off")

    title = f"Round {moment['round']} of {clean(society['label'])}: who read whom"
    return draw(f"graph-{name}-{moment['round']}", title, _GRAPH_SIZE, paint)


_GRAPH_SIZE = (2.3, 2.3 * 3.25 / 3.2)
_GRAPH_SCALE = 2.3 * _POINTS_PER_INCH / 3.2
"""Points per unit of length in a message graph."""


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], share: float, radius: float) -> None:
    from matplotlib.patches import FancyArrowPatch

    gap = radius * _GRAPH_SCALE
    axes.add_patch(
        FancyArrowPatch(start, end, connectionstyle="arc3,rad=0.16", arrowstyle="-|>", mutation_scale=11, lw=0.4 + 0.9 * share,
                        color=_MUTED, shrinkA=gap, shrinkB=gap + 1)  # fmt: skip
    )


def _node(axes: Axes, place: tuple[float, float], radius: float, agent: dict[str, Any]) -> None:
    from matplotlib.patches import Circle, Wedge

    total = sum(agent[state] for state in STATE_COLORS)
    angle = 90.0
    for state, color in STATE_COLORS.items():
        extent = 360 * agent[state] / total
        if extent:
            axes.add_patch(Wedge(place, radius, angle - extent, angle, width=radius * 0.32, color=color, lw=0))
        angle -= extent
    axes.add_patch(Circle(place, radius * 0.68, color=_SURFACE, lw=0))
    if radius > 0.2:
        axes.text(*place, f"{100 * agent['right'] / total:.0f}%", ha="center", va="center", fontsize=8.5)
    x, y = place
    below = y < -0.05 or (x == 0 and y == 0)
    axes.text(x, y + (-1 if below else 1) * (radius + 0.2), clean(agent["name"]), ha="center", va="center", fontsize=8.5)
