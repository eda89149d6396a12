r"""MATH-500: 500 test problems of MATH (Hendrycks et al., arXiv 2103.03874), chosen by Lightman et al., 2305.20050."""

from __future__ import annotations

from pathlib import Path

from coterie.envs import latex
from coterie.envs.benchmarks.base import Item, ItemBenchmark
from coterie.envs.benchmarks.config import Math500Config
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, items, load

_REVISION = "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"
_EXAMPLE = r"""Q: What is the sum of the solutions of $2x^2 - 3x - 7 = 0$?
A: The solutions of $ax^2 + bx + c = 0$ add up to $-b/a$, which is $\frac{3}{2}$ here.
Answer: $\boxed{\frac{3}{2}}$"""


class Math500(ItemBenchmark):
    """Right is what equals the gold formula after normalisation, or for math-verify."""

    def __init__(self, config: Math500Config, seed: int, base: Path) -> None:
        rows = load(config, base, "test.jsonl", Hub("HuggingFaceH4/MATH-500", _REVISION, "test"))
        super().__init__("math500", items(rows, _item, config, "math500"))

    def judge(self, item: Item, answer: str) -> bool:
        """The formulas themselves, then math-verify in a process of its own."""
        return super().judge(item, answer) or latex.agree(item.gold, answer)


def _item(row: Row) -> Item:
    return Item(row.text("problem"), row.text("answer").strip(), "math", (), _EXAMPLE)
