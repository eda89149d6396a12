"""Influence: of whose words an episode's answer was made, by the attention that its tokens paid to them.

Turns are the nodes of a DAG. A turn passes on, to every earlier turn whose words its prompt shows, a weight, and keeps
what is left: its weights and what it keeps sum to one. What flows back from the answer so is a share of every turn, and
all shares sum to one.

Attention is read per token, as a long message gets more of it for its length alone, and without the sink, the first few
tokens, which get it for nothing. What a turn pays to the question, to its instructions and to itself is its own:

    w_us = d_us / (d_u + sum_s' d_us'),      d = attention per token,      d_u of all that is its own.

So under uniform attention a turn and each message that it was shown count alike. That attention says who deserves a
reward is a conjecture; `coterie study` compares it with what leaving out a message does.

`orchestration.influence.measure_influence` makes an `Influence` of an episode with a learner or a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coterie.errors import CreditError

Floats = NDArray[np.float64]


class Stretch(NamedTuple):
    """Tokens that a reply attended to: the attention on all of them, a mean over the reply's tokens, and how many."""

    mass: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Attention:
    """Where one turn's attention went.

    Attributes:
        key: The turn's.
        agent: Who said it.
        own: Question, instructions and its own reply, all that is neither a sink nor another turn's words.
        sources: By key of an earlier turn: its words in the prompt.
    """

    key: str
    agent: str
    own: Stretch = Stretch(1.0, 1.0)
    sources: Mapping[str, Stretch] = field(default_factory=dict)

    def weights(self, per_token: bool = True) -> dict[str, float]:
        """What it passes on to each source; at most 1 together. Without `per_token` long messages weigh more."""
        parts = {key: _weigh(part, per_token) for key, part in self.sources.items()}
        total = math.fsum((*parts.values(), _weigh(self.own, per_token)))
        return {key: part / total if total else 0.0 for key, part in parts.items()}


def _weigh(part: Stretch, per_token: bool) -> float:
    if not per_token:
        return part.mass
    return part.mass / part.tokens if part.tokens > 0 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """The DAG of one episode. Made by `weigh`.

    Attributes:
        turns: Keys; a turn comes after all that it was shown.
        agents: Who said each.
        weights: [N, N], what turn i passes on to turn j < i.
        start: [N], how much of the answer each turn is; sums to one.
    """

    turns: tuple[str, ...]
    agents: tuple[str, ...]
    weights: Floats
    start: Floats

    @property
    def keeps(self) -> Floats:
        """What each turn keeps of what flows into it, [N]."""
        return np.asarray(1.0 - self.weights.sum(1))

    def flows(self) -> Floats:
        """[N, N]: row i says to which turns all of turn i goes back; every row sums to one.

        It is the sum over all paths of the DAG: the product of the weights along it, times what its end keeps.
        """
        found, keeps = np.zeros_like(self.weights), self.keeps
        for i in range(len(found)):
            found[i] = self.weights[i] @ found
            found[i, i] = keeps[i]
        return found

    def turn_shares(self) -> dict[str, float]:
        """Which share of the answer goes back to each turn; they sum to one."""
        return dict(zip(self.turns, (self.start @ self.flows()).tolist(), strict=True))

    def agent_shares(self) -> dict[str, float]:
        """The same by agent, sorted by name."""
        return by_agent(self.turn_shares(), dict(zip(self.turns, self.agents, strict=True)))

    def edges(self) -> list[tuple[str, str, float]]:
        """(source, reader, weight) of each pair of turns of which the second was shown the first."""
        readers, sources = self.weights.nonzero()
        return [
            (self.turns[j], self.turns[i], float(self.weights[i, j]))
            for i, j in zip(readers.tolist(), sources.tolist(), strict=True)
        ]


def weigh(turns: Sequence[Attention], start: Mapping[str, float], per_token: bool = True) -> Influence:
    """The DAG of an episode.

    Args:
        turns: All of them, in any order.
        start: How much of the answer each turn is, by key, at least 0; scaled to sum to one. Turns left out are none.
        per_token: See `Attention.weights`.

    Raises:
        CreditError: Turns are shown each other's words in a circle, or words of a turn that is not there; nothing is
            the answer; or a number is none.
    """
    known = {turn.key: turn for turn in turns}
    order = _sort(known)
    place = {key: i for i, key in enumerate(order)}
    if stranger := next((s for turn in turns for s in turn.sources if s not in known), None):
        raise CreditError("a turn was shown words of no turn of the episode", where=stranger)
    weights, begin = np.zeros((len(order), len(order))), np.zeros(len(order))
    for turn in turns:
        for source, weight in turn.weights(per_token).items():
            weights[place[turn.key], place[source]] = weight
    for key, amount in start.items():
        begin[place[key]] = amount
    if not (begin.sum() > 0 and (begin >= 0).all() and np.isfinite(weights).all() and (weights >= 0).all()):
        raise CreditError("attention or the weights of the answer are no numbers that can be shared",
                          where=order[0] if order else "an episode without turns")  # fmt: skip
    return Influence(order, tuple(known[key].agent for key in order), weights, begin / begin.sum())


def _sort(known: Mapping[str, Attention]) -> tuple[str, ...]:
    graph = {key: sorted(source for source in known[key].sources if source in known) for key in sorted(known)}
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as cause:
        raise CreditError("turns were shown each other's words in a circle", where=" ".join(cause.args[1])) from cause


def by_agent(shares: Mapping[str, float], agents: Mapping[str, str]) -> dict[str, float]:
    """Sums of the turns' shares, by agent; `agents` says whose each turn is."""
    parts: dict[str, list[float]] = {name: [] for name in sorted(set(agents.values()))}
    for key, share in shares.items():
        parts[agents[key]].append(share)
    return {name: math.fsum(mine) for name, mine in parts.items()}
