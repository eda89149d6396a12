"""Episodes and engines in Ray actors: the same facts, whatever dies."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from coterie.errors import EnvironmentMissing
from coterie.orchestration.config import RayConfig
from coterie.orchestration.protocols.config import MachineSomConfig
from coterie.orchestration.supervisor import Quiet
from coterie.testing.societies import play, staff

pytest.importorskip("ray")
DEBATE = MachineSomConfig(strategy=("debate", "reflect", "debate"))
RAY = str(Path(sys.executable).parent / "ray")


def executor(engine=None, **config):
    from coterie.orchestration.ray.executor import RayExecutor

    return RayExecutor(RayConfig(**config), staff(engine))


@pytest.fixture(scope="module")
def digest() -> str:
    with play(DEBATE) as journal:
        return journal.digest()


class Nodes:
    """A cluster of two nodes on this machine, started as a user would."""

    def __init__(self, folder: Path, token: Path | None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.folder = folder
        self.env = dict(os.environ, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="token" if token else "disabled")
        if token:
            self.env["RAY_AUTH_TOKEN_PATH"] = str(token)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [RAY, "start", "--block", "--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats"]
        process = subprocess.Popen(
            [*command, *arguments], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def start_head(self) -> None:
        self.start("--head", f"--port={self.port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false",
                   f"--temp-dir={self.folder}")  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        raise TimeoutError("the head node did not start")

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End a node with everything on it, as a power cut would."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.end(process)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator[Nodes]:
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32))
    # Unix sockets below it have at most 107 bytes of name, which pytest's own folders leave too little of.
    folder = Path("/tmp") / f"coterie-nodes-{secrets.token_hex(3)}"  # noqa: S108
    cluster = Nodes(folder, token)
    cluster.start_head()
    cluster.start(f"--address={cluster.address}", "--node-ip-address=127.0.0.2")
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    yield cluster
    cluster.close()
    del os.environ["RAY_AUTH_TOKEN_PATH"]
    subprocess.run(["rm", "-rf", str(folder)], check=True)


class AtTurn(Quiet):
    """Does something once, in the driver, when a number of turns is committed."""

    def __init__(self, number: int, action: Callable[[], None]) -> None:
        self.left, self.action = number, action

    def on_turn(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            self.action()


def kill(name: str) -> None:
    """SIGKILL one process of that title."""
    processes = psutil.process_iter(["cmdline"])
    next(p for p in processes if name in " ".join(p.info["cmdline"] or [])).kill()


def test_a_private_cluster_gives_the_same_facts_and_leaves_nothing_behind(digest):
    host = executor(workers=2, replicas=2)
    with play(DEBATE, executor=host) as journal:
        assert journal.digest() == digest
        assert not list(journal.notes("failure"))
    assert not list(Path("/tmp").glob("coterie-ray-*"))  # noqa: S108
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_a_cluster_of_two_nodes_gives_the_same_facts(nodes, digest):
    with play(DEBATE, executor=executor(address=nodes.address)) as journal:
        assert journal.digest() == digest


@pytest.mark.parametrize("victim", ["ray::WorkerActor", "ray::EngineActor"])
def test_a_killed_actor_changes_no_fact(nodes, digest, victim):
    engine = {"delay": 0.2, "max_batch": 4}
    host = executor(engine, address=nodes.address)
    with play(DEBATE, executor=host, observer=AtTurn(5, lambda: kill(victim))) as journal:
        assert journal.digest() == digest
        codes = {note.payload["code"] for note in journal.notes("failure")}
    # An engine that dies between two calls is back before it is missed.
    assert codes == {"E_WORKER_LOST"} if "Worker" in victim else codes <= {"E_ENGINE"}


@pytest.mark.slow
def test_a_node_that_ends_changes_no_fact(nodes, digest):
    engine = {"delay": 0.2, "max_batch": 4}
    host = executor(engine, address=nodes.address, workers=2, replicas=2)
    end = AtTurn(5, lambda: nodes.end(nodes.processes[-1]))
    with play(DEBATE, executor=host, observer=end) as journal:
        assert journal.digest() == digest
        assert list(journal.notes("failure"))


def test_a_cluster_without_a_token_is_refused(tmp_path):
    folder = Path("/tmp") / f"coterie-open-{secrets.token_hex(3)}"  # noqa: S108
    cluster = Nodes(folder, None)
    try:
        cluster.start_head()
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        with (
            pytest.raises(EnvironmentMissing, match="lets in anybody"),
            play(DEBATE, executor=executor(address=cluster.address)),
        ):
            pass
    finally:
        os.environ.pop("RAY_AUTH_TOKEN", None)
        cluster.close()
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_joining_without_a_token_says_which_variable_is_missing(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    with (
        pytest.raises(EnvironmentMissing, match="RAY_AUTH_TOKEN_PATH"),
        play(DEBATE, executor=executor(address="127.0.0.1:1")),
    ):
        pass
