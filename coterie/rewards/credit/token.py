"""Token credit: what becomes of the advantage of each token of a reply.

    A'_t = factor_t A_t + added_t

Most rules have factors alone; those that estimate advantages themselves add them, with factors of 0. Neither carries a
gradient. They are computed in float64 from signals: what the learner read in the pass that gave it the old
log-probabilities, and what replays told. What a rule says it conserves is checked each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from coterie.errors import CreditError
from coterie.types import SignalRequest

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]
Conserved = Literal["nothing", "reply", "batch", "steps", "mean"]
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class ScoredReply:
    """A reply that is learnt from.

    Attributes:
        key: Of its turn.
        advantage: What each token is worth so far, [T].
        signals: By name, [T] each: `old` (log-probabilities), what the rule wants, and what replays told.
    """

    key: str
    advantage: Floats
    signals: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def signal(self, name: str) -> Floats:
        """One of them in float64.

        Raises:
            CreditError: It was not measured, or not for each token.
        """
        values = np.asarray(self.signals.get(name, ()), np.float64)
        if values.shape != self.advantage.shape:
            raise CreditError(f"the signal {name} is not there for each token", where=self.key,
                              remedy="have the learner score replies with what the rule wants")  # fmt: skip
        return values


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """What a rule says of one reply.

    Attributes:
        factor: [T], at least 0.
        marks: Which tokens it chose, by what as, bool [T] each: such as `preplan` and `anchor`.
        added: [T]; None: nothing.
    """

    factor: Floats
    marks: Mapping[str, Marks] = field(default_factory=dict)
    added: Floats | None = None

    def shape(self, advantage: NDArray[Any]) -> NDArray[Any]:
        """What each token is worth now, [T]."""
        shaped = advantage * self.factor
        return shaped if self.added is None else shaped + self.added


class TokenCredit(Protocol):
    """Built as `impl(config)`; a pure function of the replies and counted draws.

    Attributes:
        wants: The signals it reads.
        conserves: Whose mean of factors is one, so that no reward is minted or lost where a reply's tokens share one
            advantage: each `reply`'s, the `batch`'s, or `nothing`'s. Of a rule that adds, what of a reply is its reward
            less the value of its prompt: the sum over `steps` of what is added to a token of each, or the `mean` of
            what is added.
        bounds: Least and greatest factor, of all rules but those whose factors have the mean one.
    """

    @property
    def wants(self) -> SignalRequest: ...

    @property
    def conserves(self) -> Conserved: ...

    @property
    def bounds(self) -> tuple[float, float]: ...

    def weigh(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        """The factors of each reply, in their order.

        Args:
            replies: All that one policy learns from in an iteration, at least one token each.
            seed: The experiment's.
            iteration: Counts from 1.
        """
        ...


def apply(rule: TokenCredit, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
    """Weigh replies, and hold the rule to what it claims.

    Raises:
        CreditError: A factor is missing, negative or no number; or something is not as claimed.
    """
    weighed = rule.weigh(replies, seed, iteration)
    if [each.factor.shape for each in weighed] != [reply.advantage.shape for reply in replies]:
        raise CreditError("there is not one factor for each token", remedy="mend the rule of token credit")
    for reply, each in zip(replies, weighed, strict=True):
        if not (np.isfinite(each.factor).all() and (each.factor >= 0).all()):
            raise CreditError("a factor is negative or no number", where=reply.key, remedy="mend the rule")
        _check_added(rule, reply, each)
    _check_claim(rule, replies, [each.factor for each in weighed])
    return weighed


def _check_added(rule: TokenCredit, reply: ScoredReply, weighed: Weighed) -> None:
    """What is added comes to what replays told that the reply was worth more than its prompt."""
    if rule.conserves not in ("steps", "mean"):
        if weighed.added is not None:
            raise CreditError("advantages are added, and nothing is promised of them", where=reply.key,
                              remedy="mend the rule of token credit: it conserves steps, or the mean")  # fmt: skip
        return
    given = np.zeros(len(reply.advantage)) if weighed.added is None else weighed.added
    if rule.conserves == "mean":
        total = float(given.mean())
    else:
        steps = [given[reply.signal("step") == number] for number in np.unique(reply.signal("step"))]
        total = sum(float(step[np.abs(step).argmax()]) for step in steps)
    gain = float(reply.signal("after")[-1] - reply.signal("value")[0])
    if not abs(total - gain) <= _CLOSE * (1 + np.abs(given).sum()):
        raise CreditError(f"what a reply is given comes to {total:.12g}, and it was worth {gain:.12g} more than its "
                          "prompt", where=reply.key, remedy="mend the rule of token credit")  # fmt: skip


def _check_claim(rule: TokenCredit, replies: Sequence[ScoredReply], factors: Sequence[Floats]) -> None:
    low, high = rule.bounds
    for reply, factor in zip(replies, factors, strict=True):
        if rule.conserves == "reply" and len(factor) and abs(float(factor.mean()) - 1) > _CLOSE:
            raise CreditError(f"the factors of a reply have the mean {factor.mean():.12g}, and 1 is promised",
                              where=reply.key, remedy="mend the rule of token credit")  # fmt: skip
        is_within = ((factor >= low - _CLOSE) & (factor <= high + _CLOSE)).all()
        if rule.conserves not in ("reply", "batch") and not is_within:
            raise CreditError(f"a factor is outside of [{low:g}, {high:g}]", where=reply.key,
                              remedy="mend the rule of token credit")  # fmt: skip
    every = np.concatenate(factors) if factors else np.ones(1)
    if rule.conserves == "batch" and abs(float(every.mean()) - 1) > _CLOSE:
        raise CreditError(f"all factors have the mean {every.mean():.12g}, and 1 is promised",
                          remedy="mend the rule of token credit")  # fmt: skip
