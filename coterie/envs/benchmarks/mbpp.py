"""MBPP, the sanitized rows: short Python functions from a sentence (Austin et al., arXiv 2108.07732; CC BY 4.0)."""

from __future__ import annotations

import ast
from pathlib import Path

from coterie.envs.benchmarks.code import EXAMPLE, CodeBenchmark
from coterie.envs.benchmarks.config import MbppConfig
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, items, load
from coterie.envs.benchmarks.trials import CodeItem

_REVISION = "4bb6404fdc6cacfda99d4ac4205087b89d32030c"
# The numbers of the tasks in each split, by the paper.
_SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}
_QUESTION = "{prompt}\nReply with Python in one block of code. It has to pass {these}:\n\n```python\n{shown}\n```"


class Mbpp(CodeBenchmark):
    """The rows of a split: of `sanitized-mbpp.json`, or of the hub."""

    def __init__(self, config: MbppConfig, seed: int, base: Path) -> None:
        super().__init__("mbpp", _read(config, base), config)

    @classmethod
    def check(cls, config: MbppConfig, seed: int, base: Path) -> None:
        """Read the rows; run nothing."""
        _read(config, base)


def _read(config: MbppConfig, base: Path) -> list[CodeItem]:
    hub = Hub("google-research-datasets/mbpp", _REVISION, config.split, "sanitized")
    rows = load(config, base, "sanitized-mbpp.json", hub)
    first, last = _SPLITS[config.split]
    rows = [row for row in rows if first <= int(row.number("task_id")) <= last]
    return items(rows, lambda row: _item(row, config.tests_shown), config.model_copy(update={"limit": None}), "mbpp")


def _item(row: Row, shown: int) -> CodeItem:
    tests, code = row.texts("test_list"), row.text("code")
    imports = row.texts("test_imports") if row.fields.get("test_imports") else ()
    try:
        defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
        used = {node.id for node in ast.walk(ast.parse("\n".join(tests))) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError) as cause:
        raise row.refuse(f"`code` or `test_list` is no Python: {cause}") from cause
    if not defined & used:
        raise row.refuse("`test_list` uses no function of `code`")
    these = "this test" if len(tests) == 1 else "these tests" if shown >= len(tests) else "tests such as"
    question = _QUESTION.format(prompt=row.text("prompt").strip(), these=these, shown="\n".join(tests[:shown]))
    return CodeItem(
        question, code, "code", example=EXAMPLE, id=row.number("task_id"), names=tuple(sorted(defined & used)),
        prelude="\n".join(imports), tests="\n".join(tests),
    )  # fmt: skip
