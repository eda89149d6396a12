"""Agent credit: an episode's team reward, shared among its agents and turns.

A rule gives every turn a share, and the shares of an episode sum to one, which is checked each time. A turn earns its
share of the team reward times the number of turns: a mean over the turns is the team reward itself, and where all
shares are equal every turn earns just that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from coterie.errors import CreditError
from coterie.rewards.contributions import psi
from coterie.rewards.credit.influence import Influence
from coterie.types import Outcome, Turn

if TYPE_CHECKING:
    from coterie.rewards.credit.config_agent import AgentCreditConfig

Need = Literal["influence", "vectors", "worths"]
_CLOSE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Teamwork:
    """A finished episode as rules of agent credit see it: no gold, and what they need of what was measured.

    Attributes:
        outcome: How it came about.
        turns: All of them by key; at least one.
        influence: Who read whose words.
        vectors: Of each agent's last word, float32 [D], by agent.
        worths: What the team's result owes to each agent, by agent, as replays tell; of any sign.
        is_correct: The verdict on the society's answer.
    """

    outcome: Outcome
    turns: Mapping[str, Turn]
    influence: Influence | None = None
    vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    worths: Mapping[str, float] = field(default_factory=dict)
    is_correct: bool = True


class AgentCredit(Protocol):
    """Built as `impl(config)`; a pure function of the episode.

    Attributes:
        needs: What has to be measured for it.
    """

    @property
    def needs(self) -> frozenset[Need]: ...

    def share(self, work: Teamwork) -> Mapping[str, float]:
        """The share of every turn, by key; they sum to one, and may be below 0."""
        ...


class Equal:
    """Every agent that spoke gets as much, whatever it said; its turns likewise."""

    needs: frozenset[Need] = frozenset()

    def __init__(self, config: AgentCreditConfig) -> None: ...

    def share(self, work: Teamwork) -> Mapping[str, float]:
        """As `AgentCredit.share`."""
        return among_turns(dict.fromkeys(agents_of(work.turns), 1.0), work.turns)


class AttentionFlow:
    """What flows back from the answer, by the attention that turns paid to the words of others."""

    needs: frozenset[Need] = frozenset({"influence"})

    def __init__(self, config: AgentCreditConfig) -> None: ...

    def share(self, work: Teamwork) -> Mapping[str, float]:
        """As `AgentCredit.share`."""
        if work.influence is None:
            raise CreditError("the influence of an episode was not measured", where=min(work.turns))
        return work.influence.turn_shares()


class Psi:
    """By the cosine of an agent's last word to the mean of all (SelfOrg, arXiv 2510.00685); below 0 counts as 0."""

    needs: frozenset[Need] = frozenset({"vectors"})

    def __init__(self, config: AgentCreditConfig) -> None: ...

    def share(self, work: Teamwork) -> Mapping[str, float]:
        """As `AgentCredit.share`."""
        names = list(agents_of(work.turns))
        values = np.maximum(psi(np.stack([work.vectors[name] for name in names])), 0.0)
        return among_turns(dict(zip(names, values.tolist(), strict=True)), work.turns)


class Replays:
    """By what the result owes to each agent, as replays tell.

    A right answer is shared by those who helped, a wrong one by those who harmed; whoever did neither has no part.
    Where nobody made a difference, all agents are alike.
    """

    needs: frozenset[Need] = frozenset({"worths"})

    def __init__(self, config: AgentCreditConfig) -> None: ...

    def share(self, work: Teamwork) -> Mapping[str, float]:
        """As `AgentCredit.share`."""
        sign = 1.0 if work.is_correct else -1.0
        return among_turns({name: max(sign * work.worths[name], 0.0) for name in agents_of(work.turns)}, work.turns)


def agents_of(turns: Mapping[str, Turn]) -> dict[str, list[str]]:
    """The keys of each agent's turns in logical order, by agent."""
    found: dict[str, list[str]] = {}
    for turn in sorted(turns.values(), key=lambda turn: (turn.place, turn.key)):
        found.setdefault(turn.place.seat, []).append(turn.key)
    return {name: found[name] for name in sorted(found)}


def last_words(outcome: Outcome, turns: Mapping[str, Turn]) -> dict[str, str]:
    """The key of the turn by which each agent stands at the end; of one that stands in no round, its last turn."""
    standing = list(outcome.rounds[-1].values()) if outcome.rounds else []
    last = {turns[key].place.seat: key for key in standing if key in turns}
    return {name: last.get(name, keys[-1]) for name, keys in agents_of(turns).items()}


def among_turns(agents: Mapping[str, float], turns: Mapping[str, Turn]) -> dict[str, float]:
    """Shares of turns from weights of agents, each agent's turns alike.

    Where the weights sum to nothing, all agents are alike.
    """
    total = math.fsum(agents.values())
    mine = agents_of(turns)
    if not total > 0:
        agents, total = dict.fromkeys(mine, 1.0), float(len(mine))
    return {key: agents[name] / total / len(keys) for name, keys in mine.items() for key in keys}


def check_shares(shares: Mapping[str, float], turns: Mapping[str, Turn], where: str) -> None:
    """Refuse shares that would mint a reward or lose one.

    Raises:
        CreditError: They are not those of the episode's turns, are no numbers, or do not sum to one.
    """
    wrong = sorted(shares.keys() ^ turns.keys())
    total = math.fsum(shares.values())
    if wrong or not abs(total - 1) <= _CLOSE:
        what = f"has shares of other turns than it has, such as {wrong[0]!r}" if wrong else f"sum to {total:.6g}"
        raise CreditError(
            f"an episode {what}" if wrong else f"the shares of an episode {what}, not to one", where=where,
            remedy="an agent credit gives each turn of the episode a share, and all of them together 1",
        )  # fmt: skip


def rewards_of(shares: Mapping[str, float], reward: float) -> dict[str, float]:
    """What each turn earns: its share of the team reward, times the number of turns."""
    return {key: share * reward * len(shares) for key, share in shares.items()}


def mean_shares(given: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean share of each agent over episodes; an agent that is not in one has none of it."""
    names = sorted({name for shares in given for name in shares})
    return {name: math.fsum(shares.get(name, 0.0) for shares in given) / len(given) for name in names}
