"""One control step of one environment, and of a range of them, in one pass over arrays that stay in cache."""

from __future__ import annotations

import functools
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.compiling import OPTIONS, compiled, joined
from coterie.envs.swarm.draws import f4, u4, u8
from coterie.envs.swarm.encounters import concerns, meet, note, settle
from coterie.envs.swarm.goals import plan_leg
from coterie.envs.swarm.grid import Grid, allocate, build, meet_on_grid, rank_on_grid, refresh
from coterie.envs.swarm.layout import BLOCK, DEEDS, LANES, PADDING, WORK_ROWS
from coterie.envs.swarm.motion import draw_rotor_noise, draw_sensor_noise, fly, get3, get9, reward, take_actions
from coterie.envs.swarm.parameters import Parameters
from coterie.envs.swarm.perception import find_axes, observe_other, observe_self, patch, rank
from coterie.envs.swarm.spawning import NOWHERE, start_episode

_SOURCES = (
    "compiling", "contacts", "draws", "encounters", "flight", "goals", "grid", "kernel", "layout", "motion",
    "perception", "spawning",
)  # fmt: skip
_FRESH = ~(
    at.TOUCHES_DRONE | at.TOUCHES_OBSTACLE | at.HIT_DRONE | at.HIT_OBSTACLE | at.HIT_FLOOR | at.HIT_WALL
    | at.HIT_CEILING | at.WAS_TOUCHING_DRONE | at.WAS_TOUCHING_OBSTACLE
)  # fmt: skip

_EXTRA = 13


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


class Scratch(NamedTuple):
    """What one thread works in, N drones at a time.

    Attributes:
        w: float32 [WORK_ROWS * LANES], up to BLOCK drones of one environment.
        rows: float32 [WORK_ROWS, LANES], the same memory.
        deeds: float32 [DEEDS, at least N].
        extra: float32 [EXTRA, at least N], what is kept of `w` between blocks.
        keys: float32 [64].
        grid: For more than BLOCK drones.
    """

    w: NDArray[np.float32]
    rows: NDArray[np.float32]
    deeds: NDArray[np.float32]
    extra: NDArray[np.float32]
    keys: NDArray[np.float32]
    grid: Grid


def scratch(p: Parameters, num_drones: int) -> Scratch:
    """Room for one thread."""
    w, many = np.zeros(WORK_ROWS * LANES, np.float32), num_drones if p.grid else 0
    return Scratch(
        w, w.reshape(WORK_ROWS, LANES), np.zeros((DEEDS, max(many, BLOCK) + PADDING), np.float32),
        np.zeros((_EXTRA, many + PADDING), np.float32), np.zeros(64, np.float32), allocate(p, many),
    )  # fmt: skip


@joined
def _move_goals(p: Any, drones: Any, counters: Any, settings: Any, cells: Any, table: Any, when: Any, key: Any) -> None:
    if counters[at.TICK] >= counters[at.NEXT_LEG]:
        plan_leg(p, drones, counters, settings, cells, table[counters[at.SCENARIO]], when, key)
    if counters[at.MOVING]:
        for i in range(drones.shape[1]):
            for k in range(3):
                high = p.half_x if k == 0 else p.half_y if k == 1 else p.height
                low = f4(0.3) if k == 2 else f4(0.3) - high
                goal = drones[at.GOAL + k, i] + drones[at.GOAL_STEP + k, i]
                drones[at.GOAL + k, i] = min(max(goal, low), high - f4(0.3))
                drones[at.GOAL_STEP + k, i] += drones[at.GOAL_BEND + k, i]


@compiled
def _load(drones: Any, w: Any, first: Any, n: Any) -> None:
    # Unsigned, because an index that might be negative keeps a loop from becoming vector code.
    for row in range(at.ROWS):
        for i in range(n):
            w[row * LANES + i] = drones[row, u8(first + i)]


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
def park(rows: Any, i: Any, drone: Any) -> None:
    """Keep a lost drone out of the world."""
    for k in range(3):
        rows[at.VELOCITY + k, i], rows[at.OMEGA + k, i] = f4(0), f4(0)
        rows[at.POSITION + k, i] = f4(NOWHERE) * f4(drone + 1)


