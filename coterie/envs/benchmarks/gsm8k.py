"""GSM8K: 8.5k grade-school word problems with integer answers (Cobbe et al., arXiv 2110.14168; MIT licence)."""

from __future__ import annotations

from pathlib import Path

from coterie.envs import answers
from coterie.envs.benchmarks.base import Item, NumberBenchmark
from coterie.envs.benchmarks.config import Gsm8kConfig
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, items, load

_REVISION = "740312add88f781978c0658806c59bc2815b9866"
EXAMPLE = """\
Q: A box holds 6 pens. Mia buys 3 boxes and gives 4 pens away. How many pens does she have left?
A: 3 boxes hold 3 * 6 = 18 pens. 18 - 4 = 14.
Answer: 14"""


class Gsm8k(NumberBenchmark):
    """The rows of a split; the gold answer is the number after `####`."""

    def __init__(self, config: Gsm8kConfig, seed: int, base: Path) -> None:
        rows = load(config, base, f"{config.split}.jsonl", Hub("openai/gsm8k", _REVISION, config.split, "main"))
        super().__init__(f"gsm8k_{config.split}", items(rows, _item, config, "gsm8k", config.split))


def _item(row: Row) -> Item:
    _, mark, gold = row.text("answer").rpartition("####")
    if not mark or answers.canonical(gold, "number") is None:
        raise row.refuse("`answer` does not end with #### and a number")
    return Item(row.text("question"), gold.strip(), "number", (), EXAMPLE)
