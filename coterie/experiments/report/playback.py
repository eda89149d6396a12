"""The page `report/swarm.html`: a flight in three dimensions. One file; its script is its own, nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from coterie.experiments.flights.colours import drone_colours
from coterie.experiments.flights.packing import pack
from coterie.experiments.flights.recording import Recording, thin
from coterie.experiments.report.page import make_environment

PAGE_HZ = 50
"""Moments per second on a page; between them it draws straight lines."""
_SCRIPTS = ("flight", "camera", "scene", "page", "map", "controls")


def render_playback(recording: Recording, *, title: str, facts: Sequence[tuple[str, str]] = ()) -> str:
    """The page of a flight.

    Args:
        recording: Shown at `PAGE_HZ`.
        title: Of the page; cleaned and escaped, as all text.
        facts: What stands beside the title: name and value.
    """
    script = Markup(_script())  # noqa: S704  # our own files
    shown = [("scenario", recording.scenario), ("drones", str(recording.num_drones))]
    if len(recording.obstacles):
        shown.append(("obstacles", str(len(recording.obstacles))))
    view = {
        "title": title, "facts": [*shown, *facts], "drones": recording.num_drones, "script": script,
        "hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": _data(thin(recording, PAGE_HZ)), "has_attention": recording.attention is not None,
        "obstacles": len(recording.obstacles),
    }  # fmt: skip
    return make_environment().get_template("swarm.html.j2").render(**view) + "\n"


def _script() -> str:
    folder = files("coterie.experiments.report") / "templates"
    parts = [(folder / f"swarm_{name}.js").read_text("utf-8") for name in _SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def _data(recording: Recording) -> Markup:
    """The recording as JSON that cannot end the element it stands in."""
    header, arrays = pack(recording)
    # The page shows the mean over drones.
    arrays["reward"] = recording.reward.mean(1)
    colours = {name: drone_colours(recording.num_drones, dark=name == "dark") for name in ("light", "dark")}
    packed = {name: _text(array) for name, array in arrays.items()}
    found = json.dumps({"header": header, "arrays": packed, "colours": colours})
    return Markup(found.replace("<", "\\u003c"))  # noqa: S704  # JSON in which nothing is markup


def _text(array: NDArray[Any]) -> dict[str, Any]:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}
