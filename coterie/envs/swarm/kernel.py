"""One control step of one environment, and of a range of them, in one pass over arrays that stay in cache."""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.compiling import OPTIONS, compiled, joined
from coterie.envs.swarm.draws import f4, u4, u8
from coterie.envs.swarm.encounters import meet, note, settle
from coterie.envs.swarm.goals import plan_leg
from coterie.envs.swarm.grid import build, meet_on_grid, rank_on_grid, refresh
from coterie.envs.swarm.layout import BLOCK, DEEDS, LANES, WORK_ROWS
from coterie.envs.swarm.motion import draw_rotor_noise, draw_sensor_noise, fly, reward, take_actions
from coterie.envs.swarm.perception import nearest_axis, observe_other, observe_self, patch, rank
from coterie.envs.swarm.spawning import NOWHERE, start_episode

_SOURCES = (
    "compiling", "contacts", "draws", "encounters", "flight", "goals", "grid", "kernel", "layout", "motion",
    "parameters", "perception", "spawning",
)  # fmt: skip
_FRESH = ~(
    at.TOUCHES_DRONE | at.TOUCHES_OBSTACLE | at.HIT_DRONE | at.HIT_OBSTACLE | at.HIT_FLOOR | at.HIT_WALL
    | at.HIT_CEILING | at.WAS_TOUCHING_DRONE | at.WAS_TOUCHING_OBSTACLE
)  # fmt: skip


class Arrays(NamedTuple):
    """Everything that a world holds; E environments of N drones.

    Attributes:
        drones: float32 [E, ROWS, N].
        flags: int32 [E, N].
        counters: int32 [E, COUNTERS].
        settings: float32 [E, SETTINGS].
        obstacles: float32 [E, 2, M], middles.
        cells: int32 [E, C], those with obstacles first.
        keys: uint32 [E, 2].
        table: float32 [S, COLUMNS], the scenarios.
        densities: float32 [any], to draw from.
        sizes: float32 [any], to draw from.
        observation: float32 [E, N, D].
        neighbours: int32 [E, N, K], -1: nobody.
        reward: float32 [E, N].
        terminated: bool [E, N].
        truncated: bool [E].
        broken: bool [E], where a number is none.
    """

    drones: NDArray[np.float32]
    flags: NDArray[np.int32]
    counters: NDArray[np.int32]
    settings: NDArray[np.float32]
    obstacles: NDArray[np.float32]
    cells: NDArray[np.int32]
    keys: NDArray[np.uint32]
    table: NDArray[np.float32]
    densities: NDArray[np.float32]
    sizes: NDArray[np.float32]
    observation: NDArray[np.float32]
    neighbours: NDArray[np.int32]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    broken: NDArray[np.bool_]


@joined
def _move_goals(p: Any, drones: Any, counters: Any, settings: Any, cells: Any, table: Any, when: Any, key: Any) -> None:
    if counters[at.TICK] >= counters[at.NEXT_LEG]:
        plan_leg(p, drones, counters, settings, cells, table[counters[at.SCENARIO]], when, key)
    if counters[at.MOVING]:
        limits = (p.half_x - f4(0.3), p.half_y - f4(0.3), p.height - f4(0.3))
        for k in range(3):
            low = f4(0.3) if k == 2 else -limits[k]
            for i in range(drones.shape[1]):
                goal = drones[at.GOAL + k, i] + drones[at.GOAL_STEP + k, i]
                drones[at.GOAL + k, i] = min(max(goal, low), limits[k])
                drones[at.GOAL_STEP + k, i] += drones[at.GOAL_BEND + k, i]


@compiled
def _load(drones: Any, actions: Any, w: Any, first: Any, n: Any) -> None:
    # Unsigned, because an index that might be negative keeps a loop from becoming vector code.
    for row in range(at.ROWS):
        for i in range(n):
            w[row * LANES + i] = drones[row, u8(first + i)]
    for i in range(n):
        for k in range(4):
            w[(at.ACTION + k) * LANES + i] = actions[u8(first + i), k]


@compiled
def _store(drones: Any, w: Any, first: Any, n: Any) -> None:
    for row in range(at.ROWS):
        for i in range(n):
            drones[row, u8(first + i)] = w[row * LANES + i]


@compiled
def _remember(w: Any, n: Any) -> None:
    for k in range(3):
        for i in range(n):
            w[(at.BEFORE + k) * LANES + i] = w[(at.POSITION + k) * LANES + i]


