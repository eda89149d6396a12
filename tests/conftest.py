"""What expensive tests share: one model on disk, one vLLM engine and one Ray cluster for the whole run.

Processes that share the tests of a run (pytest-xdist) take whole files: an engine or a cluster is used in one file.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

# Before any test imports a library that reads it: no test may reach for a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nor may threads of torch spin for long while other processes want the cores (see agents/engines/process.py).
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
# Processes that share the tests of a run share the cores: one thread each, their children's too.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Looking for garbage among all that is imported takes a tenth of the time: it is done more rarely, and not among that.
gc.set_threshold(50_000, 20, 20)

# A crowded machine takes its time; what must be fast is asserted where it must be.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Processes take one file after the other: long ones first, so that none works alone at the end. The first two compile a
# swarm's and neighbour attention's kernels, which others find on disk.
_FIRST = (
    "envs/swarm/test_perception.py", "attention/test_neighbor.py", "agents/engines/test_vllm.py",
    "experiments/training/test_society.py", "orchestration/test_ray.py",
    "experiments/training/test_world.py", "attention/test_attend.py", "agents/tiny/test_model.py",
    "orchestration/protocols/test_conformance.py", "orchestration/test_trainer.py",
    "attention/test_neighbor_triton.py", "attention/test_stats_triton.py", "attention/test_tile_triton.py",
    "experiments/training/test_society_learns.py", "experiments/training/test_token_credit.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order above, then the others; tests of a file as they stand."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """What was imported stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def smollm() -> str:
    """The folder of the built-in model."""
    from coterie.agents.engines import models

    return models.resolve("smollm2-135m")


@pytest.fixture(scope="session")
def vllm_engine(smollm: str) -> Iterator[object]:
    """The one vLLM engine of a test run: smollm2-135m in float32, seed 3, exact. Set `exact` back if you change it."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    # Whoever uses neighbour attention or a swarm has it: vLLM has to start beside it.
    importlib.import_module("numba")
    from coterie.agents.engines.config import VllmConfig
    from coterie.agents.engines.vllm import VllmEngine

    engine = VllmEngine(VllmConfig(memory=0.5, dtype="float32"), "smollm2-135m", 3, exact=True)
    asyncio.run(engine.start())
    yield engine
    asyncio.run(engine.close())


# Run outside of pytest's process, which is to join as whoever the test is.
_WAIT = """
import sys, time
from ray._raylet import GcsClient
client = GcsClient(address=sys.argv[1])
while sum(node.state == 0 for node in client.get_all_node_info().values()) != int(sys.argv[2]):
    time.sleep(0.1)
"""


class Nodes:
    """A Ray cluster whose nodes are processes on this machine, started as a user would."""

    SECRET = "sk-known-to-the-nodes-alone"

    def __init__(self, token: str) -> None:
        # Unix sockets below it have at most 107 bytes of name, which pytest's own folders leave too little of.
        self.folder = Path("/tmp") / f"coterie-nodes-{secrets.token_hex(3)}"
        self.folder.mkdir(0o700)
        self.token = self.folder / "token"
        self.token.write_text(token)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.processes: list[subprocess.Popen[bytes]] = []
        settings = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token" if token else "disabled",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            # A dead node is missed after five checks, and a stopped process is killed after this time, in ms.
            "RAY_health_check_initial_delay_ms": "300",
            "RAY_health_check_period_ms": "300",
            "RAY_kill_worker_timeout_milliseconds": "500",
            # Processes are started when they are wanted, not as many as a node has CPUs whenever a driver comes.
            "RAY_prestart_worker_first_driver": "0",
            # Ray's default is 15, with which actors get no CPU beside other tests.
            "RAY_worker_niceness": "0",
            "COTERIE_TEST_SECRET": self.SECRET,
        }
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | settings

    def start(self, count: int) -> None:
        """Start a head and further nodes, so many in all."""
        host, port = self.address.split(":")
        self._start("--head", f"--port={port}", f"--node-ip-address={host}", "--include-dashboard=false",
                    f"--temp-dir={self.folder}/ray")  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    break
            time.sleep(0.1)
        for _ in range(1, count):
            self.join()

    def join(self) -> None:
        """Start one more node."""
        self._start(f"--address={self.address}", f"--node-ip-address=127.0.0.{len(self.processes) + 1}")

    def wait(self, count: int) -> None:
        """Wait until so many nodes are alive."""
        subprocess.run([sys.executable, "-c", _WAIT, self.address, str(count)], env=self.env, check=True, timeout=120)

    def _start(self, *arguments: str) -> None:
        ray = Path(sys.executable).parent / "ray"
        command = [ray, "start", "--block", "--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats"]
        self.processes.append(
            subprocess.Popen(
                [*command, *arguments], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )  # fmt: skip

    def signal(self, title: str, number: signal.Signals) -> int:
        """Send a signal to a process of the cluster whose title contains this, as soon as there is one; its id."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            children = [child for node in self.processes if node.poll() is None for child in _children(node)]
            if found := [child for child in children if title in _title(child)]:
                found[0].send_signal(number)
                return found[0].pid
            time.sleep(0.1)
        raise TimeoutError(f"no process of the cluster is called {title}")

    def end_last(self) -> list[str]:
        """End the last node with everything on it, as a power cut would; returns the titles of its processes."""
        titles = [_title(child) for child in _children(self.processes[-1])]
        self._end(self.processes[-1])
        return titles

    def _end(self, node: subprocess.Popen[bytes]) -> None:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()

    def close(self) -> None:
        for node in self.processes:
            self._end(node)
        shutil.rmtree(self.folder, ignore_errors=True)


def _children(node: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(node.pid).children(recursive=True)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@pytest.fixture(scope="session")
def make_nodes() -> Iterator[Callable[[str], Nodes]]:
    """Makes a cluster of no node yet, with a token, or (with an empty one) open to anybody; ends it after the run."""
    made: list[Nodes] = []

    def make(token: str) -> Nodes:
        made.append(Nodes(token))
        return made[-1]

    yield make
    for nodes in made:
        nodes.close()


@pytest.fixture(scope="session")
def nodes(make_nodes: Callable[[str], Nodes]) -> Nodes:
    """The one Ray cluster of a test run: two nodes, reached with the token in `nodes.token`.

    A test that ends a node lets another join.
    """
    pytest.importorskip("ray", reason="Ray is not installed")
    cluster = make_nodes(secrets.token_hex(32))
    cluster.start(2)
    cluster.wait(2)
    return cluster
