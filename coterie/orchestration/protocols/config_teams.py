"""Configs of the protocols in which agents have different jobs. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coterie.orchestration.protocols.config import DecisionConfig, ProtocolConfig


class AgentVerseConfig(ProtocolConfig):
    """AgentVerse (Chen et al., arXiv 2308.10848): roles written for the task, a group decision, an evaluator's advice.

    Published with a feedback loop of at most 3.
    """

    agents = (2, None)
    templates = (
        "agentverse_evaluate", "agentverse_lesson", "agentverse_recruit", "agentverse_review", "agentverse_revise",
        "agentverse_role",
    )  # fmt: skip

    kind: Literal["agentverse"] = "agentverse"
    structure: Literal["vertical", "horizontal"] = "vertical"
    """`vertical`: the first agent drafts, the others review, it revises. `horizontal`: all answer, the decision rule
    speaks."""
    loops: int = Field(3, ge=1, le=20)
    """How often the group decides, at most; the evaluator is asked after each time but the last."""
    decision: DecisionConfig = DecisionConfig()
    """`horizontal`: how the group's answer is made."""


class AutoGenConfig(ProtocolConfig):
    """AutoGen's two-agent chat (Wu et al., arXiv 2308.08155): an assistant, and a proxy that answers it.

    A second agent is the proxy (on the engine `python` it runs the assistant's code); without one it replies by rule.
    Three turns are what the harness of CoMAS (arXiv 2510.08529) gives it.
    """

    agents = (1, 2)
    solo = True
    templates = ("autogen_assistant", "autogen_go_on", "autogen_proxy", "autogen_reply")

    kind: Literal["autogen"] = "autogen"
    turns: int = Field(3, ge=1, le=100)
    """How often the assistant speaks, at most."""
    stop: str = Field("TERMINATE", min_length=1)
    """Ends the chat, whoever says it."""