@compiled
def _park(rows: Any, flags: Any, i: Any, drone: Any) -> None:
    """Keep a lost drone out of the world."""
    rows[at.VELOCITY : at.VELOCITY + 3, i] = f4(0)
    rows[at.OMEGA : at.OMEGA + 3, i] = f4(0)
    for k in range(3):
        rows[at.POSITION + k, i] = f4(NOWHERE) * f4(drone + 1)
    rows[at.WALL, i], rows[at.CEILING, i] = f4(0), f4(0)


@joined
def _fly_block(p: Any, a: Any, e: Any, actions: Any, w: Any, rows: Any, first: Any, n: Any, when: Any) -> None:
    """Move drones first...first + n of an environment, in scratch."""
    key, flags = a.keys[e], a.flags[e]
    lanes = (n + 7) // 8 * 8
    _load(a.drones[e], actions[e], w, first, n)
    if p.noisy:
        draw_rotor_noise(p, w, lanes, first, when, key)
        draw_sensor_noise(w, lanes, first, when, key)
    take_actions(w, lanes)
    fly(p, w, lanes, n, flags, first, when, key)
    tick = a.counters[e, at.TICK]
    reward(p, w, lanes, tick, a.counters[e, at.ENDS] - tick)
    for i in range(n):
        if flags[first + i] & at.LOST:
            _park(rows, flags, i, first + i)
    obstacles, count = a.obstacles[e], a.counters[e, at.NUM_OBSTACLES]
    for i in range(n):
        x, y = w[at.POSITION * LANES + i], w[(at.POSITION + 1) * LANES + i]
        w[at.AXIS * LANES + i] = nearest_axis(x, y, obstacles, count)


@joined
def _judge(p: Any, a: Any, e: Any, flags: Any, counters: Any, rows: Any, i: Any, drone: Any, crowd: Any) -> None:
    """The rest of the reward, what was reached, and whether the drone is done. Lane i holds the drone."""
    if flags[drone] & at.LOST:
        a.reward[e, drone] = f4(0)
        return
    earned = rows[at.REWARD, i]
    if flags[drone] & at.LANDED:
        # In the air the body's vertical axis earned something; on the floor, where it is upright, that is a cost.
        earned -= p.on_floor + f4(2) * p.upright
        rows[at.ON_FLOOR_TICKS, i] += f4(1)
    hit, hit_obstacle = note(p, flags, counters, drone)
    cost = p.proximity * crowd
    if hit:
        cost += p.collision
    if hit_obstacle:
        cost += p.obstacle
    a.reward[e, drone] = earned - a.settings[e, at.PENALTY] * cost
    total = f4(0)
    for k in range(5):
        total += rows[at.RING + k, i]
    if total < f4(5) * a.table[counters[at.SCENARIO], at.REACH]:
        flags[drone] |= at.REACHED
    if p.lose and (hit or hit_obstacle):
        flags[drone] |= at.LOST
        a.terminated[e, drone] = True
    if not np.isfinite(a.reward[e, drone]) or not np.isfinite(rows[at.VELOCITY + 2, i] + rows[at.ATTITUDE, i]):
        a.broken[e] = True


@joined
def _observe(p: Any, a: Any, e: Any, drones: Any, obstacles: Any, w: Any, i: Any, drone: Any) -> None:
    """Write what a drone observes; its neighbours are known. Lane i holds the drone."""
    out = a.observation[e, drone]
    if a.flags[e, drone] & at.LOST:
        out[:] = f4(0)
        a.neighbours[e, drone, :] = -1
        return
    size = observe_self(p, w, i, out)
    for k in range(p.num_neighbours):
        j = a.neighbours[e, drone, k]
        if j < 0:
            out[size : size + 6] = f4(0)
        else:
            x = (drones[at.POSITION, j], drones[at.POSITION + 1, j], drones[at.POSITION + 2, j])
            v = (drones[at.VELOCITY, j], drones[at.VELOCITY + 1, j], drones[at.VELOCITY + 2, j])
            px, py, pz = drones[at.POSITION, drone], drones[at.POSITION + 1, drone], drones[at.POSITION + 2, drone]
            vx, vy, vz = drones[at.VELOCITY, drone], drones[at.VELOCITY + 1, drone], drones[at.VELOCITY + 2, drone]
            observe_other((x[0] - px, x[1] - py, x[2] - pz), (v[0] - vx, v[1] - vy, v[2] - vz), out, size)
        size += 6
    if p.has_obstacles:
        x, y = drones[at.POSITION, drone], drones[at.POSITION + 1, drone]
        patch(x, y, obstacles, a.counters[e, at.NUM_OBSTACLES], a.settings[e, at.RADIUS], out, size)


