"""What benchmarks share: where results go, what they say about the machine, and a stop-watch."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.experiments.provenance import hardware, versions

RESULTS = Path(__file__).parent / "results"


def save(name: str, result: dict[str, Any]) -> None:
    """Write a result beside what it was measured on, and print it; what `save_gpu` stored stays."""
    stored = _stored(name)
    _write(name, {**_told(result), **({"gpu": stored["gpu"]} if "gpu" in stored else {})})
    print(json.dumps(result, indent=2))


def save_gpu(name: str, result: dict[str, Any]) -> None:
    """As `save`, with what was measured on a GPU, as `gpu` of the same file; what `save` stored stays."""
    import torch

    _write(name, {**_stored(name), "gpu": {"device": torch.cuda.get_device_name(), **_told(result)}})
    print(json.dumps(result, indent=2))


def _told(result: dict[str, Any]) -> dict[str, Any]:
    return {"date": datetime.now(UTC).date().isoformat(), **result, "hardware": hardware(), "versions": versions()}


def _stored(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _write(name: str, whole: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum, rounded."""
    return {"min": round(min(values), 3), "median": round(statistics.median(values), 3), "max": round(max(values), 3)}


def timed(work: Callable[[], object], device: str = "cpu") -> float:
    """Milliseconds that a call takes, on a GPU until it has done all it was given."""
    _finish(device)
    start = time.perf_counter()
    work()
    _finish(device)
    return (time.perf_counter() - start) * 1e3


def _finish(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
