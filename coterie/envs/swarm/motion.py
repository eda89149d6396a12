"""Loops over the drones of one environment: actions, noise, flight, reward. All of them turn into vector code."""

from __future__ import annotations

from typing import Any

import numpy as np

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.compiling import compiled, inlined, joined
from coterie.envs.swarm.draws import f4, normals, u4, uniforms
from coterie.envs.swarm.flight import (
    acceleration,
    clip,
    command,
    drive,
    level,
    rotation,
    row_times,
    slide,
    straighten,
    thrust,
    turn,
)
from coterie.envs.swarm.layout import FOR_FLOOR, FOR_ROTORS, FOR_SENSORS, LANES, PURPOSES


@inlined
def get3(w: Any, row: Any, i: Any) -> Any:
    """Three rows of lane i."""
    return w[row * LANES + i], w[(row + 1) * LANES + i], w[(row + 2) * LANES + i]


@inlined
def put3(w: Any, row: Any, i: Any, x: Any) -> None:
    """Set three rows of lane i."""
    w[row * LANES + i], w[(row + 1) * LANES + i], w[(row + 2) * LANES + i] = x[0], x[1], x[2]


@inlined
def get9(w: Any, row: Any, i: Any) -> Any:
    """Nine rows of lane i."""
    return (
        w[row * LANES + i], w[(row + 1) * LANES + i], w[(row + 2) * LANES + i],
        w[(row + 3) * LANES + i], w[(row + 4) * LANES + i], w[(row + 5) * LANES + i],
        w[(row + 6) * LANES + i], w[(row + 7) * LANES + i], w[(row + 8) * LANES + i],
    )  # fmt: skip


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
            drawn = p.rotor_sigma * w[(at.NORMAL + k) * LANES + i]
            w[(at.JITTER + k) * LANES + i] = p.rotor_keep * w[(at.JITTER + k) * LANES + i] + drawn


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
            share = command(w[action + i])
            w[target + i] = np.sqrt(share)
            w[push + i] = share * w[jitter + i]


@inlined
def _spin_up(p: Any, w: Any, i: Any) -> Any:
    row = at.MOTOR * LANES + i
    u0 = drive(p.lag, w[row], w[at.TARGET * LANES + i])
    u1 = drive(p.lag, w[row + LANES], w[(at.TARGET + 1) * LANES + i])
    u2 = drive(p.lag, w[row + 2 * LANES], w[(at.TARGET + 2) * LANES + i])
    u3 = drive(p.lag, w[row + 3 * LANES], w[(at.TARGET + 3) * LANES + i])
    w[row], w[row + LANES], w[row + 2 * LANES], w[row + 3 * LANES] = u0, u1, u2, u3
    row = at.PUSH * LANES + i
    n0, n1, n2, n3 = w[row], w[row + LANES], w[row + 2 * LANES], w[row + 3 * LANES]
    return thrust(u0, n0), thrust(u1, n1), thrust(u2, n2), thrust(u3, n3)


@inlined
def _rotate(p: Any, w: Any, i: Any, omega: Any) -> Any:
    r, e = get9(w, at.ATTITUDE, i), rotation(omega[0], omega[1], omega[2], p.dt)
    a, b, c = row_times(r[0], r[1], r[2], e), row_times(r[3], r[4], r[5], e), row_times(r[6], r[7], r[8], e)
    put3(w, at.ATTITUDE, i, a)
    put3(w, at.ATTITUDE + 3, i, b)
    put3(w, at.ATTITUDE + 6, i, c)
    return a[2], b[2], c[2]


@inlined
def _advance(p: Any, w: Any, i: Any) -> None:
    """One physics step of a drone in the air; leaves the sum of its shares of thrust in KEY."""
    omega, (x, y, z), (vx, vy, vz) = get3(w, at.OMEGA, i), get3(w, at.POSITION, i), get3(w, at.VELOCITY, i)
    d0, d1, d2, d3 = _spin_up(p, w, i)
    total = d0 + d1 + d2 + d3
    up = _rotate(p, w, i, omega)
    put3(w, at.OMEGA, i, turn(p, d0, d1, d2, d3, omega[0], omega[1], omega[2]))
    a = acceleration(p, total, up, vx, vy, vz)
    x, y, z = x + p.dt * vx, y + p.dt * vy, z + p.dt * vz
    inside = (clip(x, -p.half_x, p.half_x), clip(y, -p.half_y, p.half_y), clip(z, f4(0), p.height))
    w[at.WALL * LANES + i] += abs(x - inside[0]) + abs(y - inside[1])
    w[at.CEILING * LANES + i] += max(z - p.height, f4(0))
    put3(w, at.POSITION, i, inside)
    put3(w, at.VELOCITY, i, (vx + p.dt * a[0], vy + p.dt * a[1], vz + p.dt * a[2]))
    w[at.KEY * LANES + i] = total


