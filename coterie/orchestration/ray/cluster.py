"""Reaching a Ray cluster: a private one on this machine, or one that asks for a token."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from coterie.errors import EnvironmentMissing
from coterie.orchestration.ray.folders import ClusterFolder, clean_stale

_OBJECT_STORE_BYTES = 100 * 2**20
# Asked without a token, in a process of its own because Ray reads its authentication mode once.
_PROBE = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=10)
"""


class Cluster:
    """A connection to Ray. `connect` once, in a thread that lives until then, `close` once."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._folder: ClusterFolder | None = None
        self._environment: dict[str, str | None] = {}

    def connect(self) -> None:
        """Start a private cluster (`local`) or join the one at `address`.

        Raises:
            EnvironmentMissing: Ray is missing, the cluster cannot be reached, or it lets in anybody.
            KeyboardInterrupt: SIGTERM came meanwhile.
        """
        settings = self._private() if self.address == "local" else self._shared()
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
            from ray import _raylet
        except ImportError as missing:
            raise EnvironmentMissing("Ray is not installed", remedy="pip install 'ray>=2.54'") from missing
        # Ray reads mode and token once, when it is imported; this makes it read them again.
        _raylet.Config.initialize("")  # type: ignore[attr-defined]
        _raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]
        logging.getLogger("ray").setLevel(logging.ERROR)
        before = signal.getsignal(signal.SIGTERM)
        try:
            # Ray's own loggers and its workers' output would write over the display; its session folder keeps them.
            ray.init(
                log_to_driver=False, logging_level="ERROR", configure_logging=False, namespace=_namespace(), **settings
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as cause:
            self.close()
            raise EnvironmentMissing(
                f"no Ray cluster: {str(cause).strip().splitlines()[0]}",
                where=f"executor.address: {self.address}",
                remedy="check the address and the token (RAY_AUTH_TOKEN_PATH), or use `address: local`",
            ) from cause
        except SystemExit as stopped:
            # While it starts, Ray takes SIGTERM, with which runs are stopped in order, for itself.
            self.close()
            raise KeyboardInterrupt from stopped
        finally:
            # So it does later, in the main thread.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)

    def close(self) -> None:
        """Leave the cluster; a private one ends with it."""
        if (ray := sys.modules.get("ray")) is not None:
            ray.shutdown()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None
        for name, value in self._environment.items():
            _set(name, value)
        self._environment = {}

    def _private(self) -> dict[str, Any]:
        clean_stale()
        self._folder = ClusterFolder()
        token = self._folder.path / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
        settings = {"RAY_ADDRESS": None, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": None,
                    "RAY_AUTH_TOKEN_PATH": str(token),
                    # Else it starts a Python for each CPU at once, wanted or not.
                    "RAY_prestart_worker_first_driver": "0"}  # fmt: skip
        self._lend(settings)
        return {
            "include_dashboard": False,
            "_temp_dir": str(self._folder.path / "ray"),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "num_cpus": max(os.cpu_count() or 1, 1),
        }

    def _shared(self) -> dict[str, Any]:
        where = f"executor.address: {self.address}"
        has_token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
        if not has_token and not Path("~/.ray/auth_token").expanduser().is_file():
            raise EnvironmentMissing(
                "there is no token for the cluster", where=where,
                remedy="set RAY_AUTH_TOKEN_PATH to the file with the token that the cluster was started with",
            )  # fmt: skip
        address = _find(self.address, where)
        if _is_open(address):
            raise EnvironmentMissing(
                "the cluster lets in anybody: whoever reaches it can run code on it", where=where,
                remedy="start it with RAY_AUTH_MODE=token and a token, see docs/cluster.md",
            )  # fmt: skip
        self._lend({"RAY_AUTH_MODE": "token"})
        return {"address": address}

    def _lend(self, settings: dict[str, str | None]) -> None:
        """Set these variables of the environment until `close`."""
        for name, value in settings.items():
            self._environment[name] = os.environ.get(name)
            _set(name, value)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _namespace() -> str:
    return f"coterie-{secrets.token_hex(4)}"


def _find(address: str, where: str) -> str:
    if address != "auto":
        return address
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        found = None
    if not found:
        raise EnvironmentMissing(
            "no running Ray cluster was found on this machine", where=where,
            remedy="start one with `ray start`, give HOST:PORT, or use `address: local`",
        )  # fmt: skip
    return str(found)


def _is_open(address: str) -> bool:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    environment |= {"RAY_AUTH_MODE": "disabled", "HOME": tempfile.gettempdir()}
    done = subprocess.run(  # noqa: S603 - our own code, in our own interpreter
        [sys.executable, "-c", _PROBE, address], env=environment, capture_output=True, timeout=60, check=False
    )
    return done.returncode == 0
