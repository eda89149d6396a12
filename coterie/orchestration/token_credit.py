"""Token credit in a training: from replies to what each of their tokens is worth, and what of it is kept to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from coterie import registry, rng
from coterie.agents.learning.examples import Example, in_order
from coterie.agents.learning.signals import Roles
from coterie.config.base import KindConfig
from coterie.errors import CreditError
from coterie.journal import Note
from coterie.orchestration.learners import Learner
from coterie.rewards.credit.token import ScoredReply, TokenCredit, Weighed, apply

ROLES_NOTE, TURN_NOTE = "head_roles", "token_credit"
_DIGITS = 6
Signals = Mapping[str, NDArray[np.float64]]
"""Of a reply's tokens, by name, [T] each."""


@dataclass(frozen=True, slots=True)
class Shaped:
    """What became of one policy's turns.

    Attributes:
        examples: In order, with their new advantages and what the learner need not compute again.
        metrics: `factor`, the mean over all tokens, and `shaped`, the share of tokens whose factor is not 1; `added`,
            the mean size of what is added, where a rule adds.
        notes: For the journal.
    """

    examples: Sequence[Example]
    metrics: Mapping[str, float]
    notes: Sequence[Note]


class TokenShaper:
    """Shapes the advantages of a training's turns, token by token.

    Args:
        config: Of a registered `token_credit`.
        seed: The experiment's.

    Attributes:
        roles: By policy, those of its heads, as plain data; a training goes on with them after a stop.
    """

    def __init__(self, config: KindConfig, seed: int) -> None:
        self._config: Any = config
        self._rule = cast(TokenCredit, registry.impl("token_credit", config.kind)(config))
        self._seed = seed
        self._reads_attention = bool(getattr(config, "reads_attention", False))
        self._has_roles = bool(self._rule.wants.names & {"waad", "fai"})
        self.roles: dict[str, Roles] = {}

    def check_model(self, policy: str, learner: Learner) -> None:
        """Refuse a model whose attention has too few layers to tell something.

        Raises:
            CreditError: It has.
        """
        if self._reads_attention and (count := learner.count_layers()) < self._config.least_layers:
            raise CreditError(
                f"{self._config.kind} reads layers of the middle third, and the model has {count} in all "
                f"(at least {self._config.least_layers} are needed)",
                where=f"credit.token, policy {policy}",
                remedy="take a deeper model, or a rule that reads no attention: entropy, or random",
            )

    def check_lengths(self, policy: str, lengths: Sequence[int]) -> None:
        """Refuse replies too short for the horizons of attention, by all that a policy said in the first iteration.

        Raises:
            CreditError: They are.
        """
        if self._reads_attention and lengths and median(lengths) < self._config.least_tokens:
            raise CreditError(
                f"half of the replies are shorter than {median(lengths) + 1:g} tokens, and {self._config.kind} needs "
                f"{self._config.least_tokens} for its horizons to lie in a reply",
                where=f"credit.token, policy {policy}",
                remedy="take tasks with longer replies, or a rule that reads no attention: entropy, or random",
            )

    def shape(
        self, policy: str, learner: Learner, examples: Sequence[Example], iteration: int,
        told: Mapping[str, Signals] | None = None,
    ) -> Shaped:  # fmt: skip
        """One iteration's turns of one policy.

        Args:
            policy: Whose.
            learner: Which has the policy as it was when it said them.
            examples: A key twice is one turn.
            iteration: Counts from 1.
            told: Signals that replays told, by the keys of turns.

        Raises:
            CreditError: The rule does not keep what it claims.
            LearningError: The attention of the model cannot be read.
        """
        known, notes = in_order(examples), list[Note]()
        if not known:
            return Shaped(known, {}, ())
        if self._has_roles and self._is_due(policy, iteration):
            self.roles[policy] = self._assign(policy, learner, known)
            notes.append(Note(ROLES_NOTE, f"{policy}/{iteration:06d}", dict(self.roles[policy])))
        scores = learner.score(policy, known, self._rule.wants, self.roles.get(policy))
        replies = [
            ScoredReply(one.key, one.advantage.astype(np.float64), {**score, **(told or {}).get(one.key, {})})
            for one, score in zip(known, scores, strict=True)
        ]
        weighed = apply(self._rule, replies, self._seed, iteration)
        notes += self._notes(policy, replies, weighed, iteration)
        return Shaped([_reshape(*each) for each in zip(known, scores, weighed, strict=True)], _measure(weighed), notes)

    def _is_due(self, policy: str, iteration: int) -> bool:
        every = self._config.reclassify_every
        return policy not in self.roles or bool(every and (iteration - 1) % every == 0)

    def _assign(self, policy: str, learner: Learner, examples: Sequence[Example]) -> Roles:
        return learner.assign_roles(policy, self._draw(examples, self._config.calibration), self._rule.wants)

    def _draw(self, examples: Sequence[Any], count: int) -> list[Any]:
        """So many of them by counted draws, in their order."""
        drawn = sorted(examples, key=lambda one: float(rng.uniforms(self._seed, "credit", one.key, count=1)[0]))
        return sorted(drawn[:count], key=lambda one: str(one.key))

    def _notes(
        self, policy: str, replies: Sequence[ScoredReply], weighed: Sequence[Weighed], iteration: int
    ) -> list[Note]:
        kept = {reply.key for reply in self._draw(replies, self._config.keep)}
        head = {"rule": self._config.kind, "policy": policy, "iteration": iteration}
        return [
            Note(TURN_NOTE, reply.key, head | _describe(reply, each))
            for reply, each in zip(replies, weighed, strict=True)
            if reply.key in kept
        ]


def _reshape(example: Example, score: Mapping[str, NDArray[Any]], weighed: Weighed) -> Example:
    shaped = weighed.shape(example.advantage).astype(np.float32)
    return replace(example, advantage=shaped, old=score["old"], entropy=score["entropy"])


def _measure(weighed: Sequence[Weighed]) -> dict[str, float]:
    factors = np.concatenate([each.factor for each in weighed])
    added = [each.added for each in weighed if each.added is not None]
    sizes = {"added": float(np.abs(np.concatenate(added)).mean())} if added else {}
    return {"factor": float(factors.mean()), "shaped": float((factors != 1).mean()), **sizes}


def _describe(reply: ScoredReply, weighed: Weighed) -> dict[str, Any]:
    """The note on a turn: numbers per token (null: not known), and the places of marked tokens."""
    signals = {name: values for name, values in reply.signals.items() if name != "old"}
    return {
        "advantage": _plain(reply.advantage), "factor": _plain(weighed.factor),
        **({} if weighed.added is None else {"added": _plain(weighed.added)}),
        "signals": {name: _plain(values) for name, values in signals.items()},
        "marks": {name: np.flatnonzero(at).tolist() for name, at in weighed.marks.items()},
    }  # fmt: skip


def _plain(values: NDArray[Any]) -> list[float | None]:
    return [round(float(value), _DIGITS) if np.isfinite(value) else None for value in values]
