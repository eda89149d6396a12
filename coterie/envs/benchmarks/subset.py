"""Some of the tasks of another benchmark, such as those that a training did not see."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from coterie import registry
from coterie.envs.benchmarks.base import Benchmark
from coterie.envs.benchmarks.config import SubsetConfig
from coterie.errors import ConfigError
from coterie.types import Grader, Task


class Subset:
    """The tasks keep their ids and their grader."""

    def __init__(self, config: SubsetConfig, seed: int, base: Path) -> None:
        try:
            self._whole: Benchmark = registry.impl("benchmark", config.of.kind)(config.of, seed, base)
        except ConfigError as error:
            where = error.where.replace("benchmark", "benchmark.of", 1)
            raise ConfigError(error.what, where=where, remedy=error.remedy) from None
        tasks = self._whole.tasks()
        end = None if config.limit is None else config.skip + config.limit
        self._tasks = tasks[config.skip : end]
        if not self._tasks:
            raise ConfigError(
                f"the benchmark has {len(tasks)} tasks, and all of them are skipped", where="benchmark.skip",
                remedy="skip fewer",
            )  # fmt: skip

    def tasks(self) -> list[Task]:
        """Those that are left, in order."""
        return list(self._tasks)

    def grader(self) -> Grader:
        """That of the whole."""
        return self._whole.grader()

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the whole benchmark and the tasks that are left."""
        content = json.dumps([self._whole.fingerprint(), [task.id for task in self._tasks]])
        return hashlib.sha256(content.encode()).hexdigest()
