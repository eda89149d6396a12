"""Loops over the drones of one environment: actions, noise, flight, reward. All of them turn into vector code.

A loop goes over whole lanes of eight drones; what stands in lanes without a drone is worked, too, and never read.
"""

from __future__ import annotations

from typing import Any

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.compiling import compiled, joined
from coterie.envs.swarm.draws import f4, normals, u4
from coterie.envs.swarm.flight import advance, demand, earned, length, straighten, touch_down, wander
from coterie.envs.swarm.layout import FOR_ROTORS, FOR_SENSORS, LANES, PURPOSES


@joined
def get3(w: Any, row: Any, i: Any) -> Any:
    """Three rows of lane i."""
    return w[row * LANES + i], w[(row + 1) * LANES + i], w[(row + 2) * LANES + i]


@joined
def put3(w: Any, row: Any, i: Any, x: Any) -> None:
    """Set three rows of lane i."""
    w[row * LANES + i], w[(row + 1) * LANES + i], w[(row + 2) * LANES + i] = x[0], x[1], x[2]


@joined
def get4(w: Any, row: Any, i: Any) -> Any:
    """Four rows of lane i."""
    return w[row * LANES + i], w[(row + 1) * LANES + i], w[(row + 2) * LANES + i], w[(row + 3) * LANES + i]


@joined
def get9(w: Any, row: Any, i: Any) -> Any:
    """Nine rows of lane i."""
    return (
        w[row * LANES + i], w[(row + 1) * LANES + i], w[(row + 2) * LANES + i],
        w[(row + 3) * LANES + i], w[(row + 4) * LANES + i], w[(row + 5) * LANES + i],
        w[(row + 6) * LANES + i], w[(row + 7) * LANES + i], w[(row + 8) * LANES + i],
    )  # fmt: skip


@joined
def put9(w: Any, row: Any, i: Any, r: Any) -> None:
    """Set nine rows of lane i."""
    put3(w, row, i, (r[0], r[1], r[2]))
    put3(w, row + 3, i, (r[3], r[4], r[5]))
    put3(w, row + 6, i, (r[6], r[7], r[8]))


@compiled
def _draw(w: Any, row: Any, n: Any, first: Any, purpose: Any, t: Any, e: Any, k0: Any, k1: Any) -> None:
    """Four standard normals per drone into four rows."""
    # A slice, because indices that might be negative keep loops from becoming vector code.
    out = w[row * LANES : (row + 4) * LANES]
    for i in range(n):
        z0, z1, z2, z3 = normals(first + i, t, e, purpose, k0, k1)
        out[i], out[LANES + i], out[2 * LANES + i], out[3 * LANES + i] = z0, z1, z2, z3


@joined
def draw_rotor_noise(p: Any, w: Any, n: Any, first: Any, when: Any, key: Any) -> None:
    """Advance the Ornstein-Uhlenbeck noise of the motors."""
    _draw(w, at.NORMAL, n, first, FOR_ROTORS * PURPOSES, when[0], when[1], key[0], key[1])
    for k in range(4):
        for i in range(n):
            w[(at.JITTER + k) * LANES + i] = wander(p, w[(at.JITTER + k) * LANES + i], w[(at.NORMAL + k) * LANES + i])


@joined
def draw_sensor_noise(w: Any, n: Any, first: Any, when: Any, key: Any) -> None:
    """Nine standard normals per drone into NORMAL, and three more."""
    for k in range(3):
        _draw(w, at.NORMAL + 4 * k, n, first, FOR_SENSORS * PURPOSES + k, when[0], when[1], key[0], key[1])


@compiled
def take_actions(w: Any, n: Any) -> None:
    """From ACTION: what motors are driven to, and what noise adds to their thrust."""
    for k in range(4):
        action, jitter = (at.ACTION + k) * LANES, (at.JITTER + k) * LANES
        target, push = (at.TARGET + k) * LANES, (at.PUSH + k) * LANES
        for i in range(n):
            w[target + i], w[push + i] = demand(w[action + i], w[jitter + i])


