"""What benchmarks share: where results go, and what they say about the machine."""

from __future__ import annotations

import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.experiments.provenance import hardware, versions

RESULTS = Path(__file__).parent / "results"


def save(name: str, result: dict[str, Any]) -> None:
    """Write a result beside what it was measured on, and print it."""
    RESULTS.mkdir(exist_ok=True)
    whole = {"date": datetime.now(UTC).date().isoformat(), **result, "hardware": hardware(), "versions": versions()}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum, rounded."""
    return {"min": round(min(values), 3), "median": round(statistics.median(values), 3), "max": round(max(values), 3)}