@joined
def _fly_block(p: Any, a: Any, e: Any, actions: Any, s: Any, first: Any, n: Any, when: Any) -> None:
    """Move drones first...first + n of an environment, in scratch."""
    key, flags, w, lanes = a.keys[e], a.flags[e], s.w, (n + 7) // 8 * 8
    _load(a.drones[e], w, first, n)
    for i in range(n):
        for k in range(4):
            w[(at.ACTION + k) * LANES + i] = actions[e, u8(first + i), k]
    if p.noisy:
        draw_rotor_noise(p, w, lanes, first, when, key)
        draw_sensor_noise(w, lanes, first, when, key)
    take_actions(w, lanes)
    fly(p, w, lanes, n, flags, first, when, key)
    tick = a.counters[e, at.TICK]
    reward(p, w, lanes, tick, a.counters[e, at.ENDS] - tick)
    if p.lose:
        for i in range(n):
            if flags[first + i] & at.LOST:
                park(s.rows, i, first + i)
                s.rows[at.WALL, i], s.rows[at.CEILING, i] = f4(0), f4(0)
    if p.has_obstacles:
        find_axes(w, lanes, a.obstacles[e], a.counters[e, at.NUM_OBSTACLES])


@joined
def judge(p: Any, a: Any, e: Any, counters: Any, rows: Any, i: Any, drone: Any, gain: Any, crowd: Any) -> None:
    """The rest of the reward, what was reached, and whether the drone is done.

    Args:
        p: The parameters.
        a: The arrays.
        e: The environment.
        counters: Its counters, or one thread's share of them.
        rows: States, changed.
        i: Where the drone stands in `rows`.
        drone: Which it is.
        gain: The reward in the air.
        crowd: Nearness of others.
    """
    flags = a.flags[e]
    if flags[drone] & at.LOST:
        a.reward[e, drone] = f4(0)
        return
    if flags[drone] & at.LANDED:
        # In the air the body's vertical axis earned something; on the floor, where it is upright, that is a cost.
        gain -= p.on_floor + f4(2) * p.upright
        rows[at.ON_FLOOR_TICKS, i] += f4(1)
    hit, hit_obstacle = note(p, flags, counters, drone)
    cost = p.proximity * crowd
    if hit:
        cost += p.collision
    if hit_obstacle:
        cost += p.obstacle
    gain -= a.settings[e, at.PENALTY] * cost
    a.reward[e, drone] = gain
    total = rows[at.RING, i] + rows[at.RING + 1, i] + rows[at.RING + 2, i] + rows[at.RING + 3, i] + rows[at.RING + 4, i]
    if total < f4(5) * a.table[counters[at.SCENARIO], at.REACH]:
        flags[drone] |= at.REACHED
    if p.lose and (hit or hit_obstacle):
        flags[drone] |= at.LOST
        a.terminated[e, drone] = True


@joined
def observe(p: Any, a: Any, e: Any, drone: Any, x: Any, v: Any, r: Any, omega: Any, goal: Any, noise: Any) -> None:
    """Write what a drone observes; its neighbours are known. See `perception.observe_self` for the rest."""
    out = a.observation[e, drone]
    if a.flags[e, drone] & at.LOST:
        out[:] = f4(0)
        a.neighbours[e, drone, :] = -1
        return
    size = observe_self(p, x, v, r, omega, goal, noise, out)
    for k in range(p.num_neighbours):
        observe_other(a.drones[e], drone, a.neighbours[e, drone, k], out, size)
        size += 6
    if p.has_obstacles:
        patch(x[0], x[1], a.obstacles[e], a.counters[e, at.NUM_OBSTACLES], a.settings[e, at.RADIUS], out, size)


@joined
def check(a: Any, e: Any, rows: Any, i: Any, drone: Any) -> None:
    """Note a number that is none. By itself, as compilers drop the test where they see how the number came about."""
    if not math.isfinite(a.reward[e, drone]) or not math.isfinite(rows[at.VELOCITY + 2, i] + rows[at.ATTITUDE, i]):
        a.broken[e] = True


