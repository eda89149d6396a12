"""A config as compiled code is given it: numbers alone, in the units in which they are used."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from coterie.envs.swarm import layout
from coterie.envs.swarm.config import GRACE, Noise, SwarmConfig
from coterie.envs.swarm.scenarios import MOVES, SCENARIOS

BRUTE_FORCE = 128
"""With more drones than this neighbours are looked for on a grid."""
GRID_RANGE = 1.0
"""How far they then see, m, unless the config says."""
WASH_REACH = 0.71
"""How far down and aside a downwash is felt at most, m."""


class Parameters(NamedTuple):
    """float32 where a loop over drones reads it; see `SwarmConfig` for what they are."""

    # Flight.
    substeps: int
    dt: np.float32
    tick_time: np.float32
    lag: np.float32
    lift: np.float32
    """Acceleration by one motor at full thrust, m/s^2."""
    roll: np.float32
    pitch: np.float32
    yaw: np.float32
    """Angular acceleration about each axis by one motor at full thrust, rad/s^2."""
    gyro_x: np.float32
    gyro_y: np.float32
    gyro_z: np.float32
    """(Iyy - Izz) / Ixx and so on."""
    max_omega: np.float32
    friction: np.float32
    linear_drag: np.float32
    quadratic_drag: np.float32
    half_x: np.float32
    half_y: np.float32
    height: np.float32
    floor: np.float32
    last_wall: bool
    # Noise.
    noisy: bool
    rotor_keep: np.float32
    rotor_sigma: np.float32
    position_sigma: np.float32
    velocity_sigma: np.float32
    omega_sigma: np.float32
    # Reward.
    distance: np.float32
    effort: np.float32
    on_floor: np.float32
    upright: np.float32
    spin: np.float32
    collision: np.float32
    proximity: np.float32
    proximity_range: np.float32
    obstacle: np.float32
    # Others.
    arm: np.float32
    reach: np.float32
    """Distance beyond which drones do nothing to each other, m."""
    downwash: bool
    lose: bool
    has_obstacles: bool
    num_neighbours: int
    closing: np.float32
    by_index: bool
    sight: np.float32
    surrounding: int
    clip: bool
    grid: bool
    # Episodes.
    ticks: int
    grace: int
    control_hz: int
    cells_x: int
    cells_y: int


def _noise(config: SwarmConfig) -> dict[str, Any]:
    noise = config.noise or Noise(0, 0, 0, 0, 0)
    return {
        "noisy": config.noise is not None,
        "rotor_keep": 1 - noise.rotor_decay,
        "rotor_sigma": noise.rotor,
        "position_sigma": noise.position,
        "velocity_sigma": noise.velocity,
        "omega_sigma": noise.omega,
    }


def _flight(config: SwarmConfig) -> dict[str, Any]:
    drone, gravity = config.quadrotor, 9.81
    ixx, iyy, izz = drone.inertia
    lift = gravity * drone.thrust_to_weight / 4
    lever = drone.arm / math.sqrt(2)
    quirky = config.compat == "quad_swarm_rl"
    return {
        "substeps": config.physics_hz // config.control_hz,
        "dt": 1 / config.physics_hz,
        "tick_time": 1 / config.control_hz,
        "lag": 4 / (config.physics_hz * drone.motor_lag),
        "lift": lift,
        "roll": lift * drone.mass * lever / ixx,
        "pitch": lift * drone.mass * lever / iyy,
        "yaw": lift * drone.mass * drone.torque_to_thrust / izz,
        "gyro_x": (iyy - izz) / ixx,
        "gyro_y": (izz - ixx) / iyy,
        "gyro_z": (ixx - iyy) / izz,
        "max_omega": drone.max_omega,
        "friction": drone.friction,
        "linear_drag": drone.linear_drag / drone.mass,
        "quadratic_drag": drone.quadratic_drag / drone.mass,
        "half_x": config.room[0] / 2,
        "half_y": config.room[1] / 2,
        "height": config.room[2],
        "floor": 0.046 if quirky else drone.arm,
        "last_wall": quirky,
        "arm": drone.arm,
    }


def _rewards(config: SwarmConfig) -> dict[str, Any]:
    rewards = config.rewards
    proximity = rewards.proximity if rewards.proximity is not None else 10.0 if config.obstacles is None else 4.0
    time, proximity_time = rewards.time * config.pace, rewards.proximity_time * config.pace
    return {
        "distance": rewards.distance * time,
        "effort": rewards.effort * time,
        "on_floor": rewards.floor * time,
        "upright": rewards.upright * time,
        "spin": rewards.spin * time,
        "collision": rewards.collision,
        "proximity": proximity * proximity_time,
        "proximity_range": max(rewards.proximity_range, 1e-6) * config.quadrotor.arm,
        "obstacle": rewards.obstacle,
    }


def parameters(config: SwarmConfig) -> Parameters:
    """The numbers of a config."""
    quirky = config.compat == "quad_swarm_rl"
    grid = config.num_drones > BRUTE_FORCE
    sight = config.neighbour_range if config.neighbour_range is not None else GRID_RANGE if grid else 1e3
    values = {**_flight(config), **_noise(config), **_rewards(config)}
    reach = max(values["proximity_range"], 2 * config.quadrotor.arm, WASH_REACH if config.downwash else 0)
    values |= {
        "reach": reach,
        "downwash": config.downwash,
        "lose": config.crash == "lose",
        "has_obstacles": config.obstacles is not None,
        "num_neighbours": config.num_neighbours,
        "closing": 1.0 if config.neighbour_rule == "closing" else 0.0,
        "by_index": quirky and config.num_neighbours == config.num_drones - 1,
        "sight": sight,
        "surrounding": ("none", "height", "walls").index(config.surrounding),
        "clip": not quirky,
        "grid": grid,
        "ticks": config.ticks,
        "grace": round(GRACE * config.control_hz),
        "control_hz": config.control_hz,
        "cells_x": config.cells[0],
        "cells_y": config.cells[1],
    }  # fmt: skip
    return Parameters(**{name: kind(values[name]) for name, kind in get_type_hints(Parameters).items()})


def scenario_table(names: tuple[str, ...]) -> NDArray[np.float32]:
    """One row of layout.COLUMNS numbers per scenario."""
    table = np.zeros((len(names), layout.COLUMNS), dtype=np.float32)
    for row, name in zip(table, names, strict=True):
        scenario = SCENARIOS[name]
        row[layout.MOVE] = MOVES.index(scenario.move)
        row[layout.IN_FORMATION] = scenario.in_formation
        row[layout.SPACING_LOW], row[layout.SPACING_HIGH] = scenario.spacing
        row[layout.PERIOD_LOW], row[layout.PERIOD_HIGH] = scenario.period
        row[layout.AMONG_OBSTACLES], row[layout.REACH] = scenario.among_obstacles, scenario.reach
    return table