@compiled
def _fly_high(p: Any, w: Any, n: Any) -> None:
    for i in range(n):
        _advance(p, w, i)


@compiled
def _touch_down(p: Any, w: Any, i: Any, flags: Any, drone: Any, when: Any, key: Any) -> None:
    """Put right what `_advance` did to a drone that is at the floor."""
    w[(at.POSITION + 2) * LANES + i] = p.floor
    zero = (f4(0), f4(0), f4(0))
    put3(w, at.OMEGA, i, zero)
    if flags[drone] & at.LANDED:
        # It did not turn, so it still lies flat.
        before = get3(w, at.OLD_VELOCITY, i)
        put3(w, at.VELOCITY, i, slide(p, w[at.KEY * LANES + i], before[0], before[1], before[2], p.dt))
        return
    angle = f4(0)
    if w[(at.ATTITUDE + 8) * LANES + i] < f4(0):
        share, _, _, _ = uniforms(drone, when[0], when[1], FOR_FLOOR * PURPOSES, key[0], key[1])
        angle = f4(2 * np.pi) * share
    r = level(get9(w, at.ATTITUDE, i), angle)
    for k in range(9):
        w[(at.ATTITUDE + k) * LANES + i] = r[k]
    flags[drone] |= at.LANDED | at.HIT_FLOOR
    put3(w, at.VELOCITY, i, zero)
    for k in range(4):
        w[(at.MOTOR + k) * LANES + i] = f4(0)


@compiled
def _fly_low(p: Any, w: Any, lanes: Any, n: Any, flags: Any, first: Any, when: Any, key: Any) -> None:
    for i in range(lanes):
        put3(w, at.OLD_VELOCITY, i, get3(w, at.VELOCITY, i))
    _fly_high(p, w, lanes)
    for i in range(n):
        if w[(at.POSITION + 2) * LANES + i] <= p.floor:
            _touch_down(p, w, i, flags, first + i, when, key)
        else:
            flags[first + i] &= ~at.LANDED


@compiled
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
    for i in range(lanes):
        w[at.WALL * LANES + i], w[at.CEILING * LANES + i] = f4(0), f4(0)
    for step in range(p.substeps):
        if p.last_wall and step == p.substeps - 1:
            for i in range(lanes):
                w[at.WALL * LANES + i], w[at.CEILING * LANES + i] = f4(0), f4(0)
        if low:
            _fly_low(p, w, lanes, n, flags, first, when, key)
        else:
            _fly_high(p, w, lanes)
    if when[0] % u4(50) == u4(0):
        for i in range(lanes):
            r = straighten(get9(w, at.ATTITUDE, i))
            put3(w, at.ATTITUDE, i, (r[0], r[1], r[2]))
            put3(w, at.ATTITUDE + 3, i, (r[3], r[4], r[5]))
            put3(w, at.ATTITUDE + 6, i, (r[6], r[7], r[8]))


@compiled
def reward(p: Any, w: Any, n: Any, tick: Any, left: Any) -> None:
    """The reward in the air, and the sums of distances; `left` ticks of the episode are left after this one."""
    ring = (at.RING + tick % 5) * LANES
    sums = (f4(left < p.control_hz), f4(left < 3 * p.control_hz), f4(left < 5 * p.control_hz))
    for i in range(n):
        (x, y, z), (gx, gy, gz), o = get3(w, at.POSITION, i), get3(w, at.GOAL, i), get3(w, at.OMEGA, i)
        distance = np.sqrt((x - gx) * (x - gx) + (y - gy) * (y - gy) + (z - gz) * (z - gz))
        a, b, c = get3(w, at.ACTION, i)
        d = w[(at.ACTION + 3) * LANES + i]
        effort = np.sqrt(a * a + b * b + c * c + d * d)
        spin = np.sqrt(o[0] * o[0] + o[1] * o[1] + o[2] * o[2])
        upright = w[(at.ATTITUDE + 8) * LANES + i]
        w[at.REWARD * LANES + i] = p.upright * upright - p.distance * distance - p.effort * effort - p.spin * spin
        w[at.DISTANCE * LANES + i] = distance
        w[at.NEAR_1S * LANES + i] += sums[0] * distance
        w[at.NEAR_3S * LANES + i] += sums[1] * distance
        w[at.NEAR_5S * LANES + i] += sums[2] * distance
    for i in range(n):
        w[ring + i] = w[at.DISTANCE * LANES + i]
