"""The beginning of an episode: obstacles, scenario, starts and goals."""

from __future__ import annotations

import math
from typing import Any

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.compiling import compiled, joined
from coterie.envs.swarm.config import LAYER
from coterie.envs.swarm.draws import below, f4, u4, uniforms
from coterie.envs.swarm.goals import FREE_SQUARE, INDEPENDENT, PERMUTE, begin, free_cell, put_goal, share_goal
from coterie.envs.swarm.layout import FOR_CELLS, FOR_GOALS, FOR_SCENARIO, FOR_START, PURPOSES

NOWHERE = 1e4
"""Where things are that are not in the world, m; each drone in a place of its own."""
_LOWEST = 0.75


@compiled
def shuffle(cells: Any, low: Any, when: Any, purpose: Any, key: Any) -> None:
    """Shuffle cells[low:] (Fisher and Yates)."""
    for i in range(len(cells) - 1, low, -1):
        j = low + below(i + 1 - low, i, when[0], when[1], purpose * PURPOSES, key[0], key[1])
        cells[i], cells[j] = cells[j], cells[i]


@compiled
def place_obstacles(p: Any, obstacles: Any, counters: Any, cells: Any, share: Any, when: Any, key: Any) -> None:
    """Put obstacles on a share of the cells; the rest of `cells` are then the free ones."""
    for i in range(len(cells)):
        cells[i] = i
    shuffle(cells, 0, when, FOR_CELLS, key)
    count = min(int(len(cells) * share + 1e-3), obstacles.shape[1])
    counters[at.NUM_OBSTACLES] = count
    obstacles[:] = f4(NOWHERE)
    for m in range(count):
        x, y = free_cell(p, cells[m])
        obstacles[0, m], obstacles[1, m] = x, y


@compiled
def free_square(p: Any, counters: Any, cells: Any) -> Any:
    """The middle of the largest square of cells without obstacles (of the first such), x and y."""
    best, x, y = 0, 0, 0
    for a in range(p.cells_x):
        for b in range(p.cells_y):
            side = min(p.cells_x - a, p.cells_y - b)
            for m in range(counters[at.NUM_OBSTACLES]):
                beyond_a, beyond_b = cells[m] // p.cells_y - a, cells[m] % p.cells_y - b
                if beyond_a >= 0 and beyond_b >= 0:
                    side = min(side, max(beyond_a, beyond_b))
            if side > best:
                best, x, y = side, a, b
    return x + 0.5 * best - 0.5 * p.cells_x, y + 0.5 * best - 0.5 * p.cells_y


@compiled
def stand(p: Any, drones: Any, i: Any, x: Any, y: Any, z: Any, when: Any, key: Any) -> None:
    """Put a drone somewhere: level, still, motors off, its nose within 60 degrees of the middle of the room."""
    turn, _, _, _ = uniforms(i, when[0], when[1], FOR_START * PURPOSES + 1, key[0], key[1])
    yaw = math.atan2(-y, -x) + (2 * turn - 1) * math.pi / 3
    drones[:, i] = f4(0)
    drones[at.POSITION, i] = min(max(x, 0.1 - p.half_x), p.half_x - 0.1)
    drones[at.POSITION + 1, i] = min(max(y, 0.1 - p.half_y), p.half_y - 0.1)
    drones[at.POSITION + 2, i] = min(max(z, _LOWEST), p.height - 0.1)
    drones[at.ATTITUDE, i] = drones[at.ATTITUDE + 4, i] = math.cos(yaw)
    drones[at.ATTITUDE + 1, i] = -math.sin(yaw)
    drones[at.ATTITUDE + 3, i] = math.sin(yaw)
    drones[at.ATTITUDE + 8, i] = 1.0
    forget(drones, i)


@compiled
def forget(drones: Any, i: Any) -> None:
    """Let a drone have been near nobody, and far from its goal."""
    drones[at.BEFORE, i], drones[at.BEFORE + 1, i] = f4(NOWHERE) * f4(i + 1), f4(0)
    drones[at.BEFORE + 2, i] = f4(0)
    for k in range(5):
        drones[at.RING + k, i] = f4(1e3)


