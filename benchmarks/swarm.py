"""Agent-steps per second of the swarm's world, per core and on all cores, beside other simulators if installed.

A step is a control step of one drone with everything on: two physics steps, noise, contacts, downwash,
neighbours, obstacles, observation, reward. Time is CPU time of this process for one core, and wall time for all of
them and for a GPU, if there is one; what else runs on the machine takes its share of the latter.

Correct first: environments alone and among others are equal bit for bit, on one thread and on several, and finite.

    python benchmarks/swarm.py [--seconds 2] [--device cuda]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _common import save, save_gpu

from coterie import rng
from coterie.envs.swarm import Obstacles, SwarmConfig, VecSwarm

TARGETS = {
    "8 drones, one core": 1.5e6, "8 drones, two cores": 2.7e6, "128 drones, one core": 0.7e6,
}  # fmt: skip
GPU_TARGET = 1e8


def config(num_drones: int, *, obstacles: bool) -> SwarmConfig:
    """K=2; 12 obstacles among 8 drones; one drone per m^3 where there are more than 128."""
    side = max(10.0, num_drones ** (1 / 3) + 2)
    return SwarmConfig(
        num_drones=num_drones, room=(side, side, side), obstacles=Obstacles(density=0.2) if obstacles else None
    )


def world(num_drones: int, envs: int, threads: int, *, obstacles: bool) -> tuple[VecSwarm, np.ndarray[Any, Any]]:
    made = VecSwarm(config(num_drones, obstacles=obstacles), envs, seed=0, threads=threads)
    made.reset()
    hover = 2 / 1.9 - 1
    actions = hover + 0.1 * rng.stream(0, "benchmark").normal(size=(envs, num_drones, 4))
    return made, np.asarray(actions, np.float32)


def check() -> None:
    """Raises AssertionError unless worlds of several sizes and numbers of threads agree bit for bit."""
    (alone, a), (many, b) = world(8, 2, 1, obstacles=True), world(8, 128, 4, obstacles=True)
    for _ in range(150):
        one, all_of_them = alone.step(b[:2]), many.step(b)
        assert np.array_equal(one.observation, all_of_them.observation[:2])
        assert np.array_equal(one.reward, all_of_them.reward[:2])
        assert np.isfinite(all_of_them.observation).all()
    assert a.shape == (2, 8, 4)


def rate(step: Callable[[], Any], agents: int, seconds: float, clock: Callable[[], float]) -> float:
    """Agent-steps per second, the best of three."""
    best = 0.0
    for _ in range(3):
        start, count = clock(), 0
        while clock() - start < seconds / 3:
            for _ in range(5):
                step()
            count += 5
        best = max(best, count * agents / (clock() - start))
    return best


def ours(num_drones: int, envs: int, threads: int, seconds: float, *, obstacles: bool = True) -> float:
    made, actions = world(num_drones, envs, threads, obstacles=obstacles)
    for _ in range(50):
        made.step(actions)
    clock = time.process_time if threads == 1 else time.perf_counter

    def step() -> None:
        made.step(actions)
        if made.done.any():
            made.reset(made.done)

    return rate(step, num_drones * envs, seconds, clock)


def on_gpu(num_drones: int, envs: int, seconds: float) -> float:
    """As `ours`, with actions that are on the GPU, too."""
    import torch

    made = VecSwarm(config(num_drones, obstacles=True), envs, seed=0, device="cuda")
    made.reset()
    actions = 2 / 1.9 - 1 + 0.1 * torch.randn(envs, num_drones, 4, device="cuda")

    def step() -> None:
        made.step(actions)
        torch.cuda.synchronize()

    for _ in range(5):
        step()
    return rate(step, num_drones * envs, seconds, time.perf_counter)


def vmas(seconds: float) -> float:
    """VMAS `flocking`, 8 agents, 1024 environments, one thread: flat, two-dimensional, no rigid bodies."""
    import torch
    from vmas import make_env

    torch.set_num_threads(1)
    env = make_env("flocking", num_envs=1024, device="cpu", n_agents=8)
    env.reset()
    actions = [torch.zeros(1024, 2) for _ in range(8)]
    return rate(lambda: env.step(actions), 8 * 1024, seconds, time.process_time)


def pybullet(seconds: float) -> float:
    """gym-pybullet-drones, `CtrlAviary`, 8 drones, physics and control at 200 and 100 Hz; nobody observes others."""
    from gym_pybullet_drones.envs.CtrlAviary import CtrlAviary

    env = CtrlAviary(num_drones=8, pyb_freq=200, ctrl_freq=100, gui=False)
    env.reset()
    actions = np.full((8, 4), 14000.0)
    return rate(lambda: env.step(actions), 8, seconds, time.process_time)


def measure(seconds: float) -> dict[str, Any]:
    begin = time.process_time()
    check()
    cores = os.cpu_count() or 1
    checked = round(time.process_time() - begin, 1)
    result: dict[str, Any] = {"targets": TARGETS, "CPU s for compiling (if not cached) and checking": checked}
    for name, value in (
        ("8 drones, one core", lambda: ours(8, 512, 1, seconds)),
        ("32 drones, one core", lambda: ours(32, 64, 1, seconds)),
        ("128 drones, one core", lambda: ours(128, 16, 1, seconds, obstacles=False)),
        ("512 drones, one core", lambda: ours(512, 4, 1, seconds, obstacles=False)),
        ("4096 drones, one core", lambda: ours(4096, 1, 1, seconds, obstacles=False)),
        (f"8 drones, {'two' if cores == 2 else cores} cores", lambda: ours(8, 512, cores, seconds)),
    ):
        result[name] = round(value())
        print(f"{name}: {result[name] / 1e6:.2f} M/s", file=sys.stderr, flush=True)
    result["cost at 4096 over cost at 128"] = round(result["128 drones, one core"] / result["4096 drones, one core"], 2)
    for module, rival in (("vmas", vmas), ("gym_pybullet_drones", pybullet)):
        if importlib.util.find_spec(module):
            result[f"{module}, 8 drones, one core"] = round(rival(seconds))
    result["reached"] = {name: result[name] >= goal for name, goal in TARGETS.items() if name in result}
    return result


def measure_gpu(seconds: float) -> dict[str, Any]:
    """How fast the world is on a GPU, by the number of environments; the fastest of 8 drones is what is compared."""
    sizes = {f"8 drones in {envs} environments": (8, envs) for envs in (1024, 4096, 16384, 65536)}
    sizes["128 drones in 2048 environments"] = (128, 2048)
    rows = {name: round(on_gpu(*size, seconds)) for name, size in sizes.items()}
    best = max(rate for name, rate in rows.items() if name.startswith("8 "))
    return {"target": GPU_TARGET, **rows, "reached": best >= GPU_TARGET}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    if options.device == "cuda":
        save_gpu("swarm", measure_gpu(options.seconds))
    else:
        save("swarm", measure(options.seconds))
