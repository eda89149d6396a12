"""How one quadrotor flies: scalar functions of numbers, each one equation.

The model is that of Huang et al. 2023 (QuadSwarm): four first-order motors, a rigid body, explicit Euler for what is
linear and the exact exponential for attitude. Motors are front right, back right, back left, front left.
"""

from __future__ import annotations

import math
from typing import Any

from coterie.envs.swarm.compiling import compiled, inlined
from coterie.envs.swarm.draws import f4, uniforms
from coterie.envs.swarm.layout import FOR_FLOOR, PURPOSES


@inlined
def clip(x: Any, low: Any, high: Any) -> Any:
    """X in [low, high]."""
    return min(max(x, low), high)


@inlined
def command(action: Any) -> Any:
    """Share of full thrust that an action in [-1, 1] asks for."""
    return (clip(action, f4(-1), f4(1)) + f4(1)) * f4(0.5)


@inlined
def wander(p: Any, jitter: Any, normal: Any) -> Any:
    """A motor's Ornstein-Uhlenbeck noise a tick later."""
    return p.rotor_keep * jitter + p.rotor_sigma * normal


@inlined
def demand(action: Any, jitter: Any) -> Any:
    """What a motor is driven to, and what noise adds to its share of thrust."""
    share = command(action)
    return math.sqrt(share), share * jitter


@inlined
def drive(lag: Any, motor: Any, target: Any) -> Any:
    """A motor's square root of thrust after a step in which its command's is `target`."""
    return motor + lag * (target - motor)


@inlined
def thrust(motor: Any, push: Any) -> Any:
    """Share of full thrust; `push` is what noise adds."""
    return clip(motor * motor + push, f4(0), f4(1))


@inlined
def turn(p: Any, d0: Any, d1: Any, d2: Any, d3: Any, wx: Any, wy: Any, wz: Any) -> Any:
    """Angular velocity (body) after a step: Euler's equation, limited."""
    ax = p.roll * (d2 + d3 - d0 - d1) + p.gyro_x * wy * wz
    ay = p.pitch * (d1 + d2 - d0 - d3) + p.gyro_y * wz * wx
    az = p.yaw * (d1 + d3 - d0 - d2) + p.gyro_z * wx * wy
    return (
        clip(wx + p.dt * ax, -p.max_omega, p.max_omega),
        clip(wy + p.dt * ay, -p.max_omega, p.max_omega),
        clip(wz + p.dt * az, -p.max_omega, p.max_omega),
    )


@inlined
def rotation(wx: Any, wy: Any, wz: Any, dt: Any) -> Any:
    """exp([w]x dt), row-major: Rodrigues, with series instead of sines, exact to float32 up to one radian."""
    x, y, z = wx * dt, wy * dt, wz * dt
    q = x * x + y * y + z * z
    a = f4(1) - q * (f4(1 / 6) - q * (f4(1 / 120) - q * f4(1 / 5040)))
    b = f4(1 / 2) - q * (f4(1 / 24) - q * (f4(1 / 720) - q * f4(1 / 40320)))
    xy, xz, yz = b * x * y, b * x * z, b * y * z
    x2, y2, z2 = b * x * x, b * y * y, b * z * z
    one = f4(1)
    return (
        one - y2 - z2, xy - a * z, xz + a * y,
        xy + a * z, one - x2 - z2, yz - a * x,
        xz - a * y, yz + a * x, one - x2 - y2,
    )  # fmt: skip


@inlined
def row_times(r0: Any, r1: Any, r2: Any, e: Any) -> Any:
    """A row of a matrix times a matrix."""
    return (
        r0 * e[0] + r1 * e[3] + r2 * e[6],
        r0 * e[1] + r1 * e[4] + r2 * e[7],
        r0 * e[2] + r1 * e[5] + r2 * e[8],
    )


@inlined
def straighten(r: Any) -> Any:
    """The orthogonal matrix next to one that is nearly so: a Newton step, (3 - RR') R / 2."""
    a, b, c, d, e, f, g, h, i = r
    aa, bb, cc = a * a + b * b + c * c, d * d + e * e + f * f, g * g + h * h + i * i
    ab, ac, bc = a * d + b * e + c * f, a * g + b * h + c * i, d * g + e * h + f * i
    half, p, q, s = f4(0.5), f4(1.5) - f4(0.5) * aa, f4(1.5) - f4(0.5) * bb, f4(1.5) - f4(0.5) * cc
    ab, ac, bc = half * ab, half * ac, half * bc
    return (
        p * a - ab * d - ac * g, p * b - ab * e - ac * h, p * c - ab * f - ac * i,
        q * d - ab * a - bc * g, q * e - ab * b - bc * h, q * f - ab * c - bc * i,
        s * g - ac * a - bc * d, s * h - ac * b - bc * e, s * i - ac * c - bc * f,
    )  # fmt: skip


@inlined
def acceleration(p: Any, total: Any, up: Any, vx: Any, vy: Any, vz: Any) -> Any:
    """In the world, m/s^2. `total` is the sum of the four shares of thrust, `up` the body's vertical axis."""
    lift = p.lift * total
    drag = p.linear_drag + p.quadratic_drag * math.sqrt(vx * vx + vy * vy + vz * vz)
    return lift * up[0] - drag * vx, lift * up[1] - drag * vy, lift * up[2] - f4(9.81) - drag * vz


