"""Recordings as whole numbers: small on disk and on a page."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coterie.errors import ConfigError
from coterie.experiments.flights.recording import Recording

_STEPS = 65535
_TURN = 32767
_WEIGHT = 255
_FORMAT = 1


class Packed(NamedTuple):
    """A recording in whole numbers.

    A place is `origin + step * number` along each axis, half a step from what it was at most: 0.08 mm in a room
    of 10 m. Attitudes are in 1 / 32767, weights of attention in 1 / 255.

    Attributes:
        header: JSON-able: everything that is no array, `origin` and `step`.
        arrays: `position` uint16 [T, N, 3], `attitude` int16 [T, N, 4], `goal` uint16 [F, N, 3] or [F, 1, 3] where all
            have the same, `goal_since` int32 [F], the moments from which they hold, `events` uint8 [T, N], `neighbours`
            int16 [T, N, K], `attention` uint8 [T, N, A] (A = 0: none), `reward` and `obstacles` float32.
    """

    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def pack(recording: Recording) -> Packed:
    """In whole numbers."""
    origin, step = _axes(recording)
    moments, drones = recording.events.shape
    goal, since = _legs(recording.goal)
    weights = np.zeros((moments, drones, 0)) if recording.attention is None else recording.attention
    header = {
        "format": _FORMAT, "hz": recording.hz, "scenario": recording.scenario, "room": list(recording.room),
        "arm": recording.arm, "radius": recording.radius, "origin": origin.tolist(), "step": step.tolist(),
    }  # fmt: skip
    arrays = {
        "position": _steps(recording.position, origin, step),
        "attitude": np.rint(recording.attitude * _TURN).astype(np.int16),
        "goal": _steps(goal, origin, step),
        "goal_since": since,
        "events": recording.events,
        "neighbours": recording.neighbours,
        "attention": np.rint(np.clip(weights, 0, 1) * _WEIGHT).astype(np.uint8),
        "reward": recording.reward,
        "obstacles": recording.obstacles,
    }
    return Packed(header, arrays)


def unpack(packed: Packed) -> Recording:
    """The recording again, as near as whole numbers are."""
    header, arrays = packed
    origin, step = np.asarray(header["origin"]), np.asarray(header["step"])
    moments, drones = arrays["events"].shape
    legs = np.searchsorted(arrays["goal_since"], np.arange(moments), "right") - 1
    goal = np.broadcast_to((origin + step * arrays["goal"])[legs], (moments, drones, 3))
    attitude = arrays["attitude"].astype(np.float32)
    weights = arrays["attention"]
    return Recording(
        hz=header["hz"], scenario=header["scenario"], room=tuple(header["room"]), arm=header["arm"],
        radius=header["radius"], obstacles=arrays["obstacles"], events=arrays["events"], reward=arrays["reward"],
        neighbours=arrays["neighbours"],
        position=(origin + step * arrays["position"]).astype(np.float32), goal=goal.astype(np.float32),
        attitude=attitude / np.linalg.norm(attitude, axis=-1, keepdims=True),
        attention=(weights / _WEIGHT).astype(np.float32) if weights.shape[2] else None,
    )  # fmt: skip


def _axes(recording: Recording) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each axis begins, and the length of a step, so that the room and all that is recorded fit."""
    half_x, half_y, height = recording.room[0] / 2, recording.room[1] / 2, recording.room[2]
    corners = np.asarray([(-half_x, -half_y, 0.0), (half_x, half_y, height)])
    places = np.concatenate([corners, recording.position.reshape(-1, 3), recording.goal.reshape(-1, 3)])
    low, high = places.min(0), places.max(0)
    return low, (high - low) / _STEPS


def _steps(places: NDArray[Any], origin: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.uint16]:
    return np.rint((places - origin) / step).astype(np.uint16)


def _legs(goal: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Goals where any of them changes, and since when they hold."""
    changes = np.flatnonzero((goal[1:] != goal[:-1]).any((1, 2))) + 1
    since = np.concatenate([[0], changes]).astype(np.int32)
    kept = goal[since]
    return (kept[:, :1] if (kept == kept[:, :1]).all() else kept), since


def save(recording: Recording, path: Path, **notes: str) -> None:
    """Write a recording, replacing what is there; `notes` is kept beside it.

    Raises:
        OSError: It cannot be written.
    """
    packed = pack(recording)
    header = np.frombuffer(json.dumps(packed.header | {"notes": notes}).encode(), np.uint8)
    content: dict[str, Any] = {"header": header, **packed.arrays}
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("wb") as file:
        np.savez_compressed(file, **content)
    scratch.replace(path)


def load(path: Path) -> tuple[Recording, dict[str, str]]:
    """What `save` wrote, and its notes.

    Raises:
        ConfigError: There is no recording.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no archive")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']}")
        return unpack(Packed(header, arrays)), header["notes"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as cause:
        raise ConfigError(f"no recording: {cause}", where=str(path), remedy="record it again") from cause