@joined
def _observe_lane(p: Any, a: Any, e: Any, w: Any, i: Any, drone: Any) -> None:
    observe(
        p, a, e, drone, get3(w, at.POSITION, i), get3(w, at.VELOCITY, i), get9(w, at.ATTITUDE, i),
        get3(w, at.OMEGA, i), get3(w, at.GOAL, i), get9(w, at.NORMAL, i),
    )  # fmt: skip


@joined
def begin_tick(p: Any, a: Any, e: Any) -> None:
    """Count the tick, let contacts be those of the last one, and move goals."""
    counters, flags = a.counters[e], a.flags[e]
    counters[at.TICK] += 1
    counters[at.EVENT] = 0
    for i in range(len(flags)):
        was = flags[i] & (at.TOUCHES_DRONE | at.TOUCHES_OBSTACLE)
        flags[i] = flags[i] & _FRESH | was << 8
    _move_goals(p, a.drones[e], counters, a.settings[e], a.cells[e], a.table, now(a, e), a.keys[e])


@joined
def now(a: Any, e: Any) -> Any:
    """Tick and episode of an environment."""
    return u4(a.counters[e, at.TICK]), u4(a.counters[e, at.EPISODE])


@joined
def _step_few(p: Any, a: Any, e: Any, actions: Any, s: Any) -> None:
    """A control step of an environment with at most BLOCK drones."""
    begin_tick(p, a, e)
    when, key, flags, counters, n = now(a, e), a.keys[e], a.flags[e], a.counters[e], a.flags.shape[1]
    w, rows, deeds = s.w, s.rows, s.deeds
    _fly_block(p, a, e, actions, s, 0, n, when)
    meet(p, w, rows, n, flags, deeds, counters, when, key)
    drones, obstacles, radius = a.drones[e], a.obstacles[e], a.settings[e, at.RADIUS]
    for i in range(n):
        axis, wall, ceiling = rows[at.AXIS, i], rows[at.WALL, i], rows[at.CEILING, i]
        if concerns(p, deeds, i, axis, radius, wall, ceiling) and not flags[i] & at.LOST:
            settle(p, rows, flags, deeds, counters, i, axis, obstacles, radius, wall, ceiling, when, key)
        judge(p, a, e, counters, rows, i, i, rows[at.REWARD, i], deeds[at.CROWD, i])
        check(a, e, rows, i, i)
    _remember(w, n)
    _store(drones, w, 0, n)
    for i in range(n):
        rank(p, w, i, n, a.neighbours[e, i])
        _observe_lane(p, a, e, w, i, i)


@compiled
def _keep(w: Any, extra: Any, first: Any, n: Any) -> None:
    for k in range(9):
        for i in range(n):
            extra[k, u8(first + i)] = w[(at.NORMAL + k) * LANES + i]
    for i in range(n):
        extra[9, first + i], extra[10, first + i] = w[at.WALL * LANES + i], w[at.CEILING * LANES + i]
        extra[11, first + i], extra[12, first + i] = w[at.REWARD * LANES + i], w[at.AXIS * LANES + i]


@compiled
def _recall(drones: Any, extra: Any, w: Any, first: Any, n: Any) -> None:
    _load(drones, w, first, n)
    for k in range(9):
        for i in range(n):
            w[(at.NORMAL + k) * LANES + i] = extra[k, u8(first + i)]


@joined
def _step_many(p: Any, a: Any, e: Any, actions: Any, s: Any) -> None:
    """A control step of an environment with more drones than fit into the scratch at once."""
    begin_tick(p, a, e)
    when, key, flags, counters, n = now(a, e), a.keys[e], a.flags[e], a.counters[e], a.flags.shape[1]
    drones, w, rows, deeds, extra = a.drones[e], s.w, s.rows, s.deeds, s.extra
    for first in range(0, n, BLOCK):
        size = min(BLOCK, n - first)
        _fly_block(p, a, e, actions, s, first, size, when)
        _store(drones, w, first, size)
        _keep(w, extra, first, size)
    build(p, s.grid, drones)
    meet_on_grid(p, s.grid, drones, flags, deeds, counters, when, key)
    obstacles, radius = a.obstacles[e], a.settings[e, at.RADIUS]
    for i in range(n):
        axis, wall, ceiling = extra[12, i], extra[9, i], extra[10, i]
        if concerns(p, deeds, i, axis, radius, wall, ceiling) and not flags[i] & at.LOST:
            settle(p, drones, flags, deeds, counters, i, axis, obstacles, radius, wall, ceiling, when, key)
    refresh(s.grid, drones)
    # In blocks again: where N is a power of two, a drone's rows fall into the same sets of the cache.
    for first in range(0, n, BLOCK):
        size = min(BLOCK, n - first)
        _recall(drones, extra, w, first, size)
        for i in range(size):
            judge(p, a, e, counters, rows, i, first + i, extra[11, first + i], deeds[at.CROWD, first + i])
            check(a, e, rows, i, first + i)
            rank_on_grid(p, s.grid, drones, first + i, a.neighbours[e, first + i], s.keys)
            _observe_lane(p, a, e, w, i, first + i)
        _remember(w, size)
        _store(drones, w, first, size)


