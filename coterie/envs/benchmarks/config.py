"""Configs of the benchmarks. Imports nothing heavy."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from coterie.config.base import KindConfig


class ReasoningGymConfig(KindConfig):
    """Questions from one generator of reasoning-gym. Needs no network."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    task: str
    """Name of the generator, such as `chain_sum`."""
    limit: int = Field(50, ge=1, le=100_000)
    """How many different questions."""
    seed: int | None = Field(0, ge=0, lt=2**31)
    """Which questions; null follows the experiment's seed."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the generator, such as `max_terms: 2`."""


class Gsm8kConfig(KindConfig):
    """Grade-school word problems (GSM8K, MIT licence)."""

    kind: Literal["gsm8k"] = "gsm8k"
    split: Literal["test", "train"] = "test"
    path: str | None = None
    """A folder with `test.jsonl` and `train.jsonl`, relative to this file; null loads openai/gsm8k from the hub."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many; null is all."""
    shuffle: int | None = Field(None, ge=0, lt=2**31)
    """Seed of a shuffle before `limit` is applied; null keeps the order of the file."""
