from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coterie.errors import ConfigError
from coterie.experiments.flights.packing import load, pack, save, unpack
from coterie.experiments.flights.recording import Recording


def test_places_are_at_most_half_a_step_away(crowded: Recording) -> None:
    packed = pack(crowded)
    found, step = unpack(packed), np.asarray(packed.header["step"])
    assert (step < 1.6e-4).all()
    assert (np.abs(found.position - crowded.position) <= step / 2 + 1e-6).all()
    assert (np.abs(found.goal - crowded.goal) <= step / 2 + 1e-6).all()


def test_attitudes_and_weights_are_near(crowded: Recording) -> None:
    found = unpack(pack(crowded))
    assert found.attention is not None and crowded.attention is not None
    assert np.abs(found.attitude - crowded.attitude).max() < 6e-5
    assert np.abs(found.attention - crowded.attention).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(found.events, crowded.events)
    np.testing.assert_array_equal(found.neighbours, crowded.neighbours)


def test_what_lies_outside_the_room_is_kept_too(crowded: Recording) -> None:
    away = replace(crowded, position=crowded.position + np.float32(100))
    packed = pack(away)
    assert np.abs(unpack(packed).position - away.position).max() <= max(packed.header["step"])


def test_goals_are_kept_where_they_change(flown: Callable[..., Recording]) -> None:
    still = pack(flown(num_drones=4, scenario="static_same_goal", seconds=1.0))
    assert still.arrays["goal"].shape == (1, 1, 3)
    moving = flown(num_drones=4, scenario="swap_goals", seconds=7.0)
    packed = pack(moving)
    assert packed.arrays["goal"].shape == (2, 4, 3)
    assert np.abs(unpack(packed).goal - moving.goal).max() < 2e-4


def test_without_attention_there_is_none(crowded: Recording) -> None:
    assert unpack(pack(replace(crowded, attention=None))).attention is None


def test_a_file_holds_a_recording_and_its_notes(crowded: Recording, tmp_path: Path) -> None:
    save(crowded, tmp_path / "flight.npz", checkpoint="ab")
    found, notes = load(tmp_path / "flight.npz")
    assert notes == {"checkpoint": "ab"}
    np.testing.assert_array_equal(found.position, unpack(pack(crowded)).position)
    assert (found.scenario, found.room, found.hz) == (crowded.scenario, crowded.room, crowded.hz)
    assert [path.name for path in tmp_path.iterdir()] == ["flight.npz"]


def test_saved_again_it_is_the_same(crowded: Recording, tmp_path: Path) -> None:
    save(crowded, tmp_path / "a.npz")
    save(load(tmp_path / "a.npz")[0], tmp_path / "b.npz")
    first, second = load(tmp_path / "a.npz")[0], load(tmp_path / "b.npz")[0]
    assert np.abs(first.position - second.position).max() < 1e-6


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no", b"\x93NUMPY"])
def test_what_is_no_recording_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "flight.npz").write_bytes(content)
    with pytest.raises(ConfigError, match="no recording"):
        load(tmp_path / "flight.npz")
