"""Two agent workers and two engines on Ray against one of each, with engines that take 200 ms per call.

Correct first: all runs have the same digest. Time is from the first call to the last commit, without the cluster's
start.

    python benchmarks/ray_scaling.py [--tasks 16]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import save

from coterie.orchestration.config import RayConfig
from coterie.orchestration.protocols.config import MachineSomConfig
from coterie.orchestration.ray.executor import RayExecutor
from coterie.testing.societies import play, staff

DELAY, BATCH, TARGET = 0.2, 4, 0.6


def measure(count: int, num_tasks: int, exact: bool) -> tuple[float, str]:
    """Seconds and digest of a run with `count` workers and engines."""
    engine = {"delay": DELAY, "max_batch": BATCH}
    host = RayExecutor(RayConfig(workers=count, replicas=count), staff(engine, exact=exact))
    with play(MachineSomConfig(), executor=host, num_tasks=num_tasks, exact=exact) as journal:
        times = [note.time for note in journal.notes("sample")]
        return max(times) - min(times) + DELAY, journal.digest()


def compare(num_tasks: int, exact: bool) -> dict[str, Any]:
    one, digest = measure(1, num_tasks, exact)
    two, other = measure(2, num_tasks, exact)
    assert digest == other
    return {"one of each, s": round(one, 2), "two of each, s": round(two, 2), "ratio": round(two / one, 3)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=16)
    options = parser.parse_args()
    modes = {name: compare(options.tasks, exact) for name, exact in (("statistical", False), ("exact", True))}
    reached = all(mode["ratio"] <= TARGET for mode in modes.values())
    save("ray_scaling", {"rival": "one worker and one engine", "target": TARGET, **modes, "reached": reached})
