"""SVAMP: 1,000 word problems of one step, varied against shallow reading (Patel et al., arXiv 2103.07191; MIT)."""

from __future__ import annotations

from pathlib import Path

from coterie.envs.benchmarks.base import Item, NumberBenchmark
from coterie.envs.benchmarks.config import SvampConfig
from coterie.envs.benchmarks.gsm8k import EXAMPLE
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, items, load

_REVISION = "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef"


class Svamp(NumberBenchmark):
    """The rows of a file (as its authors publish it, or with `input` and `target`), or a split of the hub's copy."""

    def __init__(self, config: SvampConfig, seed: int, base: Path) -> None:
        rows = load(config, base, "svamp.jsonl", Hub("ChilleD/SVAMP", _REVISION, config.split))
        super().__init__("svamp", items(rows, _item, config, "svamp"))


def _item(row: Row) -> Item:
    if "input" in row.fields:
        return Item(row.text("input").strip(), row.number("target"), "number", (), EXAMPLE)
    body = row.text("Body").strip()
    story = body if body[-1] in ".,!?" else f"{body}."
    return Item(f"{story} {row.text('Question').strip()}", row.number("Answer"), "number", (), EXAMPLE)
