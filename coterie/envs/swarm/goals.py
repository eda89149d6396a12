"""Formations, and how goals move: from time to time the next leg is planned, and each tick goals take a step of it."""

from __future__ import annotations

import math
from typing import Any

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.compiling import compiled
from coterie.envs.swarm.draws import below, f4, uniforms
from coterie.envs.swarm.layout import FOR_LEGS, FOR_SCENARIO, PURPOSES

HOLD, JUMP, RESHAPE, SWEEP, PERMUTE, EXCHANGE, LISSAJOUS, BEZIER, RUN_AWAY, INDEPENDENT, FREE_SQUARE = range(11)
"""As in `scenarios.MOVES`."""
FORMATIONS = 8
"""Circles (level, upright along x, upright along y), a sphere, grids in the same three planes, a cube."""
_EDGE = 0.3
_GOLDEN = math.pi * (3 - math.sqrt(5))


@compiled
def _plane(kind: Any, a: Any, b: Any, layer: Any) -> Any:
    if kind == 0:
        return a, b, layer
    if kind == 1:
        return a, layer, b
    return layer, a, b


@compiled
def offset(kind: Any, i: Any, n: Any) -> Any:
    """The place of the i-th of n in a formation with unit spacing about the origin, [3]."""
    if kind < 3:
        layers, of_layer = (n + 7) // 8, min(8, n - 8 * (i // 8))
        radius = 0.5 / math.sin(math.pi / of_layer) if of_layer > 1 else 0.0
        angle = 2 * math.pi * (i % 8) / of_layer
        return _plane(kind, radius * math.cos(angle), radius * math.sin(angle), i // 8 - 0.5 * (layers - 1))
    if kind == 3:
        radius = math.sqrt(n / (4 * math.pi)) if n > 1 else 0.0
        height = 1 - (2 * i + 1) / n
        ring, angle = radius * math.sqrt(max(1 - height * height, 0.0)), _GOLDEN * i
        return ring * math.cos(angle), ring * math.sin(angle), radius * height
    if kind < 7:
        layers, of_layer = (n + 49) // 50, min(50, n - 50 * (i // 50))
        side, k = math.ceil(math.sqrt(of_layer)), i % 50
        rows = (of_layer + side - 1) // side
        return _plane(kind - 4, k % side - 0.5 * (side - 1), k // side - 0.5 * (rows - 1), i // 50 - 0.5 * (layers - 1))
    side = math.ceil(n ** (1 / 3) - 1e-9)
    half = 0.5 * (side - 1)
    return i % side - half, (i // side) % side - half, i // (side * side) - half


@compiled
def _within(x: Any, low: Any, high: Any) -> Any:
    return min(max(x, low), high)


@compiled
def put_goal(p: Any, drones: Any, i: Any, x: Any, y: Any, z: Any) -> None:
    """Set a drone's goal, inside the room."""
    drones[at.GOAL, i] = _within(x, _EDGE - p.half_x, p.half_x - _EDGE)
    drones[at.GOAL + 1, i] = _within(y, _EDGE - p.half_y, p.half_y - _EDGE)
    drones[at.GOAL + 2, i] = _within(z, _EDGE, p.height - _EDGE)


@compiled
def form(p: Any, drones: Any, low: Any, high: Any, kind: Any, spacing: Any, widest: Any, centre: Any) -> None:
    """Set the goals of drones low...high to a formation, so high that at its widest spacing it is off the floor."""
    lowest = 0.0
    for i in range(low, high):
        lowest = min(lowest, offset(kind, i - low, high - low)[2])
    lift = max(centre[2], _EDGE - lowest * widest)
    for i in range(low, high):
        x, y, z = offset(kind, i - low, high - low)
        put_goal(p, drones, i, centre[0] + spacing * x, centre[1] + spacing * y, lift + spacing * z)


@compiled
def free_cell(p: Any, cell: Any) -> Any:
    """The middle of a cell, x and y."""
    return cell // p.cells_y + 0.5 - 0.5 * p.cells_x, cell % p.cells_y + 0.5 - 0.5 * p.cells_y


@compiled
def next_point(p: Any, counters: Any, cells: Any, row: Any, origin: Any, reach: Any, when: Any, key: Any) -> Any:
    """A point for a shared goal: around the middle of the room, or over a free cell near enough to the origin."""
    a, b, c, _ = uniforms(0, when[0], when[1], FOR_LEGS * PURPOSES, key[0], key[1])
    z = 1.0 + 2.0 * c
    if row[at.AMONG_OBSTACLES] == 0:
        return 4.0 * a - 2.0, 4.0 * b - 2.0, z
    taken = counters[at.NUM_OBSTACLES]
    start = below(len(cells) - taken, 1, when[0], when[1], FOR_LEGS * PURPOSES, key[0], key[1])
    best, gap = (0.0, 0.0), 1e9
    for k in range(taken, len(cells)):
        x, y = free_cell(p, cells[taken + (k - taken + start) % (len(cells) - taken)])
        away = math.hypot(x - origin[0], y - origin[1])
        if 0.5 < away <= reach:
            return x, y, z
        if away < gap:
            best, gap = (x, y), away
    return best[0], best[1], z


@compiled
def _shape(counters: Any, settings: Any, row: Any, when: Any, key: Any) -> None:
    share, _, _, _ = uniforms(1, when[0], when[1], FOR_SCENARIO * PURPOSES, key[0], key[1])
    counters[at.FORMATION] = below(FORMATIONS, 2, when[0], when[1], FOR_SCENARIO * PURPOSES, key[0], key[1])
    settings[at.SPACING] = row[at.SPACING_LOW] + (row[at.SPACING_HIGH] - row[at.SPACING_LOW]) * share


@compiled
def _form_all(p: Any, drones: Any, counters: Any, settings: Any, row: Any, move: Any) -> None:
    n = drones.shape[1]
    middle = n // 2 if move == EXCHANGE else n
    kind, spacing, widest = counters[at.FORMATION], settings[at.SPACING], row[at.SPACING_HIGH]
    form(p, drones, 0, middle, kind, spacing, widest, settings[at.CENTRE : at.CENTRE + 3])
    form(p, drones, middle, n, kind, spacing, widest, settings[at.OTHER_CENTRE : at.OTHER_CENTRE + 3])


@compiled
def permute(drones: Any, when: Any, key: Any) -> None:
    """Goals change hands (Fisher and Yates)."""
    for i in range(drones.shape[1] - 1, 0, -1):
        j = below(i + 1, i, when[0], when[1], FOR_LEGS * PURPOSES + 1, key[0], key[1])
        for k in range(3):
            drones[at.GOAL + k, i], drones[at.GOAL + k, j] = drones[at.GOAL + k, j], drones[at.GOAL + k, i]


@compiled
def share_goal(p: Any, drones: Any, x: Any, y: Any, z: Any) -> None:
    """One goal for all."""
    for i in range(drones.shape[1]):
        put_goal(p, drones, i, x, y, z)


@compiled
def _sweep(p: Any, drones: Any, counters: Any, settings: Any, row: Any, when: Any, key: Any) -> Any:
    # The size runs to its greatest value, through zero to the negative one, which turns the formation around, and back.
    pace, _, _, _ = uniforms(3, when[0], when[1], FOR_LEGS * PURPOSES, key[0], key[1])
    rate = (0.1 + 0.2 * pace) * settings[at.SPEED]
    end = -row[at.SPACING_HIGH] if settings[at.SPACING_RATE] > 0 else row[at.SPACING_HIGH]
    if settings[at.SPACING_RATE] != 0:
        settings[at.SPACING] = math.copysign(row[at.SPACING_HIGH], settings[at.SPACING_RATE])
        _form_all(p, drones, counters, settings, row, SWEEP)
    ticks = max(round(abs(end - settings[at.SPACING]) / rate * p.control_hz), 1)
    settings[at.SPACING_RATE] = (end - settings[at.SPACING]) / ticks
    for i in range(drones.shape[1]):
        x, y, z = offset(counters[at.FORMATION], i, drones.shape[1])
        drones[at.GOAL_STEP, i] = x * settings[at.SPACING_RATE]
        drones[at.GOAL_STEP + 1, i] = y * settings[at.SPACING_RATE]
        drones[at.GOAL_STEP + 2, i] = z * settings[at.SPACING_RATE]
    return ticks


@compiled
def _lissajous(p: Any, drones: Any, settings: Any, tick: Any) -> None:
    t, speed = tick / p.control_hz * settings[at.SPEED], settings[at.SPEED]
    scale = 100.0 / p.control_hz * speed
    x = drones[at.GOAL, 0] + 0.03 * math.sin(t) * scale
    y = drones[at.GOAL + 1, 0] + 0.01 * math.sin(2 * t + 90) * scale
    z = drones[at.GOAL + 2, 0] + 0.01 * math.cos(2 * t + 90) * scale
    share_goal(p, drones, x, y, z)


@compiled
def _bezier(p: Any, drones: Any, counters: Any, cells: Any, row: Any, ticks: Any, when: Any, key: Any) -> None:
    # B(s) = (1 - s)^2 a + 2 s (1 - s) b + s^2 c at s = k / ticks, by its first and second differences.
    origin = (drones[at.GOAL, 0], drones[at.GOAL + 1, 0], drones[at.GOAL + 2, 0])
    end = next_point(p, counters, cells, row, origin, 5.0, when, key)
    bends = uniforms(4, when[0], when[1], FOR_LEGS * PURPOSES, key[0], key[1])
    low = (-2.0, -2.0, 1.0)
    for k in range(3):
        control = low[k] + (2.0 if k == 2 else 4.0) * bends[k]
        bend = (origin[k] - 2 * control + end[k]) / (ticks * ticks)
        step = 2 * (control - origin[k]) / ticks + bend
        for i in range(drones.shape[1]):
            drones[at.GOAL_STEP + k, i], drones[at.GOAL_BEND + k, i] = step, 2 * bend


@compiled
def begin(p: Any, drones: Any, counters: Any, settings: Any, cells: Any, row: Any, when: Any, key: Any) -> None:
    """Set the goals of a new episode, but for those that are over free cells by drone or in a free square."""
    move = int(row[at.MOVE])
    settings[at.SPACING_RATE] = 0
    x, y, z = next_point(p, counters, cells, row, (0.0, 0.0, 0.0), 1e6, when, key)
    if move == HOLD or move == SWEEP or (move == PERMUTE and row[at.AMONG_OBSTACLES] == 0) or move == RUN_AWAY:
        x, y, z = 0.0, 0.0, 2.0
    if move == LISSAJOUS:
        x, y, z = -2.0, 0.0, 2.0
    settings[at.CENTRE], settings[at.CENTRE + 1], settings[at.CENTRE + 2] = x, y, z
    if row[at.IN_FORMATION] != 0:
        _shape(counters, settings, row, when, key)
        a, b, c, _ = uniforms(5, when[0], when[1], FOR_LEGS * PURPOSES, key[0], key[1])
        gap = 0.5 + 1.5 * a
        settings[at.OTHER_CENTRE] = x + gap * math.cos(2 * math.pi * b)
        settings[at.OTHER_CENTRE + 1] = y + gap * math.sin(2 * math.pi * b)
        settings[at.OTHER_CENTRE + 2] = z + 0.5 * (c - 0.5)
        _form_all(p, drones, counters, settings, row, move)
    elif move != INDEPENDENT and not (move == PERMUTE and row[at.AMONG_OBSTACLES] != 0):
        share_goal(p, drones, x, y, z)
    counters[at.NEXT_LEG] = 1 << 30
    if row[at.PERIOD_HIGH] > 0 or move == SWEEP:
        counters[at.NEXT_LEG] = 0 if move in (LISSAJOUS, BEZIER, SWEEP) else _leg_ticks(p, settings, row, when, key)


@compiled
def _leg_ticks(p: Any, settings: Any, row: Any, when: Any, key: Any) -> Any:
    share, _, _, _ = uniforms(6, when[0], when[1], FOR_LEGS * PURPOSES, key[0], key[1])
    seconds = (row[at.PERIOD_LOW] + (row[at.PERIOD_HIGH] - row[at.PERIOD_LOW]) * share) / settings[at.SPEED]
    return max(round(seconds * p.control_hz), 1)


@compiled
def _run_away(drones: Any, when: Any, key: Any) -> None:
    n = drones.shape[1]
    for i in range(2):
        other = below(max(n - 2, 1), i, when[0], when[1], FOR_LEGS * PURPOSES + 2, key[0], key[1])
        other = 2 + other if n > 2 else 1 - i
        for k in range(3):
            drones[at.GOAL + k, i] = drones[at.GOAL + k, other]


@compiled
def plan_leg(p: Any, drones: Any, counters: Any, settings: Any, cells: Any, row: Any, when: Any, key: Any) -> None:
    """What happens to the goals now, and when the next time is."""
    move = int(row[at.MOVE])
    ticks = _leg_ticks(p, settings, row, when, key)
    drones[at.GOAL_STEP : at.GOAL_STEP + 6] = f4(0)
    if move == JUMP:
        origin = (drones[at.GOAL, 0], drones[at.GOAL + 1, 0], drones[at.GOAL + 2, 0])
        x, y, z = next_point(p, counters, cells, row, origin, 4.0, when, key)
        share_goal(p, drones, x, y, z)
    elif move == PERMUTE:
        permute(drones, when, key)
    elif move == RUN_AWAY:
        _run_away(drones, when, key)
    elif move == LISSAJOUS:
        _lissajous(p, drones, settings, when[0])
        ticks = 1
    elif move == BEZIER:
        _bezier(p, drones, counters, cells, row, ticks, when, key)
    elif move == SWEEP:
        ticks = _sweep(p, drones, counters, settings, row, when, key)
    else:
        _shape(counters, settings, row, when, key)
        if move == RESHAPE:
            x, y, z = next_point(p, counters, cells, row, (0.0, 0.0, 0.0), 1e6, when, key)
            settings[at.CENTRE], settings[at.CENTRE + 1], settings[at.CENTRE + 2] = x, y, z
        else:
            for k in range(3):
                here, there = settings[at.CENTRE + k], settings[at.OTHER_CENTRE + k]
                settings[at.CENTRE + k], settings[at.OTHER_CENTRE + k] = there, here
        _form_all(p, drones, counters, settings, row, move)
    counters[at.MOVING] = move in (BEZIER, SWEEP)
    counters[at.NEXT_LEG] = when[0] + ticks