@compiled
def start_in_box(p: Any, drones: Any, when: Any, key: Any) -> None:
    """Everywhere within 2 m of the middle; more than 64 drones have 1 m^3 each, as far as the room allows."""
    n = drones.shape[1]
    half = max(2.0, 0.5 * n ** (1 / 3))
    middle = max(2.0, half + _LOWEST) if n > 64 else 2.0
    for i in range(n):
        a, b, c, _ = uniforms(i, when[0], when[1], FOR_START * PURPOSES, key[0], key[1])
        stand(p, drones, i, half * (2 * a - 1), half * (2 * b - 1), middle + half * (2 * c - 1), when, key)


@compiled
def _over(p: Any, cells: Any, taken: Any, i: Any, n: Any, purpose: Any, when: Any, key: Any) -> Any:
    # Where there are more drones than free cells, some are above others.
    free = len(cells) - taken
    a, b, c, _ = uniforms(i, when[0], when[1], purpose * PURPOSES + 2, key[0], key[1])
    x, y = free_cell(p, cells[taken + i % free])
    height = 1.0 + 2.0 * c if n <= free else 1.0 + LAYER * (i // free)
    return x + 0.2 * a - 0.1, y + 0.2 * b - 0.1, height


@compiled
def start_over_cells(p: Any, drones: Any, counters: Any, cells: Any, when: Any, key: Any) -> None:
    """Near the middles of free cells."""
    taken, n = counters[at.NUM_OBSTACLES], drones.shape[1]
    shuffle(cells, taken, when, FOR_START, key)
    for i in range(n):
        x, y, z = _over(p, cells, taken, i, n, FOR_START, when, key)
        stand(p, drones, i, x, y, z, when, key)


@compiled
def goals_over_cells(p: Any, drones: Any, counters: Any, cells: Any, when: Any, key: Any) -> None:
    """Each drone's own, over a free cell."""
    taken, n = counters[at.NUM_OBSTACLES], drones.shape[1]
    shuffle(cells, taken, when, FOR_GOALS, key)
    for i in range(n):
        x, y, z = _over(p, cells, taken, i, n, FOR_GOALS, when, key)
        put_goal(p, drones, i, x, y, z)


@joined
def start_episode(
    p: Any, drones: Any, flags: Any, counters: Any, settings: Any, obstacles: Any, cells: Any, table: Any, choices: Any,
    key: Any,
) -> None:  # fmt: skip
    """Begin the next episode of one environment.

    Args:
        p: The parameters.
        drones: [ROWS, N], overwritten, as all of the following.
        flags: [N].
        counters: [COUNTERS]; its EPISODE grows by one.
        settings: [SETTINGS]; PENALTY and SPEED are kept.
        obstacles: [2, M].
        cells: [C].
        table: Scenarios [S, COLUMNS].
        choices: Densities and sizes to draw from, two arrays.
        key: Of the environment.
    """
    episode = counters[at.EPISODE] + 1
    counters[:] = 0
    counters[at.EPISODE], counters[at.ENDS], flags[:] = episode, p.ticks, 0
    when = (u4(0), u4(episode))
    scenario = below(len(table), 0, when[0], when[1], FOR_SCENARIO * PURPOSES, key[0], key[1])
    counters[at.SCENARIO], row = scenario, table[scenario]
    if p.has_obstacles:
        density = choices[0][below(len(choices[0]), 3, when[0], when[1], FOR_SCENARIO * PURPOSES, key[0], key[1])]
        size = choices[1][below(len(choices[1]), 4, when[0], when[1], FOR_SCENARIO * PURPOSES, key[0], key[1])]
        settings[at.RADIUS] = 0.5 * size
        place_obstacles(p, obstacles, counters, cells, density, when, key)
        start_over_cells(p, drones, counters, cells, when, key)
    else:
        start_in_box(p, drones, when, key)
    begin(p, drones, counters, settings, cells, row, when, key)
    move = int(row[at.MOVE])
    if move == INDEPENDENT or (move == PERMUTE and row[at.AMONG_OBSTACLES] != 0):
        goals_over_cells(p, drones, counters, cells, when, key)
    elif move == FREE_SQUARE:
        x, y = free_square(p, counters, cells)
        share_goal(p, drones, x, y, settings[at.CENTRE + 2])
