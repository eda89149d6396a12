"""What a drone observes of others and of obstacles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from coterie.envs.swarm.compiling import compiled, inlined, joined
from coterie.envs.swarm.draws import f4
from coterie.envs.swarm.layout import AXIS, KEY, LANES, POSITION, SQUARED, VELOCITY

FAR = 1e9
NOTHING = 10.0
"""What the patch shows where there is no obstacle, m."""


@inlined
def nearness(dx: Any, dy: Any, dz: Any, ux: Any, uy: Any, uz: Any, closing: Any) -> Any:
    """By what neighbours are ranked: distance, plus what it will have changed by in a second if `closing` is 1."""
    distance = math.sqrt(dx * dx + dy * dy + dz * dz)
    return distance + closing * (dx * ux + dy * uy + dz * uz) / max(distance, f4(0.01))


@compiled
def insert(found: Any, keys: Any, offset: Any, count: Any, j: Any, key: Any) -> None:
    """Put j where it belongs among the `count` nearest, whose keys stand in keys[offset:]."""
    place = count - 1
    while place > 0 and keys[offset + place - 1] > key:
        keys[offset + place] = keys[offset + place - 1]
        found[place] = found[place - 1]
        place -= 1
    keys[offset + place] = key
    found[place] = j


@joined
def row(w: Any, which: Any) -> Any:
    """One row of the scratch. Over slices loops turn into vector code where over single indices they may not."""
    return w[which * LANES : (which + 1) * LANES]


@compiled
def _compare(w: Any, i: Any, n: Any, sight: Any, closing: Any) -> None:
    """Write into KEY how near each of n drones is to the i-th; FAR: itself, and who is out of sight."""
    xs, ys, zs = row(w, POSITION), row(w, POSITION + 1), row(w, POSITION + 2)
    us, vs, ws = row(w, VELOCITY), row(w, VELOCITY + 1), row(w, VELOCITY + 2)
    keys, x, y, z, u, v, s = row(w, KEY), xs[i], ys[i], zs[i], us[i], vs[i], ws[i]
    for j in range(n):
        dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
        key = nearness(dx, dy, dz, us[j] - u, vs[j] - v, ws[j] - s, closing)
        keys[j] = key if dx * dx + dy * dy + dz * dz <= sight * sight else f4(FAR)
    keys[i] = f4(FAR)


@inlined
def rank(p: Any, w: Any, i: Any, n: Any, found: Any) -> None:
    """Write the indices of the nearest of n drones into found [K]; -1: nobody is in sight."""
    if p.num_neighbours == 0:
        return
    count, far = p.num_neighbours, f4(FAR)
    _compare(w, i, n, p.sight, p.closing)
    keys = SQUARED * LANES
    for k in range(count):
        found[k] = -1
        w[keys + k] = far
    if p.by_index:
        for k in range(count):
            found[k] = k if k < i else k + 1
        return
    worst = far
    for j in range(n):
        key = w[KEY * LANES + j]
        if key < worst:
            insert(found, w, keys, count, j, key)
            worst = w[keys + count - 1]


@inlined
def nearest_squared(w: Any, i: Any, n: Any) -> Any:
    """Squared distance to the nearest of n drones."""
    px, py, pz = w[POSITION * LANES + i], w[(POSITION + 1) * LANES + i], w[(POSITION + 2) * LANES + i]
    for j in range(n):
        dx, dy = w[POSITION * LANES + j] - px, w[(POSITION + 1) * LANES + j] - py
        dz = w[(POSITION + 2) * LANES + j] - pz
        w[SQUARED * LANES + j] = dx * dx + dy * dy + dz * dz
    w[SQUARED * LANES + i] = f4(FAR)
    nearest = f4(FAR).view(np.int32)
    for j in range(n):
        nearest = min(nearest, f4(w[SQUARED * LANES + j]).view(np.int32))
    return np.int32(nearest).view(np.float32)


@inlined
def nearest_axis(x: Any, y: Any, obstacles: Any, count: Any) -> Any:
    """Squared horizontal distance to the nearest axis of obstacles [2, M]."""
    # Positive floats are in the order of their bits, and the least of integers is found by vector code.
    nearest = f4(FAR).view(np.int32)
    for m in range(count):
        dx, dy = obstacles[0, m] - x, obstacles[1, m] - y
        nearest = min(nearest, f4(dx * dx + dy * dy).view(np.int32))
    return np.int32(nearest).view(np.float32)


@compiled
def find_axes(w: Any, n: Any, obstacles: Any, count: Any) -> None:
    """Set AXIS: `nearest_axis` of n lanes."""
    xs, ys, axis = row(w, POSITION), row(w, POSITION + 1), row(w, AXIS)
    for i in range(n):
        axis[i] = f4(FAR)
    for m in range(count):
        x, y = obstacles[0, m], obstacles[1, m]
        for i in range(n):
            dx, dy = x - xs[i], y - ys[i]
            axis[i] = min(f4(dx * dx + dy * dy), axis[i])


@inlined
def patch(x: Any, y: Any, obstacles: Any, count: Any, radius: Any, out: Any, offset: Any) -> None:
    """Write distances to the nearest obstacle at 3x3 points 0.1 m apart, x running slower, from out[offset] on."""
    for k in range(9):
        out[offset + k] = f4(FAR)
    # What is nearest to a corner, 0.1414 m away, is at most twice that farther from here than what is nearest here.
    reach = math.sqrt(nearest_axis(x, y, obstacles, count)) + f4(0.2829)
    reach = reach * reach
    for m in range(count):
        dx, dy = x - obstacles[0, m], y - obstacles[1, m]
        if dx * dx + dy * dy <= reach:
            for a in range(3):
                for b in range(3):
                    ex, ey = dx + f4(0.1) * f4(a - 1), dy + f4(0.1) * f4(b - 1)
                    place = offset + 3 * a + b
                    out[place] = min(out[place], ex * ex + ey * ey)
    for k in range(9):
        out[offset + k] = min(math.sqrt(out[offset + k]) - radius, f4(NOTHING))


@inlined
def bounded(x: Any, limit: Any) -> Any:
    """X in [-limit, limit]."""
    return min(max(x, -limit), limit)


@inlined
def _write3(out: Any, offset: Any, x: Any, y: Any, z: Any, limit: Any) -> None:
    out[offset], out[offset + 1], out[offset + 2] = bounded(x, limit), bounded(y, limit), bounded(z, limit)


@inlined
def observe_self(p: Any, x: Any, v: Any, r: Any, omega: Any, goal: Any, noise: Any, out: Any) -> Any:
    """Write position less goal, velocity, attitude and angular velocity, with noise, and what surrounds; its size.

    Args:
        p: The parameters.
        x: Position, of 3.
        v: Velocity, of 3.
        r: Attitude, row-major, of 9.
        omega: Angular velocity, of 3.
        goal: Of 3.
        noise: Standard normals, of 9.
        out: Written from its beginning.
    """
    far, fast, quick = f4(1e9), f4(1e9), f4(1e9)
    if p.clip:
        far, fast, quick = f4(2) * max(p.half_x, p.half_y, p.height), f4(20), p.max_omega
    sigma = p.position_sigma
    px, py, pz = x[0] + sigma * noise[0], x[1] + sigma * noise[1], x[2] + sigma * noise[2]
    _write3(out, 0, px - goal[0], py - goal[1], pz - goal[2], far)
    sigma = p.velocity_sigma
    _write3(out, 3, v[0] + sigma * noise[3], v[1] + sigma * noise[4], v[2] + sigma * noise[5], fast)
    out[6], out[7], out[8], out[9], out[10], out[11], out[12], out[13], out[14] = r
    sigma = p.omega_sigma
    _write3(out, 15, omega[0] + sigma * noise[6], omega[1] + sigma * noise[7], omega[2] + sigma * noise[8], quick)
    if p.surrounding == 0:
        return 18
    if p.surrounding == 1:
        out[18] = min(max(pz, f4(0)), p.height) if p.clip else pz
        return 19
    out[18], out[19], out[20] = p.half_x - px, p.half_x + px, p.half_y - py
    out[21], out[22], out[23] = p.half_y + py, p.height - pz, pz
    for k in range(18, 24):
        out[k] = min(max(out[k], f4(0)), f4(5))
    return 24


@inlined
def observe_other(drones: Any, i: Any, j: Any, out: Any, offset: Any) -> None:
    """Write where j is and how it moves relative to i, both clipped; zeros if j is -1."""
    if j < 0:
        for k in range(6):
            out[offset + k] = f4(0)
        return
    for k in range(3):
        out[offset + k] = bounded(drones[POSITION + k, j] - drones[POSITION + k, i], f4(10))
        out[offset + 3 + k] = bounded(drones[VELOCITY + k, j] - drones[VELOCITY + k, i], f4(6))
