"""A benchmark without dependencies: sums of two small numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from coterie import rng
from coterie.config.base import KindConfig
from coterie.envs.benchmarks.base import Item, ItemBenchmark


class SumsConfig(KindConfig):
    """Generated sums, for tests."""

    kind: Literal["sums"] = "sums"
    limit: int = Field(20, ge=1)
    largest: int = Field(9, ge=1)


class Sums(ItemBenchmark):
    """`limit` questions `What is a + b?`, drawn by the seed."""

    def __init__(self, config: SumsConfig, seed: int, base: Path) -> None:
        items = []
        for i in range(config.limit):
            a, b = rng.stream(seed, "sums", i).integers(0, config.largest + 1, size=2).tolist()
            items.append(Item(f"What is {a} + {b}?", str(a + b), example="What is 2 + 20?\nAnswer: 22"))
        super().__init__("sum", items)
