"""What must hold between the sections of a world's experiment file; see `rules` for what both functions are for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coterie.config.rules import Mismatch
from coterie.config.schema import ExperimentConfig, WorldConfig

_OF_SOCIETIES = tuple(name for name in ExperimentConfig.model_fields if name not in WorldConfig.model_fields)


def find_world_mismatches(data: Mapping[str, Any]) -> list[Mismatch]:
    """What is wrong between sections, in data that may be wrong in any other way too."""
    message = "belongs to a society (a file with `benchmark`); a world (a file with `env`) has none"
    return [Mismatch((name,), message, is_key=True) for name in _OF_SOCIETIES if name in data]


def check_world_config(config: WorldConfig) -> list[Mismatch]:
    """Rules that need the whole config."""
    return [*_in_this_process(config)]


def _in_this_process(config: WorldConfig) -> Iterator[Mismatch]:
    if config.executor.kind != "local":
        message = f"a world is trained in one process: take local in place of {config.executor.kind}"
        yield Mismatch(("executor",), message)
