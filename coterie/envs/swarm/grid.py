"""Who is near whom among many drones: a uniform grid, in which each drone looks at 27 cells."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.compiling import compiled
from coterie.envs.swarm.draws import f4
from coterie.envs.swarm.encounters import pair
from coterie.envs.swarm.layout import PADDING
from coterie.envs.swarm.parameters import Parameters
from coterie.envs.swarm.perception import FAR, insert, nearness


class Grid(NamedTuple):
    """Drones sorted by cell; cells that follow each other in height are neighbours in memory.

    Attributes:
        size: Number of cells along x, y, z.
        scale: Cells per m along each.
        heads: int32 [cells + 1], where a cell's drones begin.
        order: int32 [N], the drones.
        cells: int32 [N], where each drone is.
        places: float32 [6, at least N], their positions and velocities in that order.
    """

    size: tuple[int, int, int]
    scale: tuple[np.float32, np.float32, np.float32]
    heads: NDArray[np.int32]
    order: NDArray[np.int32]
    cells: NDArray[np.int32]
    places: NDArray[np.float32]


def allocate(p: Parameters, num_drones: int) -> Grid:
    """An empty grid of cells that are as wide as anything reaches, and of no more than two per drone."""
    room = (2 * float(p.half_x), 2 * float(p.half_y), float(p.height))
    width = max(float(p.sight), float(p.reach))
    width = max(width, (math.prod(room) / (2 * max(num_drones, 1))) ** (1 / 3))
    nx, ny, nz = (max(int(side / width), 1) for side in room)
    sx, sy, sz = (np.float32(count / side) for count, side in zip((nx, ny, nz), room, strict=True))
    heads, order = np.zeros(nx * ny * nz + 1, np.int32), np.zeros(num_drones, np.int32)
    return Grid((nx, ny, nz), (sx, sy, sz), heads, order, order.copy(), np.zeros((6, num_drones + PADDING), np.float32))


@compiled
def _cell(grid: Any, p: Any, x: Any, y: Any, z: Any) -> Any:
    cx = min(max(int((x + p.half_x) * grid.scale[0]), 0), grid.size[0] - 1)
    cy = min(max(int((y + p.half_y) * grid.scale[1]), 0), grid.size[1] - 1)
    cz = min(max(int(z * grid.scale[2]), 0), grid.size[2] - 1)
    return cx, cy, cz


@compiled
def build(p: Any, grid: Any, drones: Any) -> None:
    """Sort the drones (by counting), and read where they are and how they move."""
    n, (heads, order, cells) = drones.shape[1], (grid.heads, grid.order, grid.cells)
    for cell in range(len(heads)):
        heads[cell] = 0
    for i in range(n):
        cx, cy, cz = _cell(grid, p, drones[at.POSITION, i], drones[at.POSITION + 1, i], drones[at.POSITION + 2, i])
        cells[i] = (cx * grid.size[1] + cy) * grid.size[2] + cz
        heads[cells[i] + 1] += 1
    for cell in range(len(heads) - 1):
        heads[cell + 1] += heads[cell]
    for i in range(n):
        order[heads[cells[i]]] = i
        heads[cells[i]] += 1
    for cell in range(len(heads) - 1, 0, -1):
        heads[cell] = heads[cell - 1]
    heads[0] = 0
    refresh(grid, drones)


@compiled
def refresh(grid: Any, drones: Any) -> None:
    """Read positions and velocities again."""
    for slot in range(len(grid.order)):
        for k in range(6):
            grid.places[k, slot] = drones[at.POSITION + k, grid.order[slot]]


@compiled
def meet_on_grid(p: Any, grid: Any, drones: Any, flags: Any, deeds: Any, counters: Any, when: Any, key: Any) -> None:
    """All pairs that are near."""
    for k in range(at.DEEDS):
        for i in range(drones.shape[1]):
            deeds[k, i] = f4(0)
    reach, size, places = p.reach * p.reach, grid.size, grid.places
    for slot in range(len(grid.order)):
        i, x, y, z = grid.order[slot], places[0, slot], places[1, slot], places[2, slot]
        cx, cy, cz = _cell(grid, p, x, y, z)
        for ax in range(max(cx - 1, 0), min(cx + 2, size[0])):
            for ay in range(max(cy - 1, 0), min(cy + 2, size[1])):
                base = (ax * size[1] + ay) * size[2]
                for other in range(grid.heads[base + max(cz - 1, 0)], grid.heads[base + min(cz + 2, size[2])]):
                    dx, dy, dz = places[0, other] - x, places[1, other] - y, places[2, other] - z
                    if dx * dx + dy * dy + dz * dz < reach and other != slot:
                        pair(p, drones, flags, deeds, counters, i, grid.order[other], when, key)


@compiled
def rank_on_grid(p: Any, grid: Any, drones: Any, i: Any, found: Any, keys: Any) -> None:
    """As `perception.rank`, among drones within sight; keys [K] is scratch."""
    count, size, places, far = p.num_neighbours, grid.size, grid.places, f4(FAR)
    if count == 0:
        return
    sight, worst = p.sight * p.sight, far
    x, y, z = drones[at.POSITION, i], drones[at.POSITION + 1, i], drones[at.POSITION + 2, i]
    vx, vy, vz = drones[at.VELOCITY, i], drones[at.VELOCITY + 1, i], drones[at.VELOCITY + 2, i]
    for k in range(count):
        found[k], keys[k] = -1, far
    cx, cy, cz = _cell(grid, p, x, y, z)
    for ax in range(max(cx - 1, 0), min(cx + 2, size[0])):
        for ay in range(max(cy - 1, 0), min(cy + 2, size[1])):
            base = (ax * size[1] + ay) * size[2]
            for other in range(grid.heads[base + max(cz - 1, 0)], grid.heads[base + min(cz + 2, size[2])]):
                dx, dy, dz = places[0, other] - x, places[1, other] - y, places[2, other] - z
                if dx * dx + dy * dy + dz * dz > sight or grid.order[other] == i:
                    continue
                ux, uy, uz = places[3, other] - vx, places[4, other] - vy, places[5, other] - vz
                key = nearness(dx, dy, dz, ux, uy, uz, p.closing)
                if key < worst:
                    insert(found, keys, 0, count, grid.order[other], key)
                    worst = keys[count - 1]
