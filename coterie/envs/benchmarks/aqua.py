"""AQuA-RAT: algebra word problems with five options (Ling et al., arXiv 1705.04146; Apache-2.0)."""

from __future__ import annotations

from pathlib import Path

from coterie.envs.benchmarks.base import Item, ItemBenchmark, multiple_choice
from coterie.envs.benchmarks.config import AquaConfig
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, items, load

_REVISION = "33301c6a050c96af81f63cad5562cb5363e88971"
_LETTERS = "ABCDE"
_EXAMPLE = """\
Q: A pump fills 12 litres in 3 minutes. How many litres does it fill in 7 minutes?
(A) 21
(B) 24
(C) 28
(D) 36
(E) 84
A: It fills 12 / 3 = 4 litres a minute, so 7 * 4 = 28 litres in 7 minutes.
Answer: (C)"""


class Aqua(ItemBenchmark):
    """The rows of a split; the gold answer is the letter in `correct`, and the rationale is not read."""

    def __init__(self, config: AquaConfig, seed: int, base: Path) -> None:
        split = "validation" if config.split == "dev" else config.split
        rows = load(config, base, f"{config.split}.json", Hub("deepmind/aqua_rat", _REVISION, split, "raw"))
        super().__init__(f"aqua_{config.split}", items(rows, _item, config, "aqua", config.split))


def _item(row: Row) -> Item:
    options = row.texts("options", len(_LETTERS))
    for letter, option in zip(_LETTERS, options, strict=True):
        if not option.startswith(f"{letter})"):
            raise row.refuse(f"the options do not begin with {', '.join(f'{one})' for one in _LETTERS)}")
    gold = _LETTERS.index(row.one_of("correct", tuple(_LETTERS)))
    return multiple_choice(row.text("question").strip(), [option[2:].strip() for option in options], gold, _EXAMPLE)
