"""One episode of one swarm, tick by tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.world import VecSwarm

Floats = NDArray[np.float32]
Act = Callable[[Floats], NDArray[Any]]
"""From observations [1, N, D] to actions [1, N, 4]."""
Attend = Callable[[Floats], NDArray[Any]]
"""From observations [1, N, D] to weights [1, N, K], or [1, N, K + 1] where the last one is of the obstacles."""

DRONE, OBSTACLE, WALL, FLOOR, CEILING, GONE = 1, 2, 4, 8, 16, 128
"""Bits of `Recording.events`: what a drone met in this tick after a tick without; out of the world."""
CONTACT = DRONE | OBSTACLE
_BITS = (
    (at.HIT_DRONE, DRONE), (at.HIT_OBSTACLE, OBSTACLE), (at.HIT_WALL, WALL), (at.HIT_FLOOR, FLOOR),
    (at.HIT_CEILING, CEILING), (at.LOST, GONE),
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """T moments of N drones; the first is the start. Lengths in m, z is up, the floor is at 0.

    Attributes:
        hz: Moments per second.
        scenario: What was flown.
        room: Width, depth, height; the floor's middle is the origin.
        arm: Radius of a drone.
        obstacles: float32 [M, 2], middles of cylinders from floor to ceiling.
        radius: Of the obstacles.
        position: float32 [T, N, 3]. A drone that is gone stays where it was last.
        attitude: float32 [T, N, 4], unit quaternions (w, x, y, z) that turn body into world axes.
        goal: float32 [T, N, 3].
        events: uint8 [T, N], bits of this module.
        reward: float32 [T, N], earned since the moment before.
        neighbours: int16 [T, N, K], whom each observes, nearest first; -1: nobody.
        attention: float32 [T, N, K] or [T, N, K + 1], the mean over heads; None: there is none.
    """

    hz: float
    scenario: str
    room: tuple[float, float, float]
    arm: float
    obstacles: Floats
    radius: float
    position: Floats
    attitude: Floats
    goal: Floats
    events: NDArray[np.uint8]
    reward: Floats
    neighbours: NDArray[np.int16]
    attention: Floats | None = None

    @property
    def num_drones(self) -> int:
        """N."""
        return int(self.position.shape[1])

    @property
    def seconds(self) -> float:
        """From the first to the last moment."""
        return (len(self.position) - 1) / self.hz

    @property
    def times(self) -> NDArray[np.float64]:
        """Of each moment, s."""
        return np.arange(len(self.position)) / self.hz

    @property
    def distance(self) -> Floats:
        """Of each drone from its goal, [T, N]."""
        apart: Floats = np.linalg.norm(self.position - self.goal, axis=-1)
        return apart


def record(world: VecSwarm, act: Act, *, seconds: float | None = None, attention: Attend | None = None) -> Recording:
    """Fly an episode from its start and keep what happened.

    Args:
        world: Of one environment, whose seed says which episode it is.
        act: What flies; it is given arrays that the next tick overwrites.
        seconds: The longest to fly; None: to the end of the episode.
        attention: What the policy attends to; None: it does not.

    Raises:
        ValueError: More than one environment.
        PhysicsError: As from `VecSwarm.step`.
    """
    if world.num_envs != 1:
        raise ValueError(f"a recording is of one environment, and the world has {world.num_envs}")
    hz = world.config.control_hz
    limit = world.config.ticks if seconds is None else max(1, round(seconds * hz))
    observation, frames = world.reset(), []
    reward = np.zeros((1, world.num_drones), np.float32)
    while True:
        frames.append(_frame(world, reward, None if attention is None else attention(observation)))
        if world.done[0] or len(frames) > limit:
            break
        observation, reward, _, _ = world.step(act(observation))
    obstacles, radius = world.obstacles(0)
    columns = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    return Recording(
        hz=hz, scenario=world.scenario(0), room=world.config.room, arm=world.config.quadrotor.arm,
        obstacles=obstacles, radius=radius, attitude=_quaternions(columns.pop("rotation")), **_park(columns),
    )  # fmt: skip


def _frame(world: VecSwarm, reward: Floats, attention: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    state, events = world.get_state(), np.zeros(world.num_drones, np.uint8)
    for flag, bit in _BITS:
        events |= np.where(world.arrays.flags[0] & flag, bit, 0).astype(np.uint8)
    frame: dict[str, NDArray[Any]] = {
        "position": state.position[0], "rotation": state.attitude[0], "goal": world.goals[0], "events": events,
        "reward": reward[0].copy(), "neighbours": world.neighbours[0].astype(np.int16),
    }  # fmt: skip
    return frame if attention is None else frame | {"attention": np.asarray(attention, np.float32)[0]}


def _quaternions(rotation: NDArray[Any]) -> Floats:
    from scipy.spatial.transform import Rotation

    turned = Rotation.from_matrix(rotation.reshape(-1, 3, 3).astype(np.float64)).as_quat(scalar_first=True)
    return np.asarray(turned.reshape(*rotation.shape[:2], 4), np.float32)


def _park(columns: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """What the world has put far away is left where it was before."""
    gone, position = columns["events"] & GONE > 0, columns["position"]
    for moment in np.flatnonzero(gone[:-1].any(1)) + 1:
        position[moment, gone[moment - 1]] = position[moment - 1, gone[moment - 1]]
    return columns


def thin(recording: Recording, hz: float) -> Recording:
    """At most so many moments per second: every n-th, with all that happened since the one before."""
    step = max(1, round(recording.hz / hz))
    kept = slice(None, None, step)
    last = (len(recording.position) - 1) // step * step
    events, reward = recording.events.copy(), recording.reward.copy()
    for since in range(1, step):
        events[step : last + 1 : step] |= recording.events[step - since : last + 1 - since : step]
        reward[step : last + 1 : step] += recording.reward[step - since : last + 1 - since : step]
    return replace(
        recording, hz=recording.hz / step, position=recording.position[kept], attitude=recording.attitude[kept],
        goal=recording.goal[kept], events=events[kept], reward=reward[kept], neighbours=recording.neighbours[kept],
        attention=None if recording.attention is None else recording.attention[kept],
    )  # fmt: skip
