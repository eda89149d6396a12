"""Configs of the testing parts. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from coterie.agents.engines.config import EngineConfig
from coterie.config.base import Config

Probability = Annotated[float, Field(ge=0, le=1)]


class FaultsConfig(Config):
    """How often a scripted engine misbehaves.

    `empty` and `cut` change what is said: they are drawn for the turn's place, so asking again gives the same reply.
    The others break the call: they are drawn for place and attempt, so asking again may succeed. That way no reply
    depends on how calls were batched or repeated.
    """

    empty: Probability = 0
    """The reply has no text."""
    cut: Probability = 0
    """The reply ends half-way, with `finish: length`."""
    hang: Probability = 0
    """The call never returns."""
    crash: Probability = 0
    """The call raises EngineError."""
    wrong_length: Probability = 0
    """The call returns one sample too few."""
    lie: Probability = 0
    """A sample claims one token more than it carries."""


class ScriptedConfig(EngineConfig):
    """Deterministic replies without a model: every choice is a function of the seed and of the turn's place."""

    capabilities = frozenset({"tokens", "logprobs", "seeded", "choices"})

    kind: Literal["scripted"] = "scripted"
    mode: Literal["arithmetic", "echo"] = "arithmetic"
    """`arithmetic` answers the last sum or product in the prompt; `echo` repeats the last message."""
    replies: tuple[str, ...] = ()
    """If not empty, the reply is one of these, chosen by the turn's place, whatever `mode` says."""
    accuracy: Probability = 0.7
    """Probability of the right answer (`arithmetic`)."""
    errors: int = Field(3, ge=1)
    """How many different wrong answers there are (`arithmetic`); few, so that agents can also agree on one."""
    conformity: Probability = 0.5
    """Probability of adopting the majority of the answers fenced in the prompt (`arithmetic`)."""
    delay: float = Field(0, ge=0)
    """Seconds that one call takes."""
    max_batch: int = Field(64, ge=1)
    continuous: bool = False
    """Serve concurrent calls side by side; else one after the other."""
    context: int = Field(16_384, ge=32)
    """The longest prompt plus reply, in bytes (a token is a byte)."""
    faults: FaultsConfig = FaultsConfig()
