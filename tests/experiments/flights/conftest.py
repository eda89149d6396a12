"""A pilot that flies well enough, episodes it flew, and a browser to look at pages with."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coterie.envs.swarm import Obstacles, SwarmConfig, VecSwarm
from coterie.experiments.flights.recording import Recording, record

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_LIFT = 9.81 * 1.9 / 4
# Signs of the torques of a motor: front right, back right, back left, front left.
_ROLL, _PITCH = np.array([-1, -1, 1, 1]), np.array([-1, 1, 1, -1])


def fly(observation: NDArray[Any]) -> NDArray[np.float32]:
    """A cascaded controller: position -> velocity -> acceleration -> attitude -> motors. It sees no others."""
    seen = np.asarray(observation, np.float64)
    error, velocity, omega = seen[..., :3], seen[..., 3:6], seen[..., 15:18]
    rotation = seen[..., 6:15].reshape(*seen.shape[:-1], 3, 3)
    far = np.linalg.norm(error, axis=-1, keepdims=True)
    wanted = -error * np.minimum(1.2, 2.5 / np.maximum(far, 1e-6))
    push = np.clip(3 * (wanted - velocity), -5, 5) + np.array([0, 0, 9.81])
    up = push / np.linalg.norm(push, axis=-1, keepdims=True)
    tilt = np.einsum("...ji,...j->...i", rotation, np.cross(rotation[..., :, 2], up))
    turn = 90 * tilt - 16 * omega
    share = (push * rotation[..., :, 2]).sum(-1)[..., None] / (4 * _LIFT)
    share = share + turn[..., :1] * _ROLL / 1241 + turn[..., 1:2] * _PITCH / 1182
    return np.asarray(2 * np.clip(share, 0, 1) - 1, np.float32)


def near(config: SwarmConfig) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Weights as attention would give them: more for who is near, and the last one for obstacles."""

    def attend(observation: NDArray[Any]) -> NDArray[Any]:
        k, start = config.num_neighbours, config.self_size
        others = observation[..., start : start + 6 * k].reshape(*observation.shape[:2], k, 6)[..., :3]
        apart = np.linalg.norm(others, axis=-1)
        if config.obstacles:
            apart = np.concatenate([apart, observation[..., -9:].min(-1, keepdims=True)], -1)
        weights = np.exp(-apart)
        return weights / weights.sum(-1, keepdims=True)

    return attend


@pytest.fixture(scope="session")
def flown() -> Callable[..., Recording]:
    """Flies an episode of a world with these fields."""

    def make(seed: int = 5, seconds: float | None = None, **fields: Any) -> Recording:
        config = SwarmConfig(**fields)
        return record(VecSwarm(config, 1, seed=seed), fly, seconds=seconds, attention=near(config))

    return make


@pytest.fixture(scope="session")
def crowded(flown: Callable[..., Recording]) -> Recording:
    """Eight drones among obstacles that they do not see: there are contacts."""
    return flown(num_drones=8, obstacles=Obstacles(density=0.4), scenario="o_random", seconds=6)


class Tab:
    """A page in a headless Chromium, driven by its own protocol."""

    def __init__(self, address: str) -> None:
        import websocket

        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self._ids = itertools.count(1)
        self.said: list[str] = []
        """What the page wrote on the console, and errors."""
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for what it returns."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            found = json.loads(self._socket.recv())
            self._listen(found)
            if found.get("id") == number:
                assert "error" not in found, found
                return dict(found["result"])

    def _listen(self, found: dict[str, Any]) -> None:
        if found.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.said.append(json.dumps(found["params"]))

    def open(self, page: Path, at: str = "", *, dark: bool = False, size: tuple[int, int] = (1280, 800)) -> None:
        """Load a file, and wait for its first picture."""
        wide, high = size
        self.ask("Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        # Another address first: a page that differs in its hash alone is not loaded again.
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=page.as_uri() + at)
        ready = "document.readyState === 'complete' && location.protocol === 'file:'"
        deadline = time.monotonic() + 60
        while not self.run(ready) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.draw()

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def draw(self) -> None:
        """Wait until the page has drawn twice."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def press(self, key: str) -> None:
        """One key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, **text)
        self.draw()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """With the left button."""
        places = [("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)]
        for kind, (x, y) in places:
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        self.draw()

    def picture(self) -> bytes:
        """What is seen, as a PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        """Let the page go."""
        self._socket.close()


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A headless Chromium with one tab, and its profile in `folder`."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
             "--remote-debugging-port=0", f"--user-data-dir={folder}"]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([str(BROWSER), *flags, "about:blank"], **quiet)
    try:
        port, deadline = folder / "DevToolsActivePort", time.monotonic() + 60
        while not (port.is_file() and port.read_text().count("\n")) and time.monotonic() < deadline:
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list", timeout=30) as found:
            address = next(one["webSocketDebuggerUrl"] for one in json.load(found) if one["type"] == "page")
        tab = Tab(address)
        yield tab
        tab.close()
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser's tab; skips where there is no browser."""
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    pytest.importorskip("websocket", reason="websocket-client is not installed")
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found
