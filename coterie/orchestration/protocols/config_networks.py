"""Configs of the protocols in which a graph says who reads whom. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coterie.orchestration.protocols.config import DecisionConfig, ProtocolConfig


class DylanConfig(ProtocolConfig):
    """DyLAN (Liu et al., arXiv 2310.02170): layers over time, early agreement, a ranker, importance scores.

    The public code runs 4 agents for at most 3 rounds and lets the ranker keep 2 from the third round on.
    """

    agents = (2, None)
    templates = ("dylan_answer", "dylan_rank", "dylan_rate", "reflect")

    kind: Literal["dylan"] = "dylan"
    rounds: int = Field(3, ge=1, le=20)
    """How many layers, at most."""
    keep: int = Field(2, ge=1)
    """How many agents the ranker keeps."""
    rank_from: int = Field(3, ge=2)
    """The first round (counted from 1) for which the ranker chooses who speaks."""
    team: int | None = Field(None, ge=1)
    """Solve the task again with only so many agents, the most important ones of the first pass; null does not."""
    decision: DecisionConfig = DecisionConfig()


Shape = Literal["chain", "star", "tree", "layered", "random", "complete"]


class MacNetConfig(ProtocolConfig):
    """MacNet (Qian et al., arXiv 2406.07155): an artefact travels a graph of critics (edges) and actors (nodes)."""

    agents = (2, None)
    templates = ("macnet_critique", "macnet_part", "macnet_revise")

    kind: Literal["macnet"] = "macnet"
    graph: Shape = "random"
    """The shape of the graph; its nodes are the agents in the order of their seats."""
    reversed: bool = False
    """Turn every edge round: a star then gathers at its centre, instead of spreading from it."""
    density: float = Field(0.5, ge=0, le=1)
    """`random`: the chance of each edge; a node that none leads to gets one."""
    decision: DecisionConfig = DecisionConfig()
    """How the answer is made where several nodes stand at the end."""