@joined
def _look_few(p: Any, a: Any, e: Any, s: Any) -> None:
    """Write what the drones of an environment observe, with this tick's noise."""
    n = a.flags.shape[1]
    _look_up(p, a, e, s, 0, n)
    for i in range(n):
        rank(p, s.w, i, n, a.neighbours[e, i])
        _observe_lane(p, a, e, s.w, i, i)


@joined
def _look_up(p: Any, a: Any, e: Any, s: Any, first: Any, n: Any) -> None:
    _load(a.drones[e], s.w, first, n)
    if p.noisy:
        draw_sensor_noise(s.w, (n + 7) // 8 * 8, first, now(a, e), a.keys[e])


@joined
def _look_many(p: Any, a: Any, e: Any, s: Any) -> None:
    """As `_look_few`, with more than BLOCK drones."""
    n = a.flags.shape[1]
    build(p, s.grid, a.drones[e])
    for first in range(0, n, BLOCK):
        size = min(BLOCK, n - first)
        _look_up(p, a, e, s, first, size)
        for i in range(size):
            rank_on_grid(p, s.grid, a.drones[e], first + i, a.neighbours[e, first + i], s.keys)
            _observe_lane(p, a, e, s.w, i, first + i)


@joined
def begin_episode(p: Any, a: Any, e: Any, fresh: Any) -> None:
    """Begin an episode of one environment, if `fresh`; without, go on with what its rows hold."""
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
    """The compiled `step(low, high, p, arrays, actions, scratch)` of environments low...high; frees the interpreter.

    Args:
        grid: For more than BLOCK drones. They are apart because compiling takes long.
    """
    version = _version()

    @njit(cache=True, **OPTIONS)
    def step_few(low, high, p, a, actions, s):  # type: ignore[no-untyped-def]
        for e in range(low, high + (version & 0)):
            _step_few(p, a, e, actions, s)
            a.truncated[e] = a.counters[e, at.TICK] >= a.counters[e, at.ENDS]

    @njit(cache=True, **OPTIONS)
    def step_many(low, high, p, a, actions, s):  # type: ignore[no-untyped-def]
        for e in range(low, high + (version & 0)):
            _step_many(p, a, e, actions, s)
            a.truncated[e] = a.counters[e, at.TICK] >= a.counters[e, at.ENDS]

    return step_many if grid else step_few


@functools.cache
def resetter(*, grid: bool) -> Any:
    """The compiled `reset(low, high, p, arrays, mask, fresh, scratch)`.

    Where `mask` is set it begins an episode, if `fresh` is set too, and writes what is observed.

    Args:
        grid: As for `stepper`.
    """
    version = _version()

    @njit(cache=True, **OPTIONS)
    def reset_few(low, high, p, a, mask, fresh, s):  # type: ignore[no-untyped-def]
        for e in range(low, high + (version & 0)):
            if mask[e]:
                begin_episode(p, a, e, fresh[e])
                _look_few(p, a, e, s)

    @njit(cache=True, **OPTIONS)
    def reset_many(low, high, p, a, mask, fresh, s):  # type: ignore[no-untyped-def]
        for e in range(low, high + (version & 0)):
            if mask[e]:
                begin_episode(p, a, e, fresh[e])
                _look_many(p, a, e, s)

    return reset_many if grid else reset_few