@compiled
def _fly_high(p: Any, w: Any, n: Any) -> None:
    """One physics step in the air; leaves the sums of the shares of thrust in KEY."""
    for i in range(n):
        x, v, r, omega, motor, total, wall, ceiling = advance(
            p, get3(w, at.POSITION, i), get3(w, at.VELOCITY, i), get9(w, at.ATTITUDE, i), get3(w, at.OMEGA, i),
            get4(w, at.MOTOR, i), get4(w, at.TARGET, i), get4(w, at.PUSH, i),
        )  # fmt: skip
        put3(w, at.POSITION, i, x)
        put3(w, at.VELOCITY, i, v)
        put9(w, at.ATTITUDE, i, r)
        put3(w, at.OMEGA, i, omega)
        put3(w, at.MOTOR, i, motor)
        w[(at.MOTOR + 3) * LANES + i] = motor[3]
        w[at.KEY * LANES + i] = total
        w[at.WALL * LANES + i] += wall
        w[at.CEILING * LANES + i] += ceiling


@compiled
def _fly_low(p: Any, w: Any, lanes: Any, n: Any, flags: Any, first: Any, when: Any, key: Any) -> None:
    for i in range(lanes):
        put3(w, at.OLD_VELOCITY, i, get3(w, at.VELOCITY, i))
    _fly_high(p, w, lanes)
    zero = (f4(0), f4(0), f4(0))
    for i in range(n):
        drone = first + i
        landed = flags[drone] & at.LANDED != 0
        if w[(at.POSITION + 2) * LANES + i] > p.floor:
            flags[drone] &= ~at.LANDED
            continue
        before, r, total = get3(w, at.OLD_VELOCITY, i), get9(w, at.ATTITUDE, i), w[at.KEY * LANES + i]
        v, r = touch_down(p, landed, total, before, r, drone, when, key)
        w[(at.POSITION + 2) * LANES + i] = p.floor
        put3(w, at.VELOCITY, i, v)
        put9(w, at.ATTITUDE, i, r)
        put3(w, at.OMEGA, i, zero)
        if not landed:
            flags[drone] |= at.LANDED | at.HIT_FLOOR
            for k in range(4):
                w[(at.MOTOR + k) * LANES + i] = f4(0)


@joined
def _lowest(p: Any, w: Any, n: Any) -> Any:
    """A height that none of the drones will be under at the end of this tick."""
    lowest, z, v = f4(1e9), (at.POSITION + 2) * LANES, (at.VELOCITY + 2) * LANES
    for i in range(n):
        lowest = min(lowest, w[z + i] + p.tick_time * min(w[v + i], f4(0)))
    return lowest - p.tick_time * p.tick_time * (f4(9.81) + f4(4) * p.lift)


@joined
def fly(p: Any, w: Any, lanes: Any, n: Any, flags: Any, first: Any, when: Any, key: Any) -> None:
    """All physics steps of a tick for the n drones from `first` on; also sets WALL and CEILING."""
    low = _lowest(p, w, n) <= p.floor
    for step in range(p.substeps):
        if step == 0 or (p.last_wall and step == p.substeps - 1):
            for i in range(lanes):
                w[at.WALL * LANES + i], w[at.CEILING * LANES + i] = f4(0), f4(0)
        if low:
            _fly_low(p, w, lanes, n, flags, first, when, key)
        else:
            _fly_high(p, w, lanes)
    if when[0] % u4(50) == u4(0):
        for i in range(lanes):
            put9(w, at.ATTITUDE, i, straighten(get9(w, at.ATTITUDE, i)))


@compiled
def reward(p: Any, w: Any, n: Any, tick: Any, left: Any) -> None:
    """The reward in the air, and the sums of distances; `left` ticks of the episode are left after this one."""
    ring = w[(at.RING + tick % 5) * LANES : (at.RING + tick % 5 + 1) * LANES]
    last_1s, last_3s = f4(left < p.control_hz), f4(left < 3 * p.control_hz)
    last_5s = f4(left < 5 * p.control_hz)
    for i in range(n):
        (x, y, z), (gx, gy, gz) = get3(w, at.POSITION, i), get3(w, at.GOAL, i)
        distance = length(x - gx, y - gy, z - gz)
        upright, omega, action = w[(at.ATTITUDE + 8) * LANES + i], get3(w, at.OMEGA, i), get4(w, at.ACTION, i)
        w[at.REWARD * LANES + i] = earned(p, distance, upright, omega, action)
        w[at.DISTANCE * LANES + i] = distance
        w[at.NEAR_1S * LANES + i] += last_1s * distance
        w[at.NEAR_3S * LANES + i] += last_3s * distance
        w[at.NEAR_5S * LANES + i] += last_5s * distance
    for i in range(n):
        ring[i] = w[at.DISTANCE * LANES + i]
