"""Questions from any generator of reasoning-gym (Apache-2.0), graded by equality, else by the generator's scorer."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import random
import re
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie import rng
from coterie.cache import cache_folder
from coterie.envs import answers
from coterie.envs.benchmarks.base import Item, ItemBenchmark, refuse_unknown
from coterie.envs.benchmarks.config import ReasoningGymConfig
from coterie.envs.grading import GradingPool
from coterie.errors import ConfigError

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

_MAX_SCORED = 4_000
_NUM_CANDIDATES = 4
_NONSENSE = "~"
_SCORING_SECONDS = 10.0
# Their questions follow the order of a set of strings, which Python draws anew for every process.
HASH_ORDERED = frozenset({"isomorphic_strings", "polynomial_multiplication", "ransom_note", "word_ladder"})

_FACTOR = r"(?:[0-9]{1,20}|[A-Za-z](?:\*\*[0-9]{1,2})?)"
_WORDS = re.compile(r"[A-Za-z0-9_ \n]*")
_ARITHMETIC = re.compile(r"(?!.*\*\*)[-+*/() 0-9]{1,200}")
_MONOMIALS = re.compile(rf"(?=.{{1,200}}$) *-? *{_FACTOR}(?: *[-+*/] *{_FACTOR})*")
# These scorers run the answer as Python code, themselves or through sympy. They see only answers of a harmless form.
EVALUATING = {
    "binary_matrix": _WORDS,
    "n_queens": _WORDS,
    "spiral_matrix": _WORDS,
    "string_insertion": _WORDS,
    "countdown": _ARITHMETIC,
    "puzzle24": _ARITHMETIC,
    "intermediate_integration": _MONOMIALS,
    "polynomial_multiplication": _MONOMIALS,
    "simple_integration": _MONOMIALS,
}


class ReasoningGym(ItemBenchmark):
    """`limit` different questions of one generator, in its order.

    `number` tasks where every gold answer is a plain number; else `text`, or `exact` where the generator's scorer tells
    upper from lower case. Every task shows the same solved example from outside the benchmark (or a second one, if the
    first asks the task's own question).
    """

    def __init__(self, config: ReasoningGymConfig, seed: int, base: Path) -> None:
        self._config, self._seed = config, seed if config.seed is None else config.seed
        self._dataset = _create(config, self._seed, _size(config))
        drawn = _draw(self._dataset, config.limit, self._seed)
        self._places = {entry["question"]: index for index, entry in drawn.items()}
        entries = list(drawn.values())
        answer_type = self._answer_type(entries)
        apart = _create(config, rng.derive(self._seed, "example", config.task), 1_000)
        others = list(_draw(apart, _NUM_CANDIDATES, self._seed).values())
        super().__init__(
            config.task, [Item(e["question"], _gold(e), answer_type, (), _example(e, others)) for e in entries]
        )

    @classmethod
    def check(cls, config: ReasoningGymConfig, seed: int, base: Path) -> None:
        """Refuse what the generator refuses; draws no question, which takes some generators a minute.

        The library takes seconds to import, so what it has accepted once is not asked again of the same version.
        """
        _check_hash_seed(config.task)
        accepted = _accepted(config, seed)
        if not accepted.exists():
            _create(config, seed, 1_000)
            with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
                accepted.parent.mkdir(parents=True, exist_ok=True)
                accepted.touch()

    def judge(self, item: Item, answer: str) -> bool:
        """Equal to the gold answer (in all but case, unless `exact`), or worth a full score of the generator's scorer.

        Scorers may compute anything, so they run in processes of `grading`; the library's common one compares texts,
        which `judge` has done.
        """
        folds = item.gold and item.answer_type != "exact"
        if folds and answers.canonical(answer, "text") == answers.canonical(item.gold, "text"):
            return True
        if super().judge(item, answer):
            return True
        harmless = EVALUATING.get(self._config.task)
        if not self._has_scorer or len(answer) > _MAX_SCORED or (harmless and not harmless.fullmatch(answer)):
            return False
        return pool().call(self._config.model_dump_json(), self._seed, self._places[item.question], answer) is True

    @property
    def _has_scorer(self) -> bool:
        return type(self._dataset).score_answer is not library().dataset.ProceduralDataset.score_answer

    def _answer_type(self, entries: list[dict[str, Any]]) -> str:
        golds = [_gold(entry) for entry in entries]
        if all(map(answers.is_number, golds)):
            return "number"
        checked = zip(entries[:8], golds, strict=False)
        folds = all(gold and _scores_full(self._dataset, entry, gold.casefold()) for entry, gold in checked)
        return "text" if folds or not self._has_scorer else "exact"


@cache
def library() -> Any:
    """The package reasoning_gym, imported at the first call."""
    with warnings.catch_warnings():
        # Of a package that it imports, compiled on first use: nothing we can mend.
        warnings.simplefilter("ignore", SyntaxWarning)
        import reasoning_gym
    return reasoning_gym


@cache
def pool() -> GradingPool:
    """Where `is_right` is called."""
    return GradingPool(f"{__name__}_scoring:is_right", cpu_seconds=_SCORING_SECONDS)


def is_right(config: str, seed: int, index: int, answer: str) -> bool:
    """Whether an answer to the question at `index` gets a full score. For processes of `grading`."""
    return _scores_full(*_entry(config, seed, index), answer)


@lru_cache(maxsize=256)
def _entry(config: str, seed: int, index: int) -> tuple[ProceduralDataset, dict[str, Any]]:
    dataset = _dataset(config, seed)
    with _guarded(seed, index):
        return dataset, dataset[index]


@lru_cache(maxsize=4)
def _dataset(config: str, seed: int) -> ProceduralDataset:
    read = ReasoningGymConfig.model_validate_json(config)
    return _create(read, seed, _size(read))


def _scores_full(dataset: ProceduralDataset, entry: dict[str, Any], answer: str) -> bool:
    try:
        # A scorer that takes nonsense for right (some read everything but "true" as false) decides nothing.
        score, nonsense = (float(dataset.score_answer(text, entry)) for text in (answer, _NONSENSE))
        return score >= 1.0 > nonsense
    except Exception:  # scorers meet text they did not expect in many ways; none of them makes it right
        return False


def _size(config: ReasoningGymConfig) -> int:
    return max(1_000, 4 * config.limit)


def _accepted(config: ReasoningGymConfig, seed: int) -> Path:
    """The file whose presence says that the installed library makes this generator with these parameters."""
    asked = config.model_dump_json(include={"task", "params"})
    digest = hashlib.sha256(f"{metadata.version('reasoning-gym')} {seed} {asked}".encode()).hexdigest()
    return cache_folder() / "reasoning-gym" / digest[:32]


def _check_hash_seed(task: str) -> None:
    if task in HASH_ORDERED and not os.environ.get("PYTHONHASHSEED", "").isdigit():
        raise ConfigError(
            f"the questions of {task} change from process to process", where="benchmark.task",
            remedy="set PYTHONHASHSEED=0 in the environment, or choose another generator",
        )  # fmt: skip


def _create(config: ReasoningGymConfig, seed: int, size: int) -> ProceduralDataset:
    datasets = library().factory.DATASETS
    refuse_unknown("reasoning-gym has no generator", config.task, sorted(datasets), "benchmark.task")
    fields = [f.name for f in dataclasses.fields(datasets[config.task][1]) if f.name not in ("seed", "size")]
    for name in config.params:
        refuse_unknown("reasoning-gym has no parameter", name, fields, f"benchmark.params.{name}")
    _check_hash_seed(config.task)
    try:
        with _guarded(seed, config.task):
            made: ProceduralDataset = library().create_dataset(config.task, seed=seed, size=size, **config.params)
            return made
    except (AssertionError, TypeError, ValueError) as cause:
        raise ConfigError(
            f"{config.task} refuses these parameters: {cause}", where="benchmark.params",
            remedy=f"parameters: {', '.join(fields)}",
        ) from cause  # fmt: skip


def _draw(dataset: ProceduralDataset, count: int, seed: int) -> dict[int, dict[str, Any]]:
    """The first `count` entries with different questions, by their places in the dataset."""
    found: dict[int, dict[str, Any]] = {}
    known: set[str] = set()
    for index in range(dataset.size):
        with _guarded(seed, index):
            entry = dataset[index]
        if entry["question"] not in known:
            known.add(entry["question"])
            found[index] = entry
        if len(found) == count:
            return found
    raise ConfigError(
        f"only {len(found)} different questions in {dataset.size} draws, wanted {count}", where="benchmark.limit",
        remedy="lower `limit`, or widen the generator's `params`",
    )  # fmt: skip


@contextlib.contextmanager
def _guarded(seed: int, *coordinates: rng.Coordinate) -> Iterator[None]:
    """Some generators draw from the global generators or print: give them counted seeds, then put everything back."""
    python, numpy = random.getstate(), np.random.get_state()
    number = rng.derive(seed, "reasoning_gym", *coordinates)
    random.seed(number)
    np.random.seed(number)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _gold(entry: dict[str, Any]) -> str:
    """The gold answer, or an empty string for generators that only score."""
    return "" if entry["answer"] is None else str(entry["answer"])


def _example(entry: dict[str, Any], others: list[dict[str, Any]]) -> str:
    # Chosen by question only: an example that avoided the task's gold answer would give it away.
    other = next(o for o in others if o["question"] != entry["question"])
    gold = _gold(other)
    return f"Q: {other['question']}\nA: Answer:{chr(10) if chr(10) in gold else ' '}{gold}" if gold else ""
