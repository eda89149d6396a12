"""What a turn earned beyond what was to be expected: one pure function per formula, over the turns that are compared.

Every function takes the rewards of one key (see `RewardedTurn.key_by`) and is symmetric in them. Where nothing can be
compared (one turn, or all alike) an advantage is 0, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coterie.errors import CoterieError
from coterie.rewards.keys import ATTRIBUTES, Attribute

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RewardedTurn:
    """A turn to learn from, and what it was worth.

    Attributes:
        key: The turn's.
        policy: Whose weights said it.
        agent: Who said it.
        role: What for: `Place.purpose`.
        group: Turns of one group answer the same prompt, or work the same task.
        round: `Place.round`.
        reward: Of the whole reply.
        num_tokens: T.
        penalties: [T], what each token loses of the reward (beta times its KL from the reference); empty: nothing.
        values: [T], what a critic expected the reply to earn before each token; empty: there is no critic.
    """

    key: str
    policy: str
    agent: str
    role: str
    group: str
    round: int
    reward: float
    num_tokens: int
    penalties: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("penalties", "values"):
            count = len(getattr(self, name))
            if count not in (0, self.num_tokens):
                raise CoterieError(f"{count} {name} for {self.num_tokens} tokens", where=self.key,
                                   remedy="give one for each token of the reply, or none")  # fmt: skip
        if not all(map(math.isfinite, (self.reward, *self.penalties, *self.values))):
            raise CoterieError("a reward, a penalty or a value is not finite", where=self.key,
                               remedy="mend the reward, or drop the turn")  # fmt: skip

    @property
    def net(self) -> float:
        """The reward less all penalties: what the reply as one action earned."""
        return self.reward - math.fsum(self.penalties)

    def key_by(self, by: Iterable[Attribute]) -> tuple[str, ...]:
        """What it shares with the turns that it is compared with; the order of `by` does not matter."""
        chosen = frozenset(by)
        return tuple(str(getattr(self, name)) for name in ATTRIBUTES if name in chosen)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Advantages of one batch.

    Attributes:
        advantages: By turn key, float32 [num_tokens].
        memory: Running baselines after the batch, by name; empty for estimators without.
        targets: What values should have been, by turn key, float32 [num_tokens]; empty for estimators that read none.
    """

    advantages: Mapping[str, NDArray[np.float32]]
    memory: Mapping[str, float]
    targets: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


class AdvantageEstimator(Protocol):
    """Built as `impl(config)`; a pure function of the turns and the memory, so that a resumed run gives the same."""

    def estimate(self, turns: Sequence[RewardedTurn], memory: Mapping[str, float]) -> Estimate:
        """The advantage of every token of every turn.

        A turn's advantage depends on turns of its own key alone; their order does not matter, nor that one stands
        there twice.

        Args:
            turns: One batch.
            memory: As the batch before left it; empty at first.

        Raises:
            CoterieError: two different turns have one key.
        """
        ...


def gather(turns: Iterable[RewardedTurn], by: Sequence[Attribute]) -> dict[tuple[str, ...], list[RewardedTurn]]:
    """The turns to compare with each other, each once, in the order of their keys.

    Raises:
        CoterieError: two different turns have one key.
    """
    known: dict[str, RewardedTurn] = {}
    for turn in turns:
        if known.setdefault(turn.key, turn) != turn:
            raise CoterieError("two different turns to learn from have one key", where=turn.key,
                               remedy="reward each turn once")  # fmt: skip
    gathered: dict[tuple[str, ...], list[RewardedTurn]] = {}
    for turn in sorted(known.values(), key=lambda turn: turn.key):
        gathered.setdefault(turn.key_by(by), []).append(turn)
    return gathered


def token_rewards(turn: RewardedTurn) -> Floats:
    """What each token earned, [T]: it pays its penalty, and the last gets the reward."""
    earned = -np.asarray(turn.penalties or np.zeros(turn.num_tokens), dtype=np.float64)
    earned[-1:] += turn.reward
    return earned


def returns_to_go(turn: RewardedTurn) -> Floats:
    """R - sum of the penalties from this token on, [T].

    Source: REINFORCE++ (arXiv 2501.03262, equation of A_t); CoMAS (arXiv 2510.08529, section 3.3), discount 1.
    """
    if not turn.penalties:
        return np.full(turn.num_tokens, turn.reward)
    return turn.reward - np.cumsum(np.asarray(turn.penalties)[::-1])[::-1]


def whiten(values: Sequence[Floats], epsilon: float = 1e-8) -> list[Floats]:
    """(A - mean) / (std + epsilon) over all tokens together, so that long replies weigh more.

    Source: REINFORCE++ (arXiv 2501.03262, global advantage normalisation). The deviation is the population's.

    Args:
        values: Of each reply, [T].
        epsilon: Keeps small deviations from being blown up.
    """
    pooled = np.concatenate(values) if values else np.zeros(0)
    if _are_alike(pooled):
        return [np.zeros_like(value) for value in values]
    mean, deviation = pooled.mean(), pooled.std()
    return [(value - mean) / (deviation + epsilon) for value in values]


def dr_grpo(rewards: ArrayLike) -> Floats:
    """R_i - mean(R), [N].

    Source: Dr. GRPO (arXiv 2503.20783, section 3.2): GRPO without the deviation, which favours easy and hard prompts.
    """
    reward = np.asarray(rewards, dtype=np.float64)
    return np.zeros_like(reward) if _are_alike(reward) else reward - reward.mean()


def grpo(rewards: ArrayLike, epsilon: float = 1e-6) -> Floats:
    """(R_i - mean(R)) / (std(R) + epsilon), [N].

    Source: GRPO (arXiv 2402.03300, section 4.1.2). The deviation is the sample's (N - 1), as in TRL and verl.
    """
    centred = dr_grpo(rewards)
    return centred / (centred.std(ddof=1) + epsilon) if centred.any() else centred


def rloo(rewards: ArrayLike) -> Floats:
    """R_i - mean of the other R_j, [N]; N / (N - 1) times `dr_grpo`.

    Source: RLOO (arXiv 2402.14740, equation 8).
    """
    centred = dr_grpo(rewards)
    return centred * (len(centred) / (len(centred) - 1)) if centred.any() else centred


def rae(rewards: ArrayLike, baseline: float, decay: float = 0.95) -> tuple[Floats, float]:
    """R_i - b, [N], and the baseline after these rewards: decay^N b + (1 - decay^N) mean(R).

    The baseline is read before it moves. Where it moves reward by reward, b <- decay b + (1 - decay) R, its end depends
    on their order; this is the mean over all orders, and the same for one reward, and for equal ones.

    Source: role-conditioned advantage estimation of SPIRAL (arXiv 2506.24119, algorithm 1; decay 0.95, b = 0 at first).
    """
    reward = np.asarray(rewards, dtype=np.float64)
    if not len(reward):
        return reward, baseline
    kept = decay ** len(reward)
    return reward - baseline, float(kept * baseline + (1 - kept) * reward.mean())


def spread(turn: RewardedTurn, advantage: float) -> NDArray[np.float32]:
    """One advantage for every token of a reply, [T]."""
    return np.full(turn.num_tokens, advantage, dtype=np.float32)


def _are_alike(values: Floats) -> bool:
    # Means are rounded: without this, equal rewards would differ from theirs and be blown up by a tiny deviation.
    return not len(values) or bool(values.min() == values.max())
