"""HumanEval: 164 Python functions to complete, judged by tests (Chen et al., arXiv 2107.03374; MIT licence)."""

from __future__ import annotations

from pathlib import Path

from coterie.envs.benchmarks.code import EXAMPLE, CodeBenchmark
from coterie.envs.benchmarks.config import HumanEvalConfig
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, items, load
from coterie.envs.benchmarks.trials import CodeItem

_HUB = Hub("openai/openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544", "test")
_QUESTION = "Complete this Python function. Reply with the whole function in one block of code.\n\n```python\n{}\n```"


class HumanEval(CodeBenchmark):
    """The rows of `HumanEval.jsonl.gz`, or of the hub. What the prompt defines besides is there for the answer."""

    def __init__(self, config: HumanEvalConfig, seed: int, base: Path) -> None:
        super().__init__("humaneval", _read(config, base), config)

    @classmethod
    def check(cls, config: HumanEvalConfig, seed: int, base: Path) -> None:
        """Read the rows; run nothing."""
        _read(config, base)


def _read(config: HumanEvalConfig, base: Path) -> list[CodeItem]:
    rows = load(config, base, "HumanEval.jsonl.gz", _HUB)
    return items(rows, _item, config.model_copy(update={"limit": None}), "humaneval")


def _item(row: Row) -> CodeItem:
    prompt, name = row.text("prompt"), row.text("entry_point")
    if not name.isidentifier():
        raise row.refuse("`entry_point` is no name of a function")
    return CodeItem(
        _QUESTION.format(prompt.strip("\n")), prompt + row.text("canonical_solution"), "code", example=EXAMPLE,
        id=row.text("task_id"), names=(name,), prelude=prompt, tests=f"{row.text('test')}\ncheck({name})\n",
    )  # fmt: skip
