"""GSM8K: 8.5k grade-school word problems with integer answers (Cobbe et al., arXiv 2110.14168; MIT licence)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from coterie import rng
from coterie.envs import answers
from coterie.envs.benchmarks.base import Item, ItemBenchmark
from coterie.envs.benchmarks.config import Gsm8kConfig
from coterie.errors import ConfigError, EnvironmentMissing

_HUB = "openai/gsm8k"
_REVISION = "740312add88f781978c0658806c59bc2815b9866"
_MAX_VERIFIED = 200
_EXAMPLE = """\
Q: A box holds 6 pens. Mia buys 3 boxes and gives 4 pens away. How many pens does she have left?
A: 3 boxes hold 3 * 6 = 18 pens. 18 - 4 = 14.
Answer: 14"""


class Gsm8k(ItemBenchmark):
    """The split's rows in order, or shuffled; graded by equality of canonical numbers, else by math-verify."""

    def __init__(self, config: Gsm8kConfig, seed: int, base: Path) -> None:
        rows = _from_hub(config.split) if config.path is None else _from_folder(base / config.path, config.split)
        if config.shuffle is not None:
            rows = [rows[i] for i in rng.stream(config.shuffle, "gsm8k", config.split).permutation(len(rows))]
        super().__init__(f"gsm8k_{config.split}", rows[: config.limit])

    def judge(self, item: Item, answer: str) -> bool:
        """Equal as canonical numbers, or for math-verify."""
        return super().judge(item, answer) or _verify(item.gold, answer)


def _from_folder(folder: Path, split: str) -> list[Item]:
    file = folder / f"{split}.jsonl"
    if not file.is_file():
        raise ConfigError(
            f"there is no {split}.jsonl to read GSM8K from", where=f"benchmark.path: {folder.resolve()}",
            remedy="point `path` at a folder with test.jsonl and train.jsonl, or leave it out to load from the hub",
        )  # fmt: skip
    with file.open(encoding="utf-8") as lines:
        return _items((_row(line, file, number) for number, line in enumerate(lines, 1) if line.strip()), str(file))


def _row(line: str, file: Path, number: int) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as cause:
        raise ConfigError(f"not a line of JSON: {cause}", where=f"{file}:{number}") from cause
    return row if isinstance(row, dict) else {}


def _from_hub(split: str) -> list[Item]:
    try:
        from datasets import load_dataset

        rows = load_dataset(_HUB, "main", split=split, revision=_REVISION)
    except Exception as cause:  # the hub client raises errors of many libraries
        raise EnvironmentMissing(
            f"cannot load {_HUB} from the hub: {type(cause).__name__}: {cause}", where="benchmark",
            remedy="connect to the network, or set `path` to a folder with test.jsonl and train.jsonl, "
            "or use `kind: reasoning_gym`, which needs no network",
        ) from cause  # fmt: skip
    return _items(rows, _HUB)


def _items(rows: Iterable[Mapping[str, Any]], where: str) -> list[Item]:
    items = []
    for number, row in enumerate(rows, 1):
        question, solution = row.get("question"), row.get("answer")
        gold = solution.rpartition("####")[2].strip() if isinstance(solution, str) and "####" in solution else ""
        if not isinstance(question, str) or answers.canonical(gold, "number") is None:
            raise ConfigError(
                "a row without `question`, or without a number after #### in `answer`", where=f"{where}, row {number}"
            )
        items.append(Item(question, gold, "number", (), _EXAMPLE))
    return items


def _verify(gold: str, answer: str) -> bool:
    # math-verify's time limits use signals, which fail outside the main thread. Bounded input serves instead: one plain
    # number of at most 200 characters.
    if len(answer) > _MAX_VERIFIED or not answers.is_number(answer):
        return False
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns about the absent time limit
    sides = [math_verify.parse(side.replace(",", ""), parsing_timeout=None) for side in (gold, answer)]
    return bool(math_verify.verify(*sides, timeout_seconds=None))
