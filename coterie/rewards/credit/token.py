"""Token credit: factors by which the advantage of each token of a reply is multiplied.

Factors carry no gradient. They are computed in float64 from signals that the learner read in the pass that gave it the
old log-probabilities. What a rule says it conserves is checked each time.
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
Conserved = Literal["nothing", "reply", "batch"]
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class ScoredReply:
    """A reply that is learnt from.

    Attributes:
        key: Of its turn.
        advantage: What each token is worth so far, [T].
        signals: By name, [T] each: `old` (log-probabilities), and what the rule wants.
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
    """

    factor: Floats
    marks: Mapping[str, Marks] = field(default_factory=dict)


class TokenCredit(Protocol):
    """Built as `impl(config)`; a pure function of the replies and counted draws.

    Attributes:
        wants: The signals it reads.
        conserves: Whose mean of factors is one, so that no reward is minted or lost where a reply's tokens share one
            advantage: each `reply`'s, the `batch`'s, or `nothing`'s.
        bounds: Least and greatest factor, of rules that conserve nothing.
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
        CreditError: A factor is missing, negative or no number; or their mean, or one of them, is not as claimed.
    """
    weighed = rule.weigh(replies, seed, iteration)
    if [each.factor.shape for each in weighed] != [reply.advantage.shape for reply in replies]:
        raise CreditError("there is not one factor for each token", remedy="mend the rule of token credit")
    for reply, each in zip(replies, weighed, strict=True):
        if not (np.isfinite(each.factor).all() and (each.factor >= 0).all()):
            raise CreditError("a factor is negative or no number", where=reply.key, remedy="mend the rule")
    _check_claim(rule, replies, [each.factor for each in weighed])
    return weighed


def _check_claim(rule: TokenCredit, replies: Sequence[ScoredReply], factors: Sequence[Floats]) -> None:
    low, high = rule.bounds
    for reply, factor in zip(replies, factors, strict=True):
        if rule.conserves == "reply" and len(factor) and abs(float(factor.mean()) - 1) > _CLOSE:
            raise CreditError(f"the factors of a reply have the mean {factor.mean():.12g}, and 1 is promised",
                              where=reply.key, remedy="mend the rule of token credit")  # fmt: skip
        is_within = ((factor >= low - _CLOSE) & (factor <= high + _CLOSE)).all()
        if rule.conserves == "nothing" and not is_within:
            raise CreditError(f"a factor is outside of [{low:g}, {high:g}]", where=reply.key,
                              remedy="mend the rule of token credit")  # fmt: skip
    every = np.concatenate(factors) if factors else np.ones(1)
    if rule.conserves == "batch" and abs(float(every.mean()) - 1) > _CLOSE:
        raise CreditError(f"all factors have the mean {every.mean():.12g}, and 1 is promised",
                          remedy="mend the rule of token credit")  # fmt: skip