@inlined
def advance(p: Any, x: Any, v: Any, r: Any, omega: Any, motor: Any, target: Any, push: Any) -> Any:
    """One physics step in the air.

    Args:
        p: The parameters.
        x: Position, m, of 3.
        v: Velocity, m/s, of 3.
        r: Attitude, row-major, of 9.
        omega: Angular velocity in body axes, rad/s, of 3.
        motor: Square roots of the shares of thrust, of 4.
        target: Those that are commanded, of 4.
        push: What noise adds to the shares of thrust, of 4.

    Returns:
        Position, velocity, attitude, angular velocity and motors after it; the sum of the shares of thrust; how far it
        would have been out of the walls, and of the ceiling, m.
    """
    u0, u1 = drive(p.lag, motor[0], target[0]), drive(p.lag, motor[1], target[1])
    u2, u3 = drive(p.lag, motor[2], target[2]), drive(p.lag, motor[3], target[3])
    d0, d1, d2, d3 = thrust(u0, push[0]), thrust(u1, push[1]), thrust(u2, push[2]), thrust(u3, push[3])
    total = d0 + d1 + d2 + d3
    e = rotation(omega[0], omega[1], omega[2], p.dt)
    a0, a1, a2 = row_times(r[0], r[1], r[2], e)
    b0, b1, b2 = row_times(r[3], r[4], r[5], e)
    c0, c1, c2 = row_times(r[6], r[7], r[8], e)
    ax, ay, az = acceleration(p, total, (a2, b2, c2), v[0], v[1], v[2])
    free = (x[0] + p.dt * v[0], x[1] + p.dt * v[1], x[2] + p.dt * v[2])
    kept = (clip(free[0], -p.half_x, p.half_x), clip(free[1], -p.half_y, p.half_y), clip(free[2], f4(0), p.height))
    return (
        kept,
        (v[0] + p.dt * ax, v[1] + p.dt * ay, v[2] + p.dt * az),
        (a0, a1, a2, b0, b1, b2, c0, c1, c2),
        turn(p, d0, d1, d2, d3, omega[0], omega[1], omega[2]),
        (u0, u1, u2, u3),
        total,
        abs(free[0] - kept[0]) + abs(free[1] - kept[1]),
        max(free[2] - p.height, f4(0)),
    )


@compiled
def level(r: Any, angle: Any) -> Any:
    """An attitude laid flat, with its yaw; upside down, with yaw `angle`."""
    yaw = angle if r[8] < f4(0) else f4(math.atan2(r[3], r[0]))
    c, s, zero = f4(math.cos(yaw)), f4(math.sin(yaw)), f4(0)
    return c, -s, zero, s, c, zero, zero, zero, f4(1)


@compiled
def slide(p: Any, total: Any, vx: Any, vy: Any, vz: Any, dt: Any) -> Any:
    """Velocity after a step on the floor: no sinking, and friction that brakes but does not turn around."""
    vz = max(vz + dt * (p.lift * total - f4(9.81)), f4(0))
    press = max(f4(9.81) - p.lift * total, f4(0))
    speed = math.sqrt(vx * vx + vy * vy)
    keep = f4(0)
    if speed > f4(0):
        keep = max(speed - dt * p.friction * press, f4(0)) / speed
    return vx * keep, vy * keep, vz


@compiled
def touch_down(p: Any, landed: Any, total: Any, v: Any, r: Any, i: Any, when: Any, key: Any) -> Any:
    """Velocity and attitude after a physics step that ended at the floor.

    Args:
        p: The parameters.
        landed: Whether it began there, too: then the drone slides. Otherwise it is stopped and laid flat.
        total: The sum of the shares of thrust.
        v: Velocity before the step.
        r: Attitude after it.
        i: The drone.
        when: Tick and episode.
        key: Of the environment.
    """
    if landed:
        # It did not turn, so it still lies flat.
        return slide(p, total, v[0], v[1], v[2], p.dt), r
    angle = f4(0)
    if r[8] < f4(0):
        share, _, _, _ = uniforms(i, when[0], when[1], FOR_FLOOR * PURPOSES, key[0], key[1])
        angle = f4(2 * math.pi) * share
    return (f4(0), f4(0), f4(0)), level(r, angle)


@inlined
def length(x: Any, y: Any, z: Any) -> Any:
    """Of a vector."""
    return math.sqrt(x * x + y * y + z * z)


@inlined
def earned(p: Any, distance: Any, upright: Any, omega: Any, action: Any) -> Any:
    """The reward in the air, but for what others do.

    Args:
        p: The parameters.
        distance: From the goal, m.
        upright: Vertical component of the body's vertical axis.
        omega: Angular velocity, of 3.
        action: As given, of 4.
    """
    a, b, c, d = action
    effort, spin = math.sqrt(a * a + b * b + c * c + d * d), length(omega[0], omega[1], omega[2])
    return p.upright * upright - p.distance * distance - p.effort * effort - p.spin * spin
