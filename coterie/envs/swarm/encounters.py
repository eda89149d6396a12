"""Who meets whom in a tick, and what comes of it: contacts among drones, with obstacles and walls, and downwash.

`rows` is any array [at least ROWS, n] of drones' states, `deeds` an array [DEEDS, n] of what others do to each.
Positions are those at the end of the tick; velocities are changed only when everybody has met everybody.
"""

from __future__ import annotations

import math
from typing import Any

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.compiling import compiled, inlined
from coterie.envs.swarm.contacts import bounce, limited, plus, rebound, repel, scaled, wash
from coterie.envs.swarm.draws import f4
from coterie.envs.swarm.perception import nearest_squared


@inlined
def column(rows: Any, row: Any, i: Any) -> Any:
    """Three numbers of a drone."""
    return rows[row, i], rows[row + 1, i], rows[row + 2, i]


@inlined
def column9(rows: Any, row: Any, i: Any) -> Any:
    """Nine numbers of a drone."""
    a, b, c = column(rows, row, i), column(rows, row + 3, i), column(rows, row + 6, i)
    return a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2]


@compiled
def add(rows: Any, row: Any, i: Any, x: Any) -> None:
    """Add three numbers to a drone's."""
    for k in range(3):
        rows[row + k, i] += x[k]


@compiled
def _collide(p: Any, rows: Any, deeds: Any, i: Any, j: Any, normal: Any, when: Any, key: Any) -> None:
    vi, vj = column(rows, at.VELOCITY, i), column(rows, at.VELOCITY, j)
    sign = f4(1) if i < j else f4(-1)
    kick, twist = bounce(min(i, j), max(i, j), sign, normal, plus(vi, f4(-1), vj), when, key)
    add(deeds, at.KICK, i, kick)
    add(deeds, at.TWIST, i, twist)
    deeds[at.TOUCHED, i] = f4(1)
    fastest = max(vi[0] * vi[0] + vi[1] * vi[1] + vi[2] * vi[2], vj[0] * vj[0] + vj[1] * vj[1] + vj[2] * vj[2])
    deeds[at.FASTEST, i] = max(deeds[at.FASTEST, i], math.sqrt(fastest))


@compiled
def pair(p: Any, rows: Any, flags: Any, deeds: Any, counters: Any, i: Any, j: Any, when: Any, key: Any) -> None:
    """What j does to i, which is near it."""
    apart = plus(column(rows, at.POSITION, i), f4(-1), column(rows, at.POSITION, j))
    distance = math.sqrt(apart[0] * apart[0] + apart[1] * apart[1] + apart[2] * apart[2])
    deeds[at.CROWD, i] += max(f4(0), f4(1) - distance / p.proximity_range)
    touching = f4(2) * p.arm
    if distance <= touching:
        flags[i] |= at.TOUCHES_DRONE
        was = plus(column(rows, at.BEFORE, i), f4(-1), column(rows, at.BEFORE, j))
        if was[0] * was[0] + was[1] * was[1] + was[2] * was[2] > touching * touching:
            _collide(p, rows, deeds, i, j, scaled(apart, f4(1)), when, key)
            if i < j:
                counters[at.PAIR_CONTACTS] += 1
    if p.downwash:
        up = (rows[at.ATTITUDE + 2, j], rows[at.ATTITUDE + 5, j], rows[at.ATTITUDE + 8, j])
        felt, push, twist = wash(j, i, up, apart, p.tick_time, when, key)
        if felt:
            add(deeds, at.WASH, i, push)
            add(deeds, at.TWIST, i, twist)
            deeds[at.TOUCHED, i] = f4(1)


@compiled
def meet(p: Any, w: Any, rows: Any, n: Any, flags: Any, deeds: Any, counters: Any, when: Any, key: Any) -> None:
    """All pairs among up to BLOCK drones, whose scratch is w, seen as rows by `rows`."""
    for k in range(at.DEEDS):
        for i in range(n):
            deeds[k, i] = f4(0)
    reach = p.reach * p.reach
    for i in range(n):
        if nearest_squared(w, i, n) < reach:
            for j in range(n):
                if j != i and w[at.SQUARED * at.LANES + j] < reach:
                    pair(p, rows, flags, deeds, counters, i, j, when, key)


@compiled
def _hit_obstacle(
    p: Any, rows: Any, flags: Any, i: Any, obstacles: Any, count: Any, radius: Any, when: Any, key: Any
) -> None:
    x, y, nearest, best = rows[at.POSITION, i], rows[at.POSITION + 1, i], 0, f4(1e9)
    for m in range(count):
        dx, dy = x - obstacles[0, m], y - obstacles[1, m]
        if dx * dx + dy * dy < best:
            best, nearest = dx * dx + dy * dy, m
    normal = scaled((x - obstacles[0, nearest], y - obstacles[1, nearest], f4(0)), f4(1))
    velocity = column(rows, at.VELOCITY, i)
    fresh = not flags[i] & at.WAS_TOUCHING_OBSTACLE
    flags[i] |= at.TOUCHES_OBSTACLE
    # One that is still inside and on its way out is left alone.
    if fresh or velocity[0] * normal[0] + velocity[1] * normal[1] < f4(0):
        after, twist = rebound(i, velocity, normal, best < radius * radius, when, key)
        for k in range(3):
            rows[at.VELOCITY + k, i] = after[k]
        add(rows, at.OMEGA, i, twist)


