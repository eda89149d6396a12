"""The registered advantage estimators: which turns are compared, and by which formula of `advantage`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coterie.errors import CoterieError
from coterie.rewards import advantage
from coterie.rewards.advantage import Estimate, Floats, RewardedTurn, gather, spread
from coterie.rewards.gae import of_replies
from coterie.rewards.keys import ATTRIBUTES

if TYPE_CHECKING:
    from coterie.rewards.config_advantages import (
        AtGrpoConfig,
        DrGrpoConfig,
        DrMasConfig,
        GaeConfig,
        GrpoConfig,
        RaeConfig,
        ReinforcePlusPlusBaselineConfig,
        ReinforcePlusPlusConfig,
        RlooConfig,
    )


class ReinforcePlusPlus:
    """Token-weighted whitening of returns to go within each key."""

    def __init__(self, config: ReinforcePlusPlusConfig) -> None:
        self.config = config

    def estimate(self, turns: Sequence[RewardedTurn], memory: Mapping[str, float]) -> Estimate:
        """As `AdvantageEstimator.estimate`."""
        advantages: dict[str, NDArray[np.float32]] = {}
        for compared in gather(turns, self.config.by).values():
            advantages |= _whiten(compared, [advantage.returns_to_go(t) for t in compared], self.config.epsilon)
        return Estimate(advantages, {})


class ReinforcePlusPlusBaseline:
    """The group's mean is taken off first; the whitening then goes over all groups of a key."""

    def __init__(self, config: ReinforcePlusPlusBaselineConfig) -> None:
        self.config = config
        self._within = tuple(name for name in ATTRIBUTES if name in (*config.by, *config.within))

    def estimate(self, turns: Sequence[RewardedTurn], memory: Mapping[str, float]) -> Estimate:
        """As `AdvantageEstimator.estimate`."""
        advantages: dict[str, NDArray[np.float32]] = {}
        for compared in gather(turns, self.config.by).values():
            groups = gather(compared, self._within).values()
            alone = [group[0] for group in groups if len(group) == 1]
            advantages |= {turn.key: spread(turn, 0.0) for turn in alone}
            several = [turn for group in groups if len(group) > 1 for turn in group]
            centred = [gain for group in groups if len(group) > 1 for gain in advantage.dr_grpo(_nets(group))]
            values = [np.full(t.num_tokens, gain) for t, gain in zip(several, centred, strict=True)]
            advantages |= _whiten(several, values, self.config.epsilon)
        return Estimate(advantages, {})


class _Grouped:
    """Each key's rewards by a formula, one number to a reply."""

    def __init__(self, config: Any, formula: Callable[[Sequence[float]], Floats]) -> None:
        self.config, self._formula = config, formula

    def estimate(self, turns: Sequence[RewardedTurn], memory: Mapping[str, float]) -> Estimate:
        """As `AdvantageEstimator.estimate`."""
        groups = gather(turns, self.config.by).values()
        return _estimate([(group, self._formula(_nets(group))) for group in groups])


class Grpo(_Grouped):
    """Each key's rewards against their mean, by their standard deviation."""

    def __init__(self, config: GrpoConfig | DrMasConfig | AtGrpoConfig) -> None:
        super().__init__(config, partial(advantage.grpo, epsilon=config.epsilon))


class DrGrpo(_Grouped):
    """Each key's rewards against their mean."""

    def __init__(self, config: DrGrpoConfig) -> None:
        super().__init__(config, advantage.dr_grpo)


class Rloo(_Grouped):
    """Each of a key's rewards against the mean of the others."""

    def __init__(self, config: RlooConfig) -> None:
        super().__init__(config, advantage.rloo)


class Rae:
    """Each key's rewards against its running mean, which is the memory."""

    def __init__(self, config: RaeConfig) -> None:
        self.config = config

    def estimate(self, turns: Sequence[RewardedTurn], memory: Mapping[str, float]) -> Estimate:
        """As `AdvantageEstimator.estimate`; memory is named `policy/role`, or whatever keys are made of."""
        found, after = list[tuple[list[RewardedTurn], Floats]](), dict(memory)
        for key, compared in gather(turns, self.config.by).items():
            name = "/".join(key)
            gains, after[name] = advantage.rae(_nets(compared), memory.get(name, 0.0), self.config.decay)
            found.append((compared, gains))
        return Estimate(_estimate(found).advantages, after)


class Gae:
    """Token-weighted whitening, within each key, of what each token changed and what came of it, by a critic's values.

    A reply is an episode: its last token earns the reward, and nothing is to come after it.
    """

    def __init__(self, config: GaeConfig) -> None:
        self.config = config

    def estimate(self, turns: Sequence[RewardedTurn], memory: Mapping[str, float]) -> Estimate:
        """As `AdvantageEstimator.estimate`; its targets are advantages before the whitening, plus values.

        Raises:
            CoterieError: Also where values are missing.
        """
        advantages, targets = dict[str, NDArray[np.float32]](), dict[str, NDArray[np.float32]]()
        for compared in gather(turns, self.config.by).values():
            rewards, values = [advantage.token_rewards(t) for t in compared], [_values(t) for t in compared]
            found = of_replies(rewards, values, self.config.discount, self.config.trace)
            advantages |= _whiten(compared, [one.advantage for one in found], self.config.epsilon)
            targets |= {turn.key: one.target.astype(np.float32) for turn, one in zip(compared, found, strict=True)}
        return Estimate(advantages, {}, targets)


def _values(turn: RewardedTurn) -> Floats:
    if len(turn.values) != turn.num_tokens:
        raise CoterieError("gae needs the value of each token, and a turn has none", where=turn.key,
                           remedy="have a learner with a critic score it")  # fmt: skip
    return np.asarray(turn.values, dtype=np.float64)


def _nets(turns: Sequence[RewardedTurn]) -> list[float]:
    return [turn.net for turn in turns]


def _estimate(found: Sequence[tuple[Sequence[RewardedTurn], Floats]]) -> Estimate:
    """Of estimators that give one number to a reply."""
    pairs = (pair for turns, gains in found for pair in zip(turns, gains, strict=True))
    return Estimate({turn.key: spread(turn, float(gain)) for turn, gain in pairs}, {})


def _whiten(turns: Sequence[RewardedTurn], values: list[Floats], epsilon: float) -> dict[str, NDArray[np.float32]]:
    whitened = advantage.whiten(values, epsilon)
    return {turn.key: value.astype(np.float32) for turn, value in zip(turns, whitened, strict=True)}
