"""Inline SVG made by matplotlib: themed by the page's CSS, the same to the byte each time."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Stand-ins for the page's CSS variables: matplotlib wants colours, the page wants light and dark.
INK, MUTED, GRID, SURFACE, ACCENT = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--line", SURFACE: "--surface", ACCENT: "--accent",
    "#0a0b06": "--right", "#0a0b07": "--wrong", "#0a0b08": "--unparsed",
    **{f"#0a0b1{i}": f"--agent-{i}" for i in range(6)},
}  # fmt: skip
STATE_COLORS = {"right": "#0a0b06", "wrong": "#0a0b07", "unparsed": "#0a0b08"}


class Palette(NamedTuple):
    """Colours of a figure; `series` tells its lines apart."""

    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


THEMED = Palette(INK, MUTED, GRID, tuple(f"#0a0b1{i}" for i in range(6)))
"""The page's."""
ON_WHITE = Palette("#1b2130", "#667085", "#e3e6ec", ("#6d4fc0", "#0b7f66", "#b0397f", "#7a6a00", "#44687d", "#8a4b3a"))
_DOTS_PER_INCH = 150
POINTS_PER_INCH = 72
WIDTH = 6.6
"""Inches, of a figure as wide as the text."""


def draw(name: str, title: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """An inline SVG element.

    Args:
        name: Unique on the page; prefixes the ids inside.
        title: What the picture shows, for those who do not see it.
        size: In inches.
        paint: Draws on the figure.
    """
    with _style(THEMED):
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.StringIO()
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    return _inline(buffer.getvalue(), name, title, size)


def draw_png(size: tuple[float, float], paint: Callable[[Figure], None]) -> bytes:
    """A PNG in the colours of `ON_WHITE`.

    Args:
        size: In inches.
        paint: Draws on the figure.
    """
    with _style(ON_WHITE):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, facecolor="white")
        FigureCanvasAgg(figure)
        paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def limits(values: NDArray[np.float64], *, is_share: bool) -> tuple[float, float]:
    """Of an axis that holds values, nan among them: what hardly moves is not to look as if it did.

    Args:
        values: Any shape; shares in percent.
        is_share: Whether they are shares.
    """
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    least = 10.0 if is_share else 0.1 * (max(abs(low), abs(high)) or 1.0)
    if high - low < least:
        middle = (high + low) / 2
        low, high = middle - least / 2, middle + least / 2
    if is_share:
        low, high = max(low, 0.0), min(high, 100.0)
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


@contextmanager
def _style(palette: Palette) -> Iterator[None]:
    import matplotlib as mpl

    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "coterie", "font.family": "DejaVu Sans", "font.size": 9.5,
        "text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": palette.grid,
        "axes.labelcolor": palette.muted, "xtick.color": palette.muted, "ytick.color": palette.ink,
        "text.color": palette.ink, "grid.color": palette.grid, "xtick.major.size": 0, "ytick.major.size": 0,
        "grid.linewidth": 0.8, "axes.axisbelow": True,
    }  # fmt: skip
    with mpl.rc_context(style):
        yield


def _inline(svg: str, name: str, title: str, size: tuple[float, float]) -> str:
    body = svg[svg.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    width, height = (side * POINTS_PER_INCH for side in size)
    safe = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (
        f'<svg role="img" aria-label="{safe}" viewBox="0 0 {width:g} {height:g}" style="max-width:{width * 1.4:.0f}px" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{body.rstrip()}'
    )
