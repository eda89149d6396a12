"""The world's step on a GPU: the same functions as on a CPU, compiled by `numba.cuda`, one thread per drone.

A block works whole environments, up to BLOCK drones, so that what drones do to each other waits for nothing but the
block's own threads. The arrays are torch's, and shared with the kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import config, cuda, float32, int32
from numpy.typing import NDArray
from torch import Tensor

from coterie.cuda_graphs import Recorded
from coterie.envs.swarm import layout as at
from coterie.envs.swarm.compiling import compiled, inlined
from coterie.envs.swarm.draws import f4, normals, u4
from coterie.envs.swarm.encounters import column, column9, concerns, pair, settle
from coterie.envs.swarm.flight import advance, demand, earned, length, straighten, touch_down, wander
from coterie.envs.swarm.kernel import Arrays, begin_episode, begin_tick, check, judge, now, observe, park
from coterie.envs.swarm.layout import BLOCK, COUNTERS, DEEDS, FOR_ROTORS, FOR_SENSORS, PURPOSES
from coterie.envs.swarm.parameters import Parameters
from coterie.envs.swarm.perception import FAR, insert, nearest_axis, nearness
from coterie.errors import EnvironmentMissing

_MOST_NEIGHBOURS = 64


@inlined
def _put3(drones: Any, row: Any, i: Any, x: Any) -> None:
    drones[row, i], drones[row + 1, i], drones[row + 2, i] = x[0], x[1], x[2]


@inlined
def _put9(drones: Any, row: Any, i: Any, r: Any) -> None:
    _put3(drones, row, i, (r[0], r[1], r[2]))
    _put3(drones, row + 3, i, (r[3], r[4], r[5]))
    _put3(drones, row + 6, i, (r[6], r[7], r[8]))


@inlined
def _draw(i: Any, when: Any, purpose: Any, key: Any) -> Any:
    return normals(i, when[0], when[1], purpose, key[0], key[1])


@compiled
def _drive(p: Any, drones: Any, i: Any, action: Any, when: Any, key: Any) -> Any:
    """Advance the noise of the motors; what they are driven to, and what noise adds to their thrust."""
    if p.noisy:
        noise = _draw(i, when, FOR_ROTORS * PURPOSES, key)
        for k in range(4):
            drones[at.JITTER + k, i] = wander(p, drones[at.JITTER + k, i], noise[k])
    t0, n0 = demand(action[0], drones[at.JITTER, i])
    t1, n1 = demand(action[1], drones[at.JITTER + 1, i])
    t2, n2 = demand(action[2], drones[at.JITTER + 2, i])
    t3, n3 = demand(action[3], drones[at.JITTER + 3, i])
    return (t0, t1, t2, t3), (n0, n1, n2, n3)


@compiled
def _fly(p: Any, drones: Any, flags: Any, i: Any, action: Any, when: Any, key: Any) -> Any:
    """All physics steps of a tick; how far the drone would have been out of the walls, and of the ceiling."""
    target, push = _drive(p, drones, i, action, when, key)
    x, v, r = column(drones, at.POSITION, i), column(drones, at.VELOCITY, i), column9(drones, at.ATTITUDE, i)
    omega, zero = column(drones, at.OMEGA, i), f4(0)
    motor = (drones[at.MOTOR, i], drones[at.MOTOR + 1, i], drones[at.MOTOR + 2, i], drones[at.MOTOR + 3, i])
    wall, ceiling = zero, zero
    for step in range(p.substeps):
        before, landed = v, flags[i] & at.LANDED != 0
        x, v, r, omega, motor, total, aside, above = advance(p, x, v, r, omega, motor, target, push)
        keep = zero if p.last_wall and step == p.substeps - 1 else f4(1)
        wall, ceiling = keep * wall + aside, keep * ceiling + above
        if x[2] > p.floor:
            flags[i] &= ~at.LANDED
            continue
        v, r = touch_down(p, landed, total, before, r, i, when, key)
        x, omega = (x[0], x[1], p.floor), (zero, zero, zero)
        if not landed:
            flags[i] |= at.LANDED | at.HIT_FLOOR
            motor = (zero, zero, zero, zero)
    if when[0] % u4(50) == u4(0):
        r = straighten(r)
    _put3(drones, at.POSITION, i, x)
    _put3(drones, at.VELOCITY, i, v)
    _put9(drones, at.ATTITUDE, i, r)
    _put3(drones, at.OMEGA, i, omega)
    for k in range(4):
        drones[at.MOTOR + k, i] = motor[k]
    return wall, ceiling


@compiled
def _earn(p: Any, drones: Any, i: Any, action: Any, tick: Any, left: Any) -> Any:
    """The reward in the air; keeps count of distances, with `left` ticks of the episode left."""
    x, goal, omega = column(drones, at.POSITION, i), column(drones, at.GOAL, i), column(drones, at.OMEGA, i)
    distance = length(x[0] - goal[0], x[1] - goal[1], x[2] - goal[2])
    drones[at.RING + tick % 5, i] = distance
    if left < p.control_hz:
        drones[at.NEAR_1S, i] += distance
    if left < 3 * p.control_hz:
        drones[at.NEAR_3S, i] += distance
    if left < 5 * p.control_hz:
        drones[at.NEAR_5S, i] += distance
    return earned(p, distance, drones[at.ATTITUDE + 8, i], omega, (action[0], action[1], action[2], action[3]))


@compiled
def _meet(p: Any, drones: Any, flags: Any, deeds: Any, counters: Any, i: Any, n: Any, when: Any, key: Any) -> None:
    """What all others do to a drone."""
    for k in range(DEEDS):
        deeds[k, i] = f4(0)
    x, reach = column(drones, at.POSITION, i), p.reach * p.reach
    for j in range(n):
        other = column(drones, at.POSITION, j)
        dx, dy, dz = other[0] - x[0], other[1] - x[1], other[2] - x[2]
        if j != i and dx * dx + dy * dy + dz * dz < reach:
            pair(p, drones, flags, deeds, counters, i, j, when, key)


@compiled
def _rank(p: Any, drones: Any, i: Any, n: Any, found: Any, keys: Any) -> None:
    """As `perception.rank`."""
    count, worst, sight = p.num_neighbours, f4(FAR), p.sight * p.sight
    for k in range(count):
        found[k], keys[k] = -1, worst
        if p.by_index:
            found[k] = k if k < i else k + 1
    if p.by_index or count == 0:
        return
    x, v = column(drones, at.POSITION, i), column(drones, at.VELOCITY, i)
    for j in range(n):
        y, u = column(drones, at.POSITION, j), column(drones, at.VELOCITY, j)
        dx, dy, dz = y[0] - x[0], y[1] - x[1], y[2] - x[2]
        key = nearness(dx, dy, dz, u[0] - v[0], u[1] - v[1], u[2] - v[2], p.closing)
        if j != i and dx * dx + dy * dy + dz * dz <= sight and key < worst:
            insert(found, keys, 0, count, j, key)
            worst = keys[count - 1]


@compiled
def _look(p: Any, a: Any, e: Any, i: Any, keys: Any) -> None:
    """Write what a drone observes, with this tick's noise."""
    drones, when, key, zero = a.drones[e], now(a, e), a.keys[e], f4(0)
    noise = (zero, zero, zero, zero, zero, zero, zero, zero, zero)
    if p.noisy:
        b = _draw(i, when, FOR_SENSORS * PURPOSES, key)
        c = _draw(i, when, FOR_SENSORS * PURPOSES + 1, key)
        d = _draw(i, when, FOR_SENSORS * PURPOSES + 2, key)
        noise = (b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0])
    _rank(p, drones, i, a.flags.shape[1], a.neighbours[e, i], keys)
    observe(
        p, a, e, i, column(drones, at.POSITION, i), column(drones, at.VELOCITY, i), column9(drones, at.ATTITUDE, i),
        column(drones, at.OMEGA, i), column(drones, at.GOAL, i), noise,
    )  # fmt: skip


