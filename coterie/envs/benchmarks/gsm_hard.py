"""GSM-Hard: the test questions of GSM8K with large numbers (Gao et al., arXiv 2211.10435; MIT licence)."""

from __future__ import annotations

from pathlib import Path

from coterie.envs.benchmarks.base import Item, NumberBenchmark
from coterie.envs.benchmarks.config import GsmHardConfig
from coterie.envs.benchmarks.gsm8k import EXAMPLE
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, items, load

_REVISION = "960448f73503112d4226baeb8eb41d3fb5ae2506"


class GsmHard(NumberBenchmark):
    """Its gold answers come out of programs, with errors of floating point: the paper's tolerance is 0.001."""

    tolerance = 1e-3

    def __init__(self, config: GsmHardConfig, seed: int, base: Path) -> None:
        # The hub calls its only split `train`; nothing in it is meant for training.
        rows = load(config, base, "gsmhardv2.jsonl", Hub("reasoning-machines/gsm-hard", _REVISION, "train"))
        super().__init__("gsm_hard", items(rows, _item, config, "gsm_hard"))


def _item(row: Row) -> Item:
    return Item(row.text("input").strip(), row.number("target"), "number", (), EXAMPLE)
