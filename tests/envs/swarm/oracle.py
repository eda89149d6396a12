"""One quadrotor's flight in float64 numpy, from the equations alone; nothing here comes from the package under test."""

import numpy as np

MASS, GRAVITY, ARM = 0.028, 9.81, 0.0459619
INERTIA = np.array([1.36692e-5, 1.43567e-5, 2.65616e-5])
MOTOR_FORCE = MASS * GRAVITY * 1.9 / 4
LEVER = ARM / np.sqrt(2)
MOTORS = np.array([[LEVER, -LEVER, 0], [-LEVER, -LEVER, 0], [-LEVER, LEVER, 0], [LEVER, LEVER, 0]])
SPIN = np.array([-1.0, 1.0, -1.0, 1.0])
DT = 0.005
LAG = 4 * DT / 0.15
ROOM = np.array([5.0, 5.0, 10.0])


def cross_matrix(w):
    return np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])


def exponential(w):
    """Rotation by the vector w."""
    angle = np.linalg.norm(w)
    if angle < 1e-12:
        return np.eye(3) + cross_matrix(w)
    k = cross_matrix(w / angle)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def substep(pos, vel, rot, omega, motor, command):
    """5 ms of one drone in the air; `command` is the share of full thrust that each motor is asked for."""
    motor = motor + LAG * (np.sqrt(command) - motor)
    forces = MOTOR_FORCE * np.clip(motor**2, 0, 1)
    torque = sum(np.cross(r, [0, 0, f]) for r, f in zip(MOTORS, forces, strict=True))
    torque = torque + np.array([0, 0, 0.006 * SPIN @ forces])
    turned = exponential(rot @ omega * DT) @ rot
    omega_dot = (torque - np.cross(omega, INERTIA * omega)) / INERTIA
    acceleration = turned[:, 2] * forces.sum() / MASS - np.array([0, 0, GRAVITY])
    moved = np.clip(pos + DT * vel, [-ROOM[0], -ROOM[1], 0], ROOM)
    return moved, vel + DT * acceleration, turned, np.clip(omega + DT * omega_dot, -40, 40), motor


def control_step(state, action):
    """10 ms of one drone; state is (pos, vel, rot, omega, motor)."""
    command = (np.clip(action, -1, 1) + 1) / 2
    for _ in range(2):
        state = substep(*state, command)
    return state
