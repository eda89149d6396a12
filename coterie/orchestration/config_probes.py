"""Configs of the probes. Imports nothing heavy."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from coterie.config.base import KindConfig


class ProbeConfig(KindConfig):
    """Base of probe configs."""

    templates: ClassVar[tuple[str, ...]] = ()
    """The prompt templates that it fills in, by name. A run goes on only if they are as they were."""


class PTrueConfig(ProbeConfig):
    """P(True) (Kadavath et al., arXiv 2207.05221): is your answer right, True or False?"""

    templates = ("probe_p_true",)

    kind: Literal["p_true"] = "p_true"
    samples: int = Field(8, ge=1, le=256)
    """How often each agent is asked; once where its engine has `choices` and `logprobs`."""


class VerbalConfidenceConfig(ProbeConfig):
    """Verbal confidence (Tian et al., arXiv 2305.14975): how sure are you, from 0 to 100?"""

    templates = ("probe_verbal_confidence",)

    kind: Literal["verbal_confidence"] = "verbal_confidence"
