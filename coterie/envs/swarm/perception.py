"""What a drone observes of others and of obstacles."""

from __future__ import annotations

from typing import Any

import numpy as np

from coterie.envs.swarm.compiling import compiled, inlined
from coterie.envs.swarm.draws import f4
from coterie.envs.swarm.layout import ATTITUDE, GOAL, KEY, LANES, NORMAL, OMEGA, POSITION, SQUARED, VELOCITY

FAR = 1e9
NOTHING = 10.0
"""What the patch shows where there is no obstacle, m."""


@inlined
def nearness(dx: Any, dy: Any, dz: Any, ux: Any, uy: Any, uz: Any, closing: Any) -> Any:
    """By what neighbours are ranked: distance, plus what it will have changed by in a second if `closing` is 1."""
    distance = np.sqrt(dx * dx + dy * dy + dz * dz)
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


@inlined
def rank(p: Any, w: Any, i: Any, n: Any, found: Any) -> None:
    """Write the indices of the nearest of n drones into found [K]; -1: nobody is in sight."""
    if p.num_neighbours == 0:
        return
    px, py, pz = w[POSITION * LANES + i], w[(POSITION + 1) * LANES + i], w[(POSITION + 2) * LANES + i]
    vx, vy, vz = w[VELOCITY * LANES + i], w[(VELOCITY + 1) * LANES + i], w[(VELOCITY + 2) * LANES + i]
    sight, far = p.sight * p.sight, f4(FAR)
    for j in range(n):
        dx, dy = w[POSITION * LANES + j] - px, w[(POSITION + 1) * LANES + j] - py
        dz = w[(POSITION + 2) * LANES + j] - pz
        ux, uy = w[VELOCITY * LANES + j] - vx, w[(VELOCITY + 1) * LANES + j] - vy
        uz = w[(VELOCITY + 2) * LANES + j] - vz
        key = nearness(dx, dy, dz, ux, uy, uz, p.closing)
        w[KEY * LANES + j] = key if dx * dx + dy * dy + dz * dz <= sight else far
    w[KEY * LANES + i] = far
    count = p.num_neighbours
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


@inlined
def patch(x: Any, y: Any, obstacles: Any, count: Any, radius: Any, out: Any, offset: Any) -> None:
    """Write distances to the nearest obstacle at 3x3 points 0.1 m apart, x running slower, from out[offset] on."""
    for k in range(9):
        out[offset + k] = f4(NOTHING)
    # What is nearest to a corner, 0.1414 m away, is at most twice that farther from here than what is nearest here.
    reach = np.sqrt(nearest_axis(x, y, obstacles, count)) + f4(0.2829)
    reach = reach * reach
    for m in range(count):
        dx, dy = x - obstacles[0, m], y - obstacles[1, m]
        if dx * dx + dy * dy <= reach:
            for a in range(3):
                for b in range(3):
                    ex, ey = dx + f4(0.1) * f4(a - 1), dy + f4(0.1) * f4(b - 1)
                    place = offset + 3 * a + b
                    out[place] = min(out[place], np.sqrt(ex * ex + ey * ey) - radius)


@inlined
def bounded(x: Any, limit: Any) -> Any:
    """X in [-limit, limit]."""
    return min(max(x, -limit), limit)


@inlined
def observe_self(p: Any, w: Any, i: Any, out: Any) -> Any:
    """Write position less goal, velocity, attitude and angular velocity, with noise, and what surrounds; its size."""
    sigma = (p.position_sigma, p.velocity_sigma, p.omega_sigma)
    wide = f4(1e9)
    limits = (f4(2) * max(p.half_x, p.half_y, p.height), f4(20), p.max_omega) if p.clip else (wide, wide, wide)
    for k in range(3):
        noise = sigma[0] * w[(NORMAL + k) * LANES + i]
        out[k] = bounded(w[(POSITION + k) * LANES + i] + noise - w[(GOAL + k) * LANES + i], limits[0])
        out[3 + k] = bounded(w[(VELOCITY + k) * LANES + i] + sigma[1] * w[(NORMAL + 3 + k) * LANES + i], limits[1])
        out[15 + k] = bounded(w[(OMEGA + k) * LANES + i] + sigma[2] * w[(NORMAL + 6 + k) * LANES + i], limits[2])
    for k in range(9):
        out[6 + k] = w[(ATTITUDE + k) * LANES + i]
    if p.surrounding == 0:
        return 18
    x = w[POSITION * LANES + i] + sigma[0] * w[NORMAL * LANES + i]
    y = w[(POSITION + 1) * LANES + i] + sigma[0] * w[(NORMAL + 1) * LANES + i]
    z = w[(POSITION + 2) * LANES + i] + sigma[0] * w[(NORMAL + 2) * LANES + i]
    if p.surrounding == 1:
        out[18] = min(max(z, f4(0)), p.height) if p.clip else z
        return 19
    distances = (p.half_x - x, p.half_x + x, p.half_y - y, p.half_y + y, p.height - z, z)
    for k in range(6):
        out[18 + k] = min(max(distances[k], f4(0)), f4(5))
    return 24


@inlined
def observe_other(position: Any, velocity: Any, out: Any, offset: Any) -> None:
    """Write relative position and velocity, both clipped."""
    for k in range(3):
        out[offset + k] = bounded(position[k], f4(10))
        out[offset + 3 + k] = bounded(velocity[k], f4(6))
