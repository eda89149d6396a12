"""Every mechanism of the literature against dense SDPA at one length: forward, and with a backward pass.

Each is compared with its formula first; then it and SDPA take turns, on tensors of 6 heads of 64 in float32. Ratios
above 1 are gains. The page of mechanisms shows them: `python -m coterie.attention.catalogue docs` afterwards.

    python benchmarks/attention_mechanisms.py [NAME ...] [--tokens 8192] [--rounds 3] [--threads 2]

With names, only those are measured, and replace what was measured of them before.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _results import save

from coterie import registry
from coterie.attention.bench_mechanisms import Race
from coterie.attention.catalogue import load_measured

DOCS = Path(__file__).parents[1] / "docs"


def measure(name: str, tokens: int, rounds: int, threads: int) -> dict[str, Any]:
    mechanism = registry.impl("attention", name)()
    race = Race(mechanism, "cpu")
    assert race.is_correct, f"{name} is off by {race.error}"
    timing = race.time(tokens, rounds)
    print(f"{name}: {timing.gain:.2f}, with backward {timing.training_gain:.2f}", file=sys.stderr, flush=True)
    gains = {"forward": timing.gain, "with_backward": timing.training_gain}
    how = {"tokens": tokens, "threads": threads, "pairs": round(timing.share, 4)}
    return how | {what: round(gain, 2) for what, gain in gains.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    known = registry.names("attention")
    before = load_measured(DOCS).get("mechanisms", {}) if given.names else {}
    found = {name: measure(name, given.tokens, given.rounds, given.threads) for name in given.names or known}
    told = before | found
    save("attention_mechanisms", {"mechanisms": {name: told[name] for name in known if name in told}})


if __name__ == "__main__":
    main()
