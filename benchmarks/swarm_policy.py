"""Agent-steps per second of swarm policies on one core: acting, learning, and as C.

`forward` acts without gradients; `learn` is forward and backward of the actor alone, so that a critic of the same shape
costs as much again, and each further epoch both. Time is CPU time of this process, the best of several.

Correct first: rows do not depend on each other, nor on the order of neighbours, and C does what the policy does.

    OMP_NUM_THREADS=1 python benchmarks/swarm_policy.py [--seconds 2]
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import save

from coterie.agents.swarm.activations import activate
from coterie.agents.swarm.architecture import Architecture, Kind
from coterie.agents.swarm.export_c import to_c
from coterie.agents.swarm.networks import Actor
from coterie.types import ObservationLayout, WorldSpec

SPEC = WorldSpec(8, 40, "continuous", 4, ObservationLayout(19, 2, 6, 9))
ROWS = {"micro": 8192, "small": 8192, "paper": 1024}
TARGETS = {"attention small, forward": 150_000, "attention small, learn": 50_000}


def observe(rows: int) -> torch.Tensor:
    """A quarter of the rows see no neighbours."""
    observation = torch.randn(rows, 40, generator=torch.Generator().manual_seed(0))
    observation[: rows // 4, 19:31] = 0
    return observation


def compiled(actor: Actor, folder: Path) -> Any:
    """The exported function, compiled as a drone's firmware would be but for this machine."""
    to_c(actor, folder / "policy.c")
    flags = "-std=c99 -Wall -Werror -O2 -shared -fPIC".split()
    subprocess.run(["gcc", *flags, "policy.c", "-o", "policy.so", "-lm"], cwd=folder, check=True)  # noqa: S607
    return ctypes.CDLL(str(folder / "policy.so")).coterie_policy


def run_c(function: Any, observation: torch.Tensor) -> np.ndarray[Any, Any]:
    rows, said = observation.numpy(), np.zeros((len(observation), 4), np.float32)
    for row, action in zip(rows, said, strict=True):
        function(row.ctypes.data_as(ctypes.c_void_p), action.ctypes.data_as(ctypes.c_void_p))
    return said


def check(actor: Actor, function: Any) -> None:
    """Raises AssertionError unless the policy is what it is said to be."""
    observation = observe(64)
    moved, others = observation.clone(), observe(64).flip(0)
    moved[:, 19:31] = observation[:, [*range(25, 31), *range(19, 25)]]
    others[5] = observation[5]
    with torch.no_grad():
        action = actor(observation)
        assert torch.allclose(actor(moved), action, atol=1e-6)
        assert torch.equal(actor(others)[5], action[5])
    assert np.allclose(run_c(function, observation), action, rtol=0, atol=1e-5)


def rate(work: Callable[[], object], rows: int, seconds: float) -> int:
    """Rows per second of CPU time, the best of ten."""
    best = 0.0
    for _ in range(10):
        start, count = time.process_time(), 0
        while time.process_time() - start < seconds / 10:
            work()
            count += rows
        best = max(best, count / (time.process_time() - start))
    return round(best)


def measure_one(kind: Kind, size: Any, seconds: float) -> dict[str, int]:
    actor, rows = Actor(Architecture.preset(kind, size), SPEC), ROWS[size]
    observation = observe(rows)

    def act() -> None:
        with torch.no_grad():
            actor(observation)

    def learn() -> None:
        actor.zero_grad()
        actor(observation).sum().backward()

    found = {"parameters": sum(p.numel() for p in actor.parameters())}
    found |= {"forward": rate(act, rows, seconds), "learn": rate(learn, rows, seconds)}
    if size == "paper":
        return found
    with tempfile.TemporaryDirectory() as folder:
        function = compiled(actor, Path(folder))
        check(actor, function)
        row, action = observation[-1].numpy(), np.zeros(4, np.float32)
        where = row.ctypes.data_as(ctypes.c_void_p), action.ctypes.data_as(ctypes.c_void_p)
        return found | {"C": rate(lambda: [function(*where) for _ in range(1000)], 1000, seconds)}


def measure_parts(seconds: float) -> dict[str, float]:
    """Nanoseconds for each of 8192 by 64 numbers."""
    x, weight = torch.randn(8192, 64), torch.randn(64, 64)
    parts: dict[str, Callable[[], object]] = {
        "torch.tanh": lambda: torch.tanh(x),
        "our tanh": lambda: activate(x, "tanh"),
        "a product with 64 by 64": lambda: x @ weight,
    }
    return {name: round(1e9 / rate(work, x.numel(), seconds), 2) for name, work in parts.items()}


def measure(seconds: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    result: dict[str, Any] = {"targets": TARGETS, "ns per number": measure_parts(seconds)}
    for size in ROWS:
        for kind in get_args(Kind):
            result[f"{kind} {size}"] = found = measure_one(kind, size, seconds)
            print(f"{kind} {size}: {found}", file=sys.stderr, flush=True)
    small = result["attention small"]
    result["reached"] = {name: small[name.split(", ")[1]] >= goal for name, goal in TARGETS.items()}
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    save("swarm_policy", measure(parser.parse_args().seconds))