@joined
def _begin_tick(p: Any, a: Any, e: Any) -> Any:
    counters, flags = a.counters[e], a.flags[e]
    counters[at.TICK] += 1
    counters[at.EVENT] = 0
    when = (u4(counters[at.TICK]), u4(counters[at.EPISODE]))
    for i in range(len(flags)):
        was = flags[i] & (at.TOUCHES_DRONE | at.TOUCHES_OBSTACLE)
        flags[i] = flags[i] & _FRESH | was << 8
    _move_goals(p, a.drones[e], counters, a.settings[e], a.cells[e], a.table, when, a.keys[e])
    return when


@joined
def _step_few(p: Any, a: Any, e: Any, actions: Any, w: Any, rows: Any, deeds: Any) -> None:
    """A control step of an environment with at most BLOCK drones."""
    when, key, flags, counters, n = _begin_tick(p, a, e), a.keys[e], a.flags[e], a.counters[e], a.flags.shape[1]
    _fly_block(p, a, e, actions, w, rows, 0, n, when)
    meet(p, w, rows, n, flags, deeds, counters, when, key)
    drones, obstacles, radius = a.drones[e], a.obstacles[e], a.settings[e, at.RADIUS]
    touching = (radius + p.arm) * (radius + p.arm)
    for i in range(n):
        happened = deeds[at.TOUCHED, i] + rows[at.WALL, i] + rows[at.CEILING, i] > f4(0) or rows[at.AXIS, i] <= touching
        if happened and not flags[i] & at.LOST:
            settle(
                p, rows, flags, deeds, counters, i, rows[at.AXIS, i], obstacles, radius, rows[at.WALL, i],
                rows[at.CEILING, i], when, key,
            )  # fmt: skip
        _judge(p, a, e, flags, counters, rows, i, i, deeds[at.CROWD, i])
    _remember(w, n)
    _store(drones, w, 0, n)
    for i in range(n):
        rank(p, w, i, n, a.neighbours[e, i])
        _observe(p, a, e, drones, obstacles, w, i, i)


@joined
def _step_many(p: Any, a: Any, e: Any, actions: Any, w: Any, rows: Any) -> None:
    """A control step of an environment with more drones than fit into the scratch at once."""
    when, key, flags, counters = _begin_tick(p, a, e), a.keys[e], a.flags[e], a.counters[e]
    drones, n = a.drones[e], a.flags.shape[1]
    extra, deeds, keys = np.empty((16, n), np.float32), np.empty((DEEDS, n), np.float32), np.empty(64, np.float32)
    for first in range(0, n, BLOCK):
        size = min(BLOCK, n - first)
        _fly_block(p, a, e, actions, w, rows, first, size, when)
        _store(drones, w, first, size)
        extra[:9, first : first + size] = rows[at.NORMAL : at.NORMAL + 9, :size]
        extra[9:13, first : first + size] = rows[at.WALL : at.WALL + 4, :size]
        extra[13, first : first + size] = rows[at.AXIS, :size]
    grid = build(p, drones)
    meet_on_grid(p, grid, drones, flags, deeds, counters, when, key)
    obstacles, radius = a.obstacles[e], a.settings[e, at.RADIUS]
    touching = (radius + p.arm) * (radius + p.arm)
    for i in range(n):
        happened = deeds[at.TOUCHED, i] + extra[9, i] + extra[10, i] > f4(0) or extra[13, i] <= touching
        if happened and not flags[i] & at.LOST:
            settle(
                p, drones, flags, deeds, counters, i, extra[13, i], obstacles, radius, extra[9, i], extra[10, i],
                when, key,
            )  # fmt: skip
    refresh(grid, drones)
    for first in range(0, n, BLOCK):
        size = min(BLOCK, n - first)
        for row in range(at.ROWS):
            rows[row, :size] = drones[row, first : first + size]
        rows[at.NORMAL : at.NORMAL + 9, :size] = extra[:9, first : first + size]
        rows[at.WALL : at.WALL + 4, :size] = extra[9:13, first : first + size]
        for i in range(size):
            _judge(p, a, e, flags, counters, rows, i, first + i, deeds[at.CROWD, first + i])
        _remember(w, size)
        _store(drones, w, first, size)
        for i in range(size):
            rank_on_grid(p, grid, drones, first + i, a.neighbours[e, first + i], keys)
            _observe(p, a, e, drones, obstacles, w, i, first + i)


