"""Coterie runs, trains and measures groups of agents, defined in one YAML file.

import coterie

run = coterie.run("examples/society.yaml", seed=3)
run.metrics()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coterie.errors import CoterieError
    from coterie.experiments.api import Run, resume, run
    from coterie.registry import register
    from coterie.types import Outcome, Task, Turn, Verdict

__version__ = "0.1.0"
__all__ = ["CoterieError", "Outcome", "Run", "Task", "Turn", "Verdict", "register", "resume", "run"]

_HOMES = {
    "CoterieError": "coterie.errors",
    "Run": "coterie.experiments.api",
    "resume": "coterie.experiments.api",
    "run": "coterie.experiments.api",
    "register": "coterie.registry",
    "Outcome": "coterie.types",
    "Task": "coterie.types",
    "Turn": "coterie.types",
    "Verdict": "coterie.types",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `import coterie` costs nothing and the command line answers at once.
    if name not in _HOMES:
        raise AttributeError(f"module 'coterie' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