@compiled
def _hit_room(p: Any, rows: Any, flags: Any, i: Any, at_wall: Any, when: Any, key: Any) -> None:
    x, y = rows[at.POSITION, i], rows[at.POSITION + 1, i]
    away_x, away_y = f4(0), f4(0)
    if at_wall:
        away_x = f4(-1) if x >= p.half_x else (f4(1) if x <= -p.half_x else f4(0))
        away_y = f4(-1) if y >= p.half_y else (f4(1) if y <= -p.half_y else f4(0))
    after, twist = repel(i, column(rows, at.VELOCITY, i), away_x, away_y, when, key)
    for k in range(3):
        rows[at.VELOCITY + k, i] = after[k]
    add(rows, at.OMEGA, i, twist)


@inlined
def concerns(p: Any, deeds: Any, i: Any, axis: Any, radius: Any, wall: Any, ceiling: Any) -> Any:
    """Whether `settle` has anything to do."""
    touching = radius + p.arm
    return deeds[at.TOUCHED, i] + wall + ceiling > f4(0) or (p.has_obstacles and axis <= touching * touching)


@compiled
def settle(
    p: Any, rows: Any, flags: Any, deeds: Any, counters: Any, i: Any, axis: Any, obstacles: Any, radius: Any, wall: Any,
    ceiling: Any, when: Any, key: Any,
) -> None:  # fmt: skip
    """Change velocities of one drone by what it met.

    Args:
        p: The parameters.
        rows: States, changed.
        flags: Changed.
        deeds: What others do to it.
        counters: Of the environment, changed.
        i: The drone.
        axis: Squared horizontal distance to the nearest obstacle's axis.
        obstacles: [2, M].
        radius: Of the obstacles.
        wall: Above zero if it was stopped by a wall.
        ceiling: Likewise.
        when: Tick and episode.
        key: Of the environment.
    """
    if deeds[at.FASTEST, i] > f4(0):
        kicked = plus(column(rows, at.VELOCITY, i), f4(1), column(deeds, at.KICK, i))
        after = limited(i, kicked, deeds[at.FASTEST, i], when, key)
        for k in range(3):
            rows[at.VELOCITY + k, i] = after[k]
    add(rows, at.VELOCITY, i, column(deeds, at.WASH, i))
    add(rows, at.OMEGA, i, column(deeds, at.TWIST, i))
    touching = radius + p.arm
    if p.has_obstacles and axis <= touching * touching:
        _hit_obstacle(p, rows, flags, i, obstacles, counters[at.NUM_OBSTACLES], radius, when, key)
    if wall > f4(0):
        flags[i] |= at.HIT_WALL
        counters[at.WALL_HITS] += 1
        _hit_room(p, rows, flags, i, True, when, key)
    if ceiling > f4(0):
        flags[i] |= at.HIT_CEILING
        counters[at.CEILING_HITS] += 1
        _hit_room(p, rows, flags, i, False, when, key)
    for k in range(3):
        rows[at.OMEGA + k, i] = min(max(rows[at.OMEGA + k, i], -p.max_omega), p.max_omega)


@inlined
def note(p: Any, flags: Any, counters: Any, i: Any) -> Any:
    """Tell fresh contacts from lasting ones; which cost something: with a drone, with an obstacle."""
    hit = flags[i] & at.TOUCHES_DRONE and not flags[i] & at.WAS_TOUCHING_DRONE
    hit_obstacle = flags[i] & at.TOUCHES_OBSTACLE and not flags[i] & at.WAS_TOUCHING_OBSTACLE
    if flags[i] & at.HIT_FLOOR:
        counters[at.FLOOR_HITS] += 1
    graced = counters[at.TICK] >= p.grace
    if hit:
        flags[i] |= at.HIT_DRONE | (at.EVER_DRONE if graced else 0)
    if hit_obstacle:
        flags[i] |= at.HIT_OBSTACLE | (at.EVER_OBSTACLE if graced else 0)
        counters[at.OBSTACLE_CONTACTS] += 1
    if hit or hit_obstacle:
        counters[at.EVENT] = 1
        if counters[at.ENDS] - counters[at.TICK] <= 5 * p.control_hz:
            counters[at.LATE_CONTACTS] += 1
    return bool(hit), bool(hit_obstacle)
