from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from coterie.envs.swarm import Obstacles
from coterie.experiments.flights.colours import drone_colours
from coterie.experiments.flights.recording import Recording
from coterie.experiments.flights.trajectories import draw_trajectories


def colours_in(picture: bytes) -> set[str]:
    """Of at least 60 pixels each."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), np.int32)
    found = np.bincount((pixels @ np.asarray([65536, 256, 1])).ravel(), minlength=1 << 24)
    return {f"#{number:06x}" for number in np.flatnonzero(found >= 60)}


@pytest.mark.parametrize("drones", [8, 32])
def test_every_drone_and_every_kind_of_contact_can_be_seen(flown: Callable[..., Recording], drones: int) -> None:
    found = flown(num_drones=drones, obstacles=Obstacles(density=0.3), scenario="o_random", seconds=4.0)
    seen = colours_in(draw_trajectories(found, "a flight"))
    # Starts are drawn in full colour, whatever else is seen through.
    assert seen >= {*drone_colours(drones), "#e07b00"}


def test_it_is_the_same_each_time(crowded: Recording) -> None:
    assert draw_trajectories(crowded) == draw_trajectories(crowded)


def test_hostile_titles_are_text(crowded: Recording) -> None:
    assert draw_trajectories(crowded, "$\\frac{$ \x1b[31m <b>") != draw_trajectories(crowded, "plain")


@pytest.mark.parametrize("count", [1, 8, 32, 128])
@pytest.mark.parametrize("dark", [False, True])
def test_colours_differ(count: int, dark: bool) -> None:
    colours = drone_colours(count, dark=dark)
    assert len(set(colours)) == count
    assert all(len(colour) == 7 and colour.startswith("#") for colour in colours)
