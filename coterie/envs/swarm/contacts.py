"""What happens between a drone and another, an obstacle, a wall: scalar functions of one drone's side of it.

All read velocities from before any contact of this tick, so that neither order nor numbering of drones matters. Noise
is keyed by what meets, so that both sides of a contact draw the same. Vectors are triples; `when` is tick and episode,
`key` the environment's.
"""

from __future__ import annotations

import math
from typing import Any

from coterie.envs.swarm.compiling import compiled
from coterie.envs.swarm.draws import f4, gaussians, uniforms
from coterie.envs.swarm.flight import clip
from coterie.envs.swarm.layout import FOR_DECAY, FOR_DOWNWASH, FOR_OBSTACLES, FOR_PAIRS, FOR_WALLS, PURPOSES

_TRIES = 3
_SPIN, _SPIN_RANGE = 31.4, 31.4
_OBSTACLE_SPIN, _OBSTACLE_SPIN_RANGE = 1.57, 1.57


@compiled
def dot(a: Any, b: Any) -> Any:
    """The inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def plus(a: Any, factor: Any, b: Any) -> Any:
    """A + factor * b."""
    return a[0] + factor * b[0], a[1] + factor * b[1], a[2] + factor * b[2]


@compiled
def scaled(a: Any, size: Any) -> Any:
    """A vector of length `size` in the direction of a."""
    factor = size / max(math.sqrt(dot(a, a)), f4(1e-6))
    return a[0] * factor, a[1] * factor, a[2] * factor


@compiled
def _noise(who: Any, when: Any, purpose: Any, key: Any) -> Any:
    x, y, z, _ = gaussians(who, when[0], when[1], purpose, key[0], key[1])
    return x, y, z


@compiled
def _spin(who: Any, when: Any, purpose: Any, key: Any, low: Any, span: Any) -> Any:
    share, _, _, _ = uniforms(who, when[0], when[1], purpose + 1, key[0], key[1])
    return scaled(_noise(who, when, purpose, key), low + span * share)


@compiled
def decay(who: Any, when: Any, purpose: Any, key: Any) -> Any:
    """The share of speed that is left after a contact: uniform in [0.2, 0.8]."""
    share, _, _, _ = uniforms(who, when[0], when[1], purpose * PURPOSES + 255, key[0], key[1])
    return f4(0.2) + f4(0.6) * share


@compiled
def bounce(low: Any, high: Any, sign: Any, normal: Any, relative: Any, when: Any, key: Any) -> Any:
    """What a collision adds to the velocity and the angular velocity of one of two equal drones.

    Velocities along the normal are exchanged; then noise is added, redrawn until the two part, three times at most.

    Args:
        low: The smaller index of the two.
        high: The greater one.
        sign: 1 for the drone with the smaller index, else -1.
        normal: Of unit length, from the other drone to this one.
        relative: This drone's velocity less the other's.
        when: Tick and episode.
        key: Of the environment.
    """
    who, purpose = low + (high << 16), FOR_PAIRS * PURPOSES
    exchanged = scaled(normal, -min(dot(relative, normal), f4(0)))
    added = exchanged
    for attempt in range(_TRIES):
        shared = _noise(who, when, purpose + 4 * attempt, key)
        first = _noise(who, when, purpose + 4 * attempt + 1, key)
        second = _noise(who, when, purpose + 4 * attempt + 2, key)
        mine, others = (first, second) if sign > f4(0) else (second, first)
        added = plus(plus(exchanged, f4(0.8) * sign, shared), f4(0.15), mine)
        parting = plus(plus(relative, f4(2), exchanged), f4(1.6) * sign, shared)
        parting = plus(plus(parting, f4(0.15), mine), f4(-0.15), others)
        if dot(parting, normal) > f4(0):
            break
    spin = _spin(who, when, purpose + 16, key, f4(_SPIN), f4(_SPIN_RANGE))
    return added, (sign * spin[0], sign * spin[1], sign * spin[2])


@compiled
def rebound(i: Any, velocity: Any, normal: Any, inside: Any, when: Any, key: Any) -> Any:
    """Velocity after hitting an obstacle, and what it adds to the angular velocity.

    The speed is kept and turned along the outward normal; noise is redrawn until it leads outward, three times at most;
    then some of the speed is lost, unless the drone's centre is inside.
    """
    purpose = FOR_OBSTACLES * PURPOSES
    turned = scaled(normal, math.sqrt(dot(velocity, velocity)))
    after = turned
    for attempt in range(_TRIES):
        after = plus(turned, f4(0.1), _noise(i, when, purpose + 2 * attempt, key))
        after = plus(after, f4(0.05), _noise(i, when, purpose + 2 * attempt + 1, key))
        if dot(after, normal) > f4(0):
            break
    keep = f4(1) if inside else decay(i, when, FOR_OBSTACLES, key)
    spin = _spin(i, when, purpose + 16, key, f4(_OBSTACLE_SPIN), f4(_OBSTACLE_SPIN_RANGE))
    return (after[0] * keep, after[1] * keep, after[2] * keep), spin


@compiled
def repel(i: Any, velocity: Any, away_x: Any, away_y: Any, when: Any, key: Any) -> Any:
    """Velocity after hitting a wall or the ceiling, and what it adds to the angular velocity.

    The direction is random, downward and away from the wall; away_x and away_y are -1, 0 or 1.
    """
    purpose = FOR_WALLS * PURPOSES
    x, y, z, _ = uniforms(i, when[0], when[1], purpose, key[0], key[1])
    dx = away_x * x if away_x != f4(0) else f4(2) * x - f4(1)
    dy = away_y * y if away_y != f4(0) else f4(2) * y - f4(1)
    speed = decay(i, when, FOR_WALLS, key) * math.sqrt(dot(velocity, velocity))
    after = scaled((dx, dy, f4(-0.5) - f4(0.5) * z), clip(speed, f4(0.1), f4(6)))
    return after, _spin(i, when, purpose + 16, key, f4(_SPIN), f4(_SPIN_RANGE))


@compiled
def limited(i: Any, velocity: Any, greatest: Any, when: Any, key: Any) -> Any:
    """Velocity after collisions with drones: some of the speed is lost, and none is faster than all were before."""
    speed = math.sqrt(dot(velocity, velocity))
    return scaled(velocity, min(decay(i, when, FOR_DECAY, key) * speed, greatest))


@compiled
def wash(above: Any, below: Any, up: Any, offset: Any, tick_time: Any, when: Any, key: Any) -> Any:
    """Whether `below` is in the downwash of `above`, and what that adds to its velocity and angular velocity.

    The downwash is a cylinder 0.7 m deep and 0.1 m wide under the drone whose vertical axis is `up`; `offset` leads
    from `above` to `below`.
    """
    nothing = (f4(0), f4(0), f4(0))
    depth = -dot(offset, up)
    aside = plus(offset, depth, up)
    if depth <= f4(0) or depth >= f4(0.7) or dot(aside, aside) >= f4(0.01):
        return False, nothing, nothing
    who, purpose = above + (below << 16), FOR_DOWNWASH * PURPOSES
    strong, weak, _, _ = uniforms(who, when[0], when[1], purpose, key[0], key[1])
    push = f4(6 / 17) * (f4(7) - f4(10) * depth) + f4(0.2) * strong - f4(0.1)
    push = max(push * tick_time, f4(0))
    down = scaled(plus(up, f4(0.05), _noise(who, when, purpose + 1, key)), -push)
    twist = (f4(0.3) * (depth - f4(1)) * (depth - f4(1)) + f4(0.02) * weak - f4(0.01)) * tick_time
    return True, down, scaled(_noise(who, when, purpose + 2, key), twist)
