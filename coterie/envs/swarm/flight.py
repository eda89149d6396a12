"""How one quadrotor flies: scalar functions of numbers, each one equation.

The model is that of Huang et al. 2023 (QuadSwarm): four first-order motors, a rigid body, explicit Euler for what is
linear and the exact exponential for attitude. Motors are front right, back right, back left, front left.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coterie.envs.swarm.compiling import compiled, inlined
from coterie.envs.swarm.draws import f4


@inlined
def clip(x: Any, low: Any, high: Any) -> Any:
    """X in [low, high]."""
    return min(max(x, low), high)


@inlined
def command(action: Any) -> Any:
    """Share of full thrust that an action in [-1, 1] asks for."""
    return (clip(action, f4(-1), f4(1)) + f4(1)) * f4(0.5)


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
    drag = p.linear_drag + p.quadratic_drag * np.sqrt(vx * vx + vy * vy + vz * vz)
    return lift * up[0] - drag * vx, lift * up[1] - drag * vy, lift * up[2] - f4(9.81) - drag * vz


@compiled
def level(r: Any, angle: Any) -> Any:
    """An attitude laid flat, with its yaw; upside down, with yaw `angle`."""
    yaw = angle if r[8] < f4(0) else f4(np.arctan2(r[3], r[0]))
    c, s, zero = f4(np.cos(yaw)), f4(np.sin(yaw)), f4(0)
    return c, -s, zero, s, c, zero, zero, zero, f4(1)


@compiled
def slide(p: Any, total: Any, vx: Any, vy: Any, vz: Any, dt: Any) -> Any:
    """Velocity after a step on the floor: no sinking, and friction that brakes but does not turn around."""
    vz = max(vz + dt * (p.lift * total - f4(9.81)), f4(0))
    press = max(f4(9.81) - p.lift * total, f4(0))
    speed = np.sqrt(vx * vx + vy * vy)
    keep = f4(0)
    if speed > f4(0):
        keep = max(speed - dt * p.friction * press, f4(0)) / speed
    return vx * keep, vy * keep, vz
