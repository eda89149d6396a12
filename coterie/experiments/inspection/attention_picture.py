"""The picture of an inspection: what tells heads apart, and a heat map of the signals over the text."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.errors import ConfigError
from coterie.experiments.inspection.attention import Floats, Inspection, as_json
from coterie.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, NOTHING = "#1c2733", "#5d6b7a", "#e9ecef"
_STYLE: Any = {
    "font.family": ["DejaVu Sans", "DejaVu Sans Mono"], "font.size": 9, "text.parse_math": False, "text.color": INK,
    "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "axes.edgecolor": "#c9d1d9",
    "xtick.major.size": 0, "ytick.major.size": 0,
}  # fmt: skip
_WIDTH = 12.0
_PER_STRIP = 48
_SHOWN = 384
"""Tokens in the picture; the JSON has all."""
_HEADS_HEIGHT, _STRIP_HEIGHT, _TITLE_HEIGHT = 3.6, 1.35, 0.75
_SIGNALS = (("logprobs", "surprise", "Purples"), ("waad", "WAAD", "Oranges"), ("fai", "FAI", "Greens"))


def write(found: Inspection, folder: Path, stem: str) -> list[Path]:
    """Write `STEM-attention.png` and `STEM-attention.json`, both or none, replacing what is there.

    Raises:
        ConfigError: The folder cannot be written.
    """
    contents = {
        ".png": draw(found),
        ".json": (json.dumps(as_json(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(
            "utf-8", "replace"
        ),
    }
    paths = {folder / f"{stem}-attention{suffix}": content for suffix, content in contents.items()}
    scratch = [path.with_name(f".{path.name}.{os.getpid()}") for path in paths]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in zip(scratch, paths.values(), strict=True):
            path.write_bytes(content)
        for path, target in zip(scratch, paths, strict=True):
            path.replace(target)
    except OSError as cause:
        remedy = "write elsewhere with --out"
        raise ConfigError(f"cannot write: {cause.strerror}", where=str(folder), remedy=remedy) from cause
    finally:
        for path in scratch:
            # Where the folder is none, there is nothing to remove.
            if path.parent.is_dir():
                path.unlink(missing_ok=True)
    return list(paths)


def draw(found: Inspection) -> bytes:
    """The picture as a PNG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = min(len(found.ids), _SHOWN)
    strips = -(-shown // _PER_STRIP)
    height = _TITLE_HEIGHT + _HEADS_HEIGHT + 0.45 + strips * _STRIP_HEIGHT + 0.25
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A text may hold characters that no font here has; they become boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        FigureCanvasAgg(figure)
        _paint_title(figure, found, height)
        _paint_heads(figure, found, height)
        _paint_tokens(figure, found, shown, height)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _paint_title(figure: Figure, found: Inspection, height: float) -> None:
    cut = "" if len(found.ids) == found.num_tokens else f" (of {found.num_tokens})"
    title = f"Attention of {clean(found.model)[-60:]} over {len(found.ids)} tokens{cut}, {found.sentences} sentences"
    figure.text(0.045, 1 - 0.28 / height, title, size=13, weight="bold", va="center")
    layers = ", ".join(map(str, sorted({layer for layer, _ in (*found.roles.local, *found.roles.distant)})))
    marks = f"L local and G global heads, of layers {layers}; S sink and R receiver heads, of all layers"
    figure.text(0.045, 1 - 0.53 / height, marks, color=MUTED, va="center")


def _paint_heads(figure: Figure, found: Inspection, height: float) -> None:
    profile, roles = found.profile, found.roles
    near, far = dict.fromkeys(roles.local, "L"), dict.fromkeys(roles.distant, "G")
    spans = far | near | dict.fromkeys(near.keys() & far.keys(), "LG")
    left_out = ", first left out" if found.options.without_sink else ""
    panels = (
        (f"span: mean distance, tokens{left_out}", profile.span, spans, "Blues"),
        ("sink: share on the first token", profile.sink, dict.fromkeys(roles.sink, "S"), "Greys"),
        (f"receiver: kurtosis over sentences{left_out}", profile.kurtosis, dict.fromkeys(roles.receiver, "R"), "Reds"),
    )
    bottom = (height - _TITLE_HEIGHT - _HEADS_HEIGHT + 0.25) / height
    for index, (title, table, marks, colors) in enumerate(panels):
        axes = figure.add_axes((0.045 + index * 0.325, bottom, 0.26, (_HEADS_HEIGHT - 0.6) / height))
        _paint_grid(figure, axes, title, table.cpu().numpy(), profile.layers, marks, colors)


def _paint_grid(
    figure: Figure, axes: Axes, title: str, table: Floats, layers: Sequence[int], marks: dict[Any, str], colors: str
) -> None:
    axes.set_facecolor(NOTHING)
    axes.set_title(title, loc="left", size=9.5, color=INK)
    if not np.isfinite(table).any():
        axes.set_axis_off()
        axes.text(0, 0.9, "the text has too few sentences", color=MUTED, transform=axes.transAxes)
        return
    low = min(0.0, float(np.nanmin(table)))
    image = axes.imshow(table, cmap=colors, aspect="auto", origin="lower", vmin=low)
    count, width = table.shape
    every = max(1, count // 10)
    axes.set_yticks(range(0, count, every), [str(layer) for layer in layers[::every]], size=7)
    axes.set_xticks(range(0, width, max(1, width // 12)))
    axes.tick_params(labelsize=7)
    axes.set_xlabel("head", size=8, labelpad=1)
    axes.set_ylabel("layer", size=8, labelpad=1)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7)
    size = float(np.clip(150 / max(count, width * 0.8), 3.5, 8))
    for (layer, head), mark in marks.items():
        row = list(layers).index(layer)
        is_dark = (table[row, head] - low) / (np.nanmax(table) - low) > 0.55
        axes.text(head, row, mark, size=size, ha="center", va="center", color="white" if is_dark else INK)


def _paint_tokens(figure: Figure, found: Inspection, shown: int, height: float) -> None:
    values = {name: -found.signals[name] if name == "logprobs" else found.signals[name] for name, _, _ in _SIGNALS}
    ends = {name: _ends(array) for name, array in values.items()}
    top = height - _TITLE_HEIGHT - _HEADS_HEIGHT - 0.25
    low, high = found.options.horizon
    told = (
        f"pale to dark: surprise, -log p of the token, {_range(ends['logprobs'])} nats; "
        f"WAAD, how far local heads look back, {_range(ends['waad'])} of at most {found.options.window} tokens; "
        f"FAI, attention of global heads {low} to {high} tokens later, {_range(ends['fai'])}"
    )
    figure.text(0.045, top / height, told, color=MUTED, size=8, va="center")
    for index in range(-(-shown // _PER_STRIP)):
        span = slice(index * _PER_STRIP, min((index + 1) * _PER_STRIP, shown))
        base = top - 0.15 - (index + 1) * _STRIP_HEIGHT + 0.68
        for row, (name, title, colors) in enumerate(_SIGNALS):
            axes = figure.add_axes((0.095, (base + (2 - row) * 0.19) / height, 0.89, 0.18 / height))
            _paint_strip(axes, title, values[name][span], ends[name], colors)
        axes.set_xticks(range(span.stop - span.start), [label(p) for p in found.pieces[span]], rotation=60, size=7.5,
                        ha="right", rotation_mode="anchor", color=INK)  # fmt: skip
        figure.text(0.045, (base + 0.28) / height, str(span.start), size=7, color=MUTED, va="center")
    if shown < len(found.ids):
        rest = f"{len(found.ids) - shown} further tokens are in the JSON"
        figure.text(0.095, 0.12 / height, rest, color=MUTED, size=8, va="center")


def _paint_strip(axes: Axes, title: str, values: Floats, ends: tuple[float, float], colors: str) -> None:
    import matplotlib as mpl

    map_ = mpl.colormaps[colors].with_extremes(bad=NOTHING)
    axes.imshow(values[None], cmap=map_, vmin=ends[0], vmax=ends[1], aspect="auto")
    axes.set_xlim(-0.5, _PER_STRIP - 0.5)
    axes.set_xticks([])
    axes.set_yticks([0], [title], size=7)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)


def label(piece: str) -> str:
    """A token as it is written under the map: short, and with what is invisible made visible."""
    shown = clean(piece.replace("\n", "\u21b5").replace("\t", "\u2192"))
    shown = shown.strip(" ") or "\u00b7" * min(len(shown), 4)
    return shown if len(shown) <= 11 else shown[:10] + "\u2026"


def _ends(values: Floats) -> tuple[float, float]:
    """Where the colours begin and end: beyond either lie 2 % of the tokens, so that one does not bleach the rest."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, [0.02, 0.98]) if len(known) else (0, 0)
    return float(low), float(high if high > low else low + 1)


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.2g} to {ends[1]:.2g}"