@compiled
def _judge(
    p: Any, a: Any, e: Any, i: Any, deeds: Any, mine: Any, gain: Any, axis: Any, wall: Any, ceiling: Any
) -> None:
    """Change velocities by what the drone met, and reward it; `mine` is this thread's share of the counters."""
    drones, flags, radius = a.drones[e], a.flags[e], a.settings[e, at.RADIUS]
    if concerns(p, deeds, i, axis, radius, wall, ceiling) and not flags[i] & at.LOST:
        settle(
            p, drones, flags, deeds, mine, i, axis, a.obstacles[e], radius, wall, ceiling, now(a, e), a.keys[e]
        )  # fmt: skip
    judge(p, a, e, mine, drones, i, i, gain, deeds[at.CROWD, i])
    _put3(drones, at.BEFORE, i, column(drones, at.POSITION, i))


@cuda.jit
def step(p, a, actions):  # type: ignore[no-untyped-def]
    """A control step. Blocks of as many threads as a whole number of environments has drones."""
    n = a.flags.shape[1]
    first = cuda.threadIdx.x // n * n
    e, i = (cuda.blockIdx.x * cuda.blockDim.x + first) // n, cuda.threadIdx.x - first
    deeds, mine = cuda.shared.array((DEEDS, BLOCK), float32)[:, first:], cuda.local.array(COUNTERS, int32)
    keys, works = cuda.local.array(_MOST_NEIGHBOURS, float32), e < a.flags.shape[0]
    gain, axis, wall, ceiling = f4(0), f4(FAR), f4(0), f4(0)
    if works and i == 0:
        begin_tick(p, a, e)
    cuda.syncthreads()
    if works:
        for k in range(COUNTERS):
            mine[k] = a.counters[e, k] if k < at.PAIR_CONTACTS else 0
        wall, ceiling = _fly(p, a.drones[e], a.flags[e], i, actions[e, i], now(a, e), a.keys[e])
        gain = _earn(p, a.drones[e], i, actions[e, i], mine[at.TICK], mine[at.ENDS] - mine[at.TICK])
        if a.flags[e, i] & at.LOST:
            park(a.drones[e], i, i)
            wall, ceiling = f4(0), f4(0)
        x, y = a.drones[e, at.POSITION, i], a.drones[e, at.POSITION + 1, i]
        axis = nearest_axis(x, y, a.obstacles[e], mine[at.NUM_OBSTACLES])
    cuda.syncthreads()
    if works:
        _meet(p, a.drones[e], a.flags[e], deeds, mine, i, n, now(a, e), a.keys[e])
    cuda.syncthreads()
    if works:
        _judge(p, a, e, i, deeds, mine, gain, axis, wall, ceiling)
        for k in range(at.PAIR_CONTACTS, COUNTERS):
            if mine[k]:
                cuda.atomic.add(a.counters[e], k, mine[k])
        if mine[at.EVENT]:
            a.counters[e, at.EVENT] = 1
    cuda.syncthreads()
    if works:
        check(a, e, a.drones[e], i, i)
        _look(p, a, e, i, keys)
        if i == 0:
            a.truncated[e] = a.counters[e, at.TICK] >= a.counters[e, at.ENDS]