@joined
def _look_few(p: Any, a: Any, e: Any, w: Any, rows: Any) -> None:
    """Write what the drones of an environment observe, with this tick's noise."""
    when, n = (u4(a.counters[e, at.TICK]), u4(a.counters[e, at.EPISODE])), a.flags.shape[1]
    drones, obstacles = a.drones[e], a.obstacles[e]
    rows[: at.ROWS, :n] = drones
    if p.noisy:
        draw_sensor_noise(w, (n + 7) // 8 * 8, 0, when, a.keys[e])
    for i in range(n):
        rank(p, w, i, n, a.neighbours[e, i])
        _observe(p, a, e, drones, obstacles, w, i, i)


@joined
def _look_many(p: Any, a: Any, e: Any, w: Any, rows: Any) -> None:
    """As `_look_few`, with more than BLOCK drones."""
    when, n = (u4(a.counters[e, at.TICK]), u4(a.counters[e, at.EPISODE])), a.flags.shape[1]
    keys = np.empty(64, np.float32)
    drones, obstacles = a.drones[e], a.obstacles[e]
    grid = build(p, drones)
    for first in range(0, n, BLOCK):
        size = min(BLOCK, n - first)
        rows[: at.ROWS, :size] = drones[:, first : first + size]
        if p.noisy:
            draw_sensor_noise(w, (size + 7) // 8 * 8, first, when, a.keys[e])
        for i in range(size):
            rank_on_grid(p, grid, drones, first + i, a.neighbours[e, first + i], keys)
            _observe(p, a, e, drones, obstacles, w, i, first + i)


@joined
def _begin_episode(p: Any, a: Any, e: Any, fresh: Any) -> None:
    if fresh:
        start_episode(
            p, a.drones[e], a.flags[e], a.counters[e], a.settings[e], a.obstacles[e], a.cells[e], a.table,
            (a.densities, a.sizes), a.keys[e],
        )  # fmt: skip
    a.truncated[e] = False
    a.terminated[e, :] = False


def _version() -> int:
    # Numba keeps compiled code by the file of the outermost function alone. Its cache also compares what that function
    # closes over: so this number makes it see a change in any file.
    folder = Path(__file__).parent
    return zlib.crc32(b"".join((folder / f"{name}.py").read_bytes() for name in _SOURCES))


@functools.cache
def stepper(*, grid: bool) -> Any:
    """The compiled `step(low, high, p, arrays, actions)` of environments low...high; lets go of the interpreter lock.

    Args:
        grid: For more than BLOCK drones. They are apart because compiling takes long.
    """
    version = _version()

    @njit(cache=True, **OPTIONS)
    def step_few(low, high, p, a, actions):  # type: ignore[no-untyped-def]
        w = np.zeros(WORK_ROWS * LANES + (version & 0), np.float32)
        rows, deeds = w.reshape(WORK_ROWS, LANES), np.empty((DEEDS, LANES), np.float32)
        for e in range(low, high):
            _step_few(p, a, e, actions, w, rows, deeds)
            a.truncated[e] = a.counters[e, at.TICK] >= a.counters[e, at.ENDS]

    @njit(cache=True, **OPTIONS)
    def step_many(low, high, p, a, actions):  # type: ignore[no-untyped-def]
        w = np.zeros(WORK_ROWS * LANES + (version & 0), np.float32)
        rows = w.reshape(WORK_ROWS, LANES)
        for e in range(low, high):
            _step_many(p, a, e, actions, w, rows)
            a.truncated[e] = a.counters[e, at.TICK] >= a.counters[e, at.ENDS]

    return step_many if grid else step_few


@functools.cache
def resetter(*, grid: bool) -> Any:
    """The compiled `reset(low, high, p, arrays, mask, fresh)`.

    Where `mask` is set it begins an episode, if `fresh` is set too, and writes what is observed.

    Args:
        grid: As for `stepper`.
    """
    version = _version()

    @njit(cache=True, **OPTIONS)
    def reset_few(low, high, p, a, mask, fresh):  # type: ignore[no-untyped-def]
        w = np.zeros(WORK_ROWS * LANES + (version & 0), np.float32)
        rows = w.reshape(WORK_ROWS, LANES)
        for e in range(low, high):
            if mask[e]:
                _begin_episode(p, a, e, fresh[e])
                _look_few(p, a, e, w, rows)

    @njit(cache=True, **OPTIONS)
    def reset_many(low, high, p, a, mask, fresh):  # type: ignore[no-untyped-def]
        w = np.zeros(WORK_ROWS * LANES + (version & 0), np.float32)
        rows = w.reshape(WORK_ROWS, LANES)
        for e in range(low, high):
            if mask[e]:
                _begin_episode(p, a, e, fresh[e])
                _look_many(p, a, e, w, rows)

    return reset_many if grid else reset_few
