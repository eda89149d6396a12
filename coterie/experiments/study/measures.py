"""What is said of an episode's agents without a replay: psi of their messages, attention that was paid to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie.agents import embedders
from coterie.agents.engines import models
from coterie.agents.engines.tokens import load_tokenizers
from coterie.orchestration.harvest import PlayedEpisode
from coterie.orchestration.jobs import Job
from coterie.orchestration.pool import EngineSpec, PolicySpec
from coterie.rewards.contributions import psi
from coterie.rewards.credit.influence import Influence
from coterie.types import Embedder

Row = dict[str, Any]
Measure = Callable[[Sequence[Job], Sequence[PlayedEpisode]], list[Row]]
"""Of each episode, measures of its agents, each a number by the agent's name; and what else there is to know."""
# The last bits, in which machines differ, are no part of what is found.
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Cast:
    """Whose attention is read, and what reads messages.

    Attributes:
        policies: Of the seats, by name.
        engines: By the names that policies give.
        device: Where models are read.
        embedder: Its name.
    """

    policies: Mapping[str, PolicySpec]
    engines: Mapping[str, EngineSpec]
    device: str
    embedder: str


def make_measure(name: str, cast: Cast) -> Measure:
    """The measure of that name, `attention` or `psi`; its models are loaded.

    Raises:
        EnvironmentMissing: one cannot be.
    """
    makers: Mapping[str, Callable[[Cast], Measure]] = {"attention": _read_attention, "psi": _embed}
    return makers[name](cast)


def _embed(cast: Cast) -> Measure:
    embedder: Embedder = embedders.load(cast.embedder, alone=True)

    def measure(jobs: Sequence[Job], episodes: Sequence[PlayedEpisode]) -> list[Row]:
        texts = [messages_of(job, played) for job, played in zip(jobs, episodes, strict=True)]
        return [{"psi": _by_name(job, psi(embedder.embed(said)).tolist())}
                for job, said in zip(jobs, texts, strict=True)]  # fmt: skip

    return measure


def messages_of(job: Job, played: PlayedEpisode) -> list[str]:
    """What the others read of each agent, in the order of the job's; its last words where they read nothing."""
    return [_message(agent.name, played) for agent in job.agents]


def _message(agent: str, played: PlayedEpisode) -> str:
    own = sorted((t for t in played.turns.values() if t.place.seat == agent), key=lambda turn: (turn.place, turn.key))
    read = {edge.turn for edge in played.outcome.edges if edge.source == agent}
    return "\n".join([turn.text for turn in own if turn.key in read] or [turn.text for turn in own[-1:]])


def _read_attention(cast: Cast) -> Measure:
    from coterie.agents.learning.attending import AttentionReader  # imports torch
    from coterie.orchestration.influence import measure_influence

    names = {name: cast.engines[policy.engine].model for name, policy in cast.policies.items()}
    loaded = {model: AttentionReader(models.resolve(model), cast.device) for model in dict.fromkeys(names.values())}
    readers, spellers = {name: loaded[model] for name, model in names.items()}, load_tokenizers(names)

    def measure(jobs: Sequence[Job], episodes: Sequence[PlayedEpisode]) -> list[Row]:
        found = measure_influence(episodes, readers, spellers)
        return [
            {"attention": _by_name(job, _shares(job, one.influence)), "heard": _by_name(job, heard(job, one.influence)),
             "missing": one.missing, "unread": one.unread}
            for job, one in zip(jobs, found, strict=True)
        ]  # fmt: skip

    return measure


def _shares(job: Job, influence: Influence) -> list[float]:
    """Of the answer, by what flows back from it."""
    found = influence.agent_shares()
    return [found.get(agent.name, 0.0) for agent in job.agents]


def heard(job: Job, influence: Influence) -> list[float]:
    """How much others attended to each agent's words, right where they read them: a mean over all turns of others."""
    agents, weights = np.array(influence.agents), influence.weights
    found = []
    for agent in job.agents:
        others = agents != agent.name
        paid = weights[others][:, ~others].sum(axis=1)
        found.append(float(paid.mean()) if paid.size else 0.0)
    return found


def _by_name(job: Job, values: Sequence[float]) -> dict[str, float]:
    return {agent.name: round(value, _DIGITS) for agent, value in zip(job.agents, values, strict=True)}
