"""SelfOrg (Tastan et al., "Stochastic Self-Organization in Multi-Agent Systems", arXiv 2510.00685).

Everybody answers alone. Then, in each round: embed the replies, measure what each agent contributes, let similar ones
read each other from higher to lower contribution, make that a DAG, and have the agents answer again in its topological
order, level by level. The society's answer is the reply nearest to the contribution-weighted centroid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from coterie import registry, rng
from coterie.agents.prompts import template
from coterie.agents.seats import Agent
from coterie.orchestration import graphs
from coterie.orchestration.protocols.base import Ask, opening
from coterie.orchestration.protocols.config import ConsensusConfig, SelfOrgConfig
from coterie.orchestration.protocols.minutes import Minutes, show, speak
from coterie.rewards.contributions import Contribution, Measured
from coterie.types import Message, Messages, Outcome, Task, Turn

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _State:
    """How the replies of a round lie to each other, agents in the order of their seats."""

    vectors: NDArray[np.float32]
    similarity: Floats
    contributions: Floats
    errors: Floats | None = None
    """Standard errors of contributions that are sampled."""


class SelfOrg:
    """Agents that rewire themselves by contribution, in the paper's form or the release's."""

    def __init__(self, config: SelfOrgConfig) -> None:
        self.config = config
        self._contribution: Contribution = registry.impl("contribution", config.contribution.kind)(config.contribution)

    async def run(self, task: Task, agents: Sequence[Agent], ask: Ask) -> Outcome:
        minutes = Minutes()
        minutes.note(0, await speak(ask, {agent: opening(agent, task) for agent in agents}, round=0))
        states = [await self._measure(minutes.rounds[0], 0, task, ask)]
        dag = self._rewire(states[0], task, 1, ask.seed)
        for number in range(1, self.config.rounds + 1):
            if self.config.reform and number > 1:
                dag = self._rewire(states[-1], task, number, ask.seed)
            await self._propagate(dag, states[-1].contributions, task, agents, minutes, ask)
            states.append(await self._measure(minutes.rounds[number], number, task, ask))
            if self.config.consensus is not None and agrees(states[-1].similarity, states[-1].contributions,
                                                            self.config.consensus):  # fmt: skip
                break
        return await self._conclude(states, task, minutes, ask)

    async def _measure(self, turns: Mapping[str, Turn], number: int, task: Task, ask: Ask) -> _State:
        vectors = await ask.embed(self.config.embedder, [turn.text for turn in turns.values()])
        measured = self._contributions(vectors, task, number, ask.seed)
        errors = None if measured.errors is None else _rounded(measured.errors)
        return _State(vectors, _cosines(vectors), _rounded(measured.values), errors)

    def _contributions(self, vectors: NDArray[np.float32], task: Task, number: int, seed: int) -> Measured:
        return self._contribution.measure(vectors, rng.stream(seed, "contribution", task.id, number))

    def _rewire(self, state: _State, task: Task, number: int, seed: int) -> nx.DiGraph:
        config = self.config
        graph = graphs.form(state.similarity, state.contributions, edges=config.edges, threshold=config.threshold,
                            top_k=config.top_k)  # fmt: skip
        dag = graphs.cut_cycles(graph, state.contributions, config.cut)
        if config.graph == "contribution":
            return dag
        return graphs.draw(len(dag), dag.number_of_edges(), rng.stream(seed, "graph", task.id, number))

    async def _propagate(
        self, dag: nx.DiGraph, contributions: Floats, task: Task, agents: Sequence[Agent], minutes: Minutes, ask: Ask
    ) -> None:
        """Answer again in topological order; a level speaks at once, and reads what those before it say now."""
        number, levels = len(minutes.rounds), graphs.levels(dag, contributions)
        minutes.note(number, {})
        standing, leader = minutes.rounds[number], levels[0][0]
        for level in levels:
            prompts: dict[Agent, Messages] = {}
            for n in level:
                if n == leader or dag.in_degree(n) or self.config.isolated == "refine":
                    sources = sorted(dag.predecessors(n), key=lambda m: (-contributions[m], m))
                    read = [standing[agents[m].name] for m in sources]
                    minutes.link(number, read, [agents[n].name])
                    prompts[agents[n]] = self._prompt(agents[n], task, standing[agents[n].name], read)
            minutes.note(number, await speak(ask, prompts, round=number))

    def _prompt(self, agent: Agent, task: Task, own: Turn, read: Sequence[Turn]) -> Messages:
        if read:
            request = template("selforg_peers").fill(peers=show(turn.text for turn in read))
        else:
            request = template("selforg_lead").fill()
        return (*opening(agent, task), Message("assistant", own.text), Message("user", request))

    async def _conclude(self, states: Sequence[_State], task: Task, minutes: Minutes, ask: Ask) -> Outcome:
        turns = {name: self._standing(minutes, name) for name in minutes.rounds[0]}
        is_last = all(turn.key == minutes.rounds[-1][name].key for name, turn in turns.items())
        final = states[-1] if is_last else await self._measure(turns, len(states), task, ask)
        weights = final.contributions
        if self.config.answer == "centroid":
            scores, rule = nearness(final.vectors, weights), "nearest to the weighted centroid"
        else:
            scores, rule = weights, "highest contribution"
        names = list(turns)
        able = [n for n, name in enumerate(names) if turns[name].answer is not None or not self.config.fallback]
        extra = {"contributions": [_named(names, state.contributions) for state in states]}
        if errors := [state.errors for state in states if state.errors is not None]:
            extra["standard_errors"] = [_named(names, each) for each in errors]
        if not able:
            return minutes.conclude(None, "no answer: nobody gave one", extra)
        chosen = names[max(able, key=lambda n: (scores[n], weights[n], -n))]
        return minutes.conclude(turns[chosen].answer, f"{rule}: {chosen}", {**extra, "chosen": chosen})

    def _standing(self, minutes: Minutes, name: str) -> Turn:
        """An agent's last word, or, if that holds no answer, its last one that does."""
        said = [turns[name] for turns in minutes.rounds]
        answered = [turn for turn in said if turn.answer is not None]
        return answered[-1] if answered and self.config.fallback else said[-1]


def agrees(similarity: Floats, contributions: Floats, consensus: ConsensusConfig) -> bool:
    """Whether all replies are alike and no contribution stands out, the release's test."""
    return bool(similarity.min() >= consensus.similarity and np.ptp(contributions) <= consensus.spread)


def nearness(vectors: NDArray[Any], weights: Floats) -> Floats:
    """Cosine of every reply to r_c = sum w_n r_n / sum w_n (arXiv 2510.00685), [N].

    Where the weights sum to nothing, r_c is the plain mean.
    """
    rows, total = _units(vectors), float(weights.sum())
    centroid = (weights / total if total > 1e-12 else np.full(len(weights), 1 / len(weights))) @ rows
    length = float(np.linalg.norm(centroid))
    return _rounded(rows @ centroid / length if length > 1e-12 else np.zeros(len(rows)))


def _cosines(vectors: NDArray[np.float32]) -> Floats:
    rows = _units(vectors)
    return _rounded(rows @ rows.T)


def _units(vectors: NDArray[Any]) -> Floats:
    """The rows in float64, of unit length to its last bits; a zero row, of a reply without text, stays zero."""
    rows = vectors.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))


def _rounded(values: NDArray[Any]) -> Floats:
    """Rounded to 1e-5: the last bits of a float decide nothing."""
    return np.asarray(np.round(values.astype(np.float64), 5), dtype=np.float64)


def _named(names: Sequence[str], values: Floats) -> Mapping[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
