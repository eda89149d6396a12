"""Configs of the rewards. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from coterie.config.base import KindConfig


class VerifierConfig(KindConfig):
    """Rewards by the benchmark's grader: the verifiable reward of RLVR."""

    kind: Literal["verifier"] = "verifier"
    right: float = 1.0
    wrong: float = 0.0
    unparsed: float = 0.0
    """For a reply that holds no answer."""
