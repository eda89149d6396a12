"""MMLU: questions of 57 subjects with four options (Hendrycks et al., arXiv 2009.03300; MIT licence)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coterie.envs.benchmarks.base import Item, ItemBenchmark, multiple_choice, refuse_unknown
from coterie.envs.benchmarks.config import MmluConfig
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, items, load_hub, read
from coterie.errors import ConfigError

_REVISION = "c30699e8356da336a370243923dbaf21066bb9fe"
_LETTERS = ("A", "B", "C", "D")
_COLUMNS = ("question", *_LETTERS, "answer")
_EXAMPLE = """\
Q: Which of these planets is closest to the sun?
(A) Venus
(B) Mars
(C) Saturn
(D) Mercury
A: Mercury's orbit is the innermost of the eight.
Answer: (D)"""


class Mmlu(ItemBenchmark):
    """The questions of one subject, or of all in alphabetical order."""

    def __init__(self, config: MmluConfig, seed: int, base: Path) -> None:
        if config.path is None:
            found = items(_from_hub(config), _hub_item, config, "mmlu", config.split, config.subject)
        else:
            rows = _from_folder(base / config.path, config)
            found = items(rows, _csv_item, config, "mmlu", config.split, config.subject)
        super().__init__(f"mmlu_{config.subject}", found)


def _from_hub(config: MmluConfig) -> list[Row]:
    rows = load_hub(Hub("cais/mmlu", _REVISION, config.split, "all"), "a folder with test/high_school_physics_test.csv")
    subjects = {row.text("subject") for row in rows}
    chosen = _choose(config.subject, subjects)
    return [row for subject in chosen for row in rows if row.fields["subject"] == subject]


def _from_folder(folder: Path, config: MmluConfig) -> list[Row]:
    """The subjects' CSV files, in the folder itself or in the one named after the split, as published."""
    short = {"validation": "val"}.get(config.split, config.split)
    place = folder / short if (folder / short).is_dir() else folder
    ending = f"_{short}.csv"
    files = {file.name.removesuffix(ending): file for file in place.glob(f"*{ending}")}
    if not files:
        raise ConfigError(f"there is no file SUBJECT{ending} in {place.resolve()}", where="benchmark.path",
                          remedy="point `path` at MMLU's folder `data`, or leave it out to use the hub")  # fmt: skip
    return [row for subject in _choose(config.subject, files) for row in read(files[subject], _COLUMNS)]


def _choose(subject: str, known: Iterable[str]) -> list[str]:
    names = sorted(known)
    refuse_unknown("there is no subject", subject, ["all", *names], "benchmark.subject")
    return names if subject == "all" else [subject]


def _csv_item(row: Row) -> Item:
    gold = _LETTERS.index(row.one_of("answer", _LETTERS))
    return multiple_choice(row.text("question").strip(), [row.fields[c].strip() for c in _LETTERS], gold, _EXAMPLE)


def _hub_item(row: Row) -> Item:
    gold = row.fields.get("answer")
    if not isinstance(gold, int) or gold not in range(len(_LETTERS)):
        raise row.refuse("`answer` is none of 0, 1, 2, 3")
    options = [option.strip() for option in row.texts("choices", len(_LETTERS))]
    return multiple_choice(row.text("question").strip(), options, gold, _EXAMPLE)