@cuda.jit
def begin(p, a, mask):  # type: ignore[no-untyped-def]
    """Begin episodes where `mask` is set. One thread per environment."""
    e = cuda.grid(1)
    if e < a.flags.shape[0] and mask[e]:
        begin_episode(p, a, e, True)


@cuda.jit
def look(p, a, mask):  # type: ignore[no-untyped-def]
    """Observations where `mask` is set. One thread per drone."""
    n, keys = a.flags.shape[1], cuda.local.array(_MOST_NEIGHBOURS, float32)
    e, i = cuda.grid(1) // n, cuda.grid(1) % n
    if e < a.flags.shape[0] and mask[e]:
        _look(p, a, e, i, keys)


class Device:
    """The arrays of a world on a GPU, and what works on them.

    Args:
        p: The parameters.
        arrays: What the world begins with.

    Raises:
        EnvironmentMissing: There is no GPU.
    """

    def __init__(self, p: Parameters, arrays: Arrays) -> None:
        if not is_available():
            raise EnvironmentMissing(
                "the swarm's world is to run on a GPU, and none is found",
                where="device",
                remedy='take device="cpu"; otherwise see what torch.cuda.is_available() and `numba -s` say',
            )
        place = torch.device("cpu" if config.ENABLE_CUDASIM else "cuda")
        tensors = [torch.from_numpy(array.copy()).to(place) for array in arrays]
        self.tensors: Any = Arrays._make(tensors)
        """`Arrays` of tensors."""
        self._views = Arrays._make(map(_shared, tensors))
        self._parameters, self._place = p, place
        self._envs, self._drones = arrays.flags.shape
        self._step, self._begin = Recorded(self._launch_step), Recorded(self._launch_begin)

    def push(self, arrays: Arrays) -> None:
        """Replace everything."""
        for tensor, array in zip(self.tensors, arrays, strict=True):
            tensor.copy_(torch.from_numpy(array))

    def pull(self, arrays: Arrays) -> None:
        """Copy everything back."""
        for tensor, array in zip(self.tensors, arrays, strict=True):
            array[...] = tensor.cpu().numpy()

    def step(self, actions: Any) -> None:
        """One control step; actions [E, N, 4], anywhere."""
        given = torch.as_tensor(actions, dtype=torch.float32, device=self._place).detach().contiguous()
        self._step(given)

    def _launch_step(self, actions: Tensor) -> tuple[Tensor, ...]:
        threads = BLOCK // self._drones * self._drones
        step[self._blocks(threads), threads, _stream()](self._parameters, self._views, _shared(actions))
        return ()

    def reset(self, mask: Any, densities: NDArray[np.float32], penalty: float, speed: float) -> None:
        """Begin episodes where `mask` [E], anywhere, is set, and observe there."""
        there = torch.as_tensor(mask, device=self._place).contiguous()
        self.tensors.densities.copy_(torch.from_numpy(densities))
        self.tensors.settings[:, at.PENALTY].masked_fill_(there, penalty)
        self.tensors.settings[:, at.SPEED].masked_fill_(there, speed)
        self._begin(there)

    def _launch_begin(self, mask: Tensor) -> tuple[Tensor, ...]:
        begin[-(-self._envs // 32), 32, _stream()](self._parameters, self._views, _shared(mask))
        self.look(mask)
        return ()

    def look(self, mask: Any) -> None:
        """Observe anew where `mask` [E], anywhere, is set."""
        there = torch.as_tensor(mask, device=self._place).contiguous()
        look[self._blocks(BLOCK), BLOCK, _stream()](self._parameters, self._views, _shared(there))

    def _blocks(self, threads: int) -> int:
        return int(-(-self._envs * self._drones // threads))


def is_available() -> bool:
    """Whether numba and torch both find a GPU; numba's simulator is one."""
    return bool(config.ENABLE_CUDASIM or (cuda.is_available() and torch.cuda.is_available()))


def _shared(tensor: Tensor) -> Any:
    return tensor.numpy() if config.ENABLE_CUDASIM else cuda.as_cuda_array(tensor)


def _stream() -> Any:
    # Torch's own, so that neither waits for the other.
    return 0 if config.ENABLE_CUDASIM else cuda.external_stream(torch.cuda.current_stream().cuda_stream)
