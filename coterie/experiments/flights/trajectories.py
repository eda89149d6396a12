"""The picture `report/trajectories.png`: a flight from above and from the side."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.experiments.flights.colours import drone_colours
from coterie.experiments.flights.recording import DRONE, GONE, OBSTACLE, Recording
from coterie.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MUTED, _LINE, _PILLAR, _PILLAR_EDGE = "#1b2130", "#667085", "#e3e6ec", "#68799433", "#4a5b78"
_HITS = ((DRONE, "#d3243f", "drones touch"), (OBSTACLE, "#e07b00", "drone and obstacle touch"))
_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False, "text.color": _INK,
    "axes.labelcolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _MUTED, "axes.edgecolor": _LINE,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.linewidth": 1, "axes.axisbelow": True,
}  # fmt: skip
_MOST_NUMBERED = 40
_FEW = 12
_MARGIN = 0.6
_ABOVE, _ASIDE = (0, 1), (0, 2)
"""Axes of the two views."""


def draw_trajectories(recording: Recording, title: str = "") -> bytes:
    """A PNG: paths in a colour for each drone, starts as numbered dots, goals as rings, contacts as crosses.

    Goals that move are drawn as dotted lines, with a ring where they were last.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    low, high = _bounds(recording)
    wide, deep, tall = high - low
    with mpl.rc_context(_STYLE):
        scale = 7.4 / wide
        height = scale * (deep + tall) + 1.95
        figure = Figure(figsize=(8.2, height), facecolor="white", dpi=150)
        FigureCanvasAgg(figure)
        above = figure.add_axes((0.07, 1 - (0.95 + scale * deep) / height, 7.4 / 8.2, scale * deep / height))
        aside = figure.add_axes((0.07, 0.5 / height, 7.4 / 8.2, scale * tall / height))
        for axes, view in ((above, _ABOVE), (aside, _ASIDE)):
            _paint(axes, recording, view, low, high)
        above.set_ylabel("y, m")
        aside.set_ylabel("height, m")
        aside.set_xlabel("x, m")
        figure.text(0.07, 1 - 0.28 / height, clean(title) or recording.scenario, fontsize=11.5, weight="bold")
        figure.text(0.07, 1 - 0.5 / height, _subtitle(recording), color=_MUTED)
        _explain(figure, recording, 1 - 0.78 / height)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _bounds(recording: Recording) -> tuple[Any, Any]:
    """Corners of what is drawn: all that flies, in the room, and the floor."""
    places = np.concatenate([recording.position.reshape(-1, 3), recording.goal.reshape(-1, 3)])
    low, high = places.min(0) - _MARGIN, places.max(0) + _MARGIN
    low[2] = 0
    high[2] = min(high[2], recording.room[2])
    # A flight on the spot is not drawn larger than life.
    middle, half = (low + high)[:2] / 2, np.maximum((high - low)[:2] / 2, 2)
    low[:2], high[:2] = middle - half, middle + half
    return low, high


def _subtitle(recording: Recording) -> str:
    touched = int(np.count_nonzero(recording.events & DRONE)), int(np.count_nonzero(recording.events & OBSTACLE))
    last = recording.distance[-1][recording.events[-1] & GONE == 0]
    away = f", {last.mean():.2f} m from their goals at the end" if len(last) else ""
    drones = "1 drone" if recording.num_drones == 1 else f"{recording.num_drones} drones"
    return f"{drones}, {recording.seconds:.1f} s{away}; contacts: {touched[0]} with drones, {touched[1]} with obstacles"


def _paint(axes: Axes, recording: Recording, view: tuple[int, int], low: Any, high: Any) -> None:
    x, y = view
    axes.set_aspect("equal")
    axes.set_xlim(low[x], high[x])
    axes.set_ylim(low[y], high[y])
    axes.grid(color=_LINE, linewidth=0.7)
    _paint_obstacles(axes, recording, view, high)
    few = recording.num_drones <= _FEW
    is_shared = bool((recording.goal == recording.goal[:, :1]).all())
    for i, colour in enumerate(drone_colours(recording.num_drones)):
        there = np.flatnonzero(recording.events[:, i] & GONE == 0)
        path, goal = recording.position[: there[-1] + 1, i], recording.goal[:, i]
        if (goal != goal[0]).any():
            axes.plot(goal[:, x], goal[:, y], ":", color=colour, lw=0.8, alpha=0.45 if few else 0.25)
        axes.plot(path[:, x], path[:, y], color=colour, lw=1.5 if few else 0.9, alpha=0.9 if few else 0.75)
        ring = _INK if is_shared else colour
        axes.plot([goal[-1, x]], [goal[-1, y]], "o", mfc="none", mec=ring, ms=10 if few else 6, mew=1.4, zorder=4)
        _paint_start(axes, i, colour, path[0, x], path[0, y], recording.num_drones)
    for bit, colour, _ in _HITS:
        moments, drones = np.nonzero(recording.events & bit)
        hits = recording.position[moments, drones]
        axes.plot(hits[:, x], hits[:, y], "x", color=colour, ms=7 if few else 5, mew=1.8, zorder=6)


def _paint_start(axes: Axes, drone: int, colour: str, x: float, y: float, drones: int) -> None:
    if drones > _MOST_NUMBERED:
        axes.plot([x], [y], "o", color=colour, ms=2.5, zorder=5)
        return
    size = 10 if drones <= _FEW else 7.5
    axes.plot([x], [y], "o", color=colour, ms=size, mec="white", mew=0.8, zorder=5)
    axes.annotate(str(drone), (x, y), color="white", ha="center", va="center_baseline", fontsize=0.62 * size, zorder=7)


def _paint_obstacles(axes: Axes, recording: Recording, view: tuple[int, int], high: Any) -> None:
    from matplotlib.patches import Circle, Rectangle

    radius = recording.radius
    circles = [Circle((x, y), radius) for x, y in recording.obstacles]
    # Those behind each other are one.
    bands = [Rectangle((x - radius, 0), 2 * radius, high[2]) for x in np.unique(recording.obstacles[:, 0])]
    for shape in circles if view == _ABOVE else bands:
        shape.set(facecolor=_PILLAR, edgecolor=_PILLAR_EDGE if view == _ABOVE else "none", linewidth=0.8, zorder=1)
        axes.add_patch(shape)


def _explain(figure: Any, recording: Recording, y: float) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker="o", ls="", color=_MUTED, ms=7, label="start"),
        Line2D([], [], marker="o", ls="", mfc="none", mec=_MUTED, ms=7, mew=1.4, label="goal"),
    ]
    for bit, colour, name in _HITS:
        if (recording.events & bit).any():
            marks.append(Line2D([], [], marker="x", ls="", color=colour, ms=7, mew=1.8, label=name))
    figure.legend(
        handles=marks, loc="center left", bbox_to_anchor=(0.06, y), ncols=len(marks), frameon=False, labelcolor=_MUTED,
        handletextpad=0.2, columnspacing=1.4, borderpad=0,
    )  # fmt: skip
