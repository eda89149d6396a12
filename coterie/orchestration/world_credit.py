"""World credit: what of a team's reward each agent of a world learns from, at every step of a rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from coterie.agents.learning.ppo import PPOLearner
from coterie.envs.swarm.counterfactuals import Counterfactuals, Moment, keep
from coterie.envs.swarm.training import SwarmWorld
from coterie.errors import ConfigError
from coterie.orchestration.rollout import Rollout, find_parts
from coterie.rewards.credit import world as shares
from coterie.rewards.credit.world import Shares
from coterie.rng import stream
from coterie.types import World

if TYPE_CHECKING:
    from coterie.rewards.credit.config_world import AttentionShareConfig, DifferenceConfig, EqualConfig


class WorldCredit(Protocol):
    """A rule; built as `impl(config, world, learner, seed)`, for each shard.

    Attributes:
        conserves: Whether agents are given together what their team earned, at every step; it is checked.
    """

    @property
    def conserves(self) -> bool: ...

    def begin(self, iteration: int) -> None:
        """A rollout begins."""
        ...

    def watch(self, part: World, t: int) -> None:
        """The world, or a part of it, is about to make step t; in the thread of that part."""
        ...

    def share(self, rollout: Rollout) -> Shares:
        """What agents learn from instead of the rewards of a rollout that is full.

        Raises:
            PhysicsError: A simulation broke.
        """
        ...


def give(rule: WorldCredit, rollout: Rollout) -> Shares:
    """What a rule says of a rollout, held to what it promises.

    Raises:
        CreditError: It promises to conserve what teams earn, and does not.
    """
    found = rule.share(rollout)
    if rule.conserves:
        shares.check_conserved(found.reward, rollout.reward, rollout.alive)
    return found


class EqualCredit:
    """All agents of a team get the mean of what it earned."""

    conserves = True

    def __init__(self, config: EqualConfig, world: World, learner: PPOLearner, seed: int) -> None:
        pass

    def begin(self, iteration: int) -> None:
        """See `WorldCredit`."""

    def watch(self, part: World, t: int) -> None:
        """See `WorldCredit`."""

    def share(self, rollout: Rollout) -> Shares:
        """See `WorldCredit`."""
        return Shares(shares.share_equally(rollout.reward, rollout.alive))


class AttentionCredit(EqualCredit):
    """What the critic of team rewards says each agent earned; what it misses is shared equally. See `TeamCritic`."""

    def __init__(self, config: AttentionShareConfig, world: World, learner: PPOLearner, seed: int) -> None:
        self._learner = learner

    def share(self, rollout: Rollout) -> Shares:
        """See `WorldCredit`."""
        count, shape = rollout.alive.numel(), rollout.alive.shape
        rows = rollout.observation.flatten(0, 2)[:count], rollout.action.flatten(0, 2), rollout.alive.flatten()
        guess, foreseen = (found.view(shape) for found in self._learner.apportion(*rows))
        return Shares(shares.complete(guess, rollout.reward, rollout.alive), foreseen)


class DifferenceCredit:
    """What a team earned less what it would have earned had the agent done something else, simulated from where it was.

    Difference rewards: Wolpert and Tumer 2001 (the wonderful life utility), Agogino and Tumer 2008. The others do what
    they did. An agent that nobody met gets what it earned itself, where it is `removed`; else also what others earned
    or lost by its presence, so that sums over agents are not what teams earned.

    Raises:
        ConfigError: The world cannot be simulated from where it is.
    """

    conserves = False

    def __init__(self, config: DifferenceConfig, world: World, learner: PPOLearner, seed: int) -> None:
        self._config, self._seed, self._discount = config, seed, learner.settings.discount
        self._parts = [part for part in find_parts(world) if isinstance(part, SwarmWorld)]
        if len(self._parts) != len(find_parts(world)):
            raise ConfigError("this world cannot be asked what would have happened otherwise", where="credit.agent",
                              remedy="take `credit: {agent: equal}` or `attention`")  # fmt: skip
        self._otherwise = Counterfactuals(self._parts[0].config, world.num_envs, config.instead)
        self._chosen = np.zeros(learner.settings.rollout, np.bool_)
        self._moments: dict[tuple[int, int], Moment] = {}

    def begin(self, iteration: int) -> None:
        """Draw the steps that are simulated: the same ones in all environments and shards."""
        drawn = stream(self._seed, "credit", iteration).random(len(self._chosen))
        self._chosen, self._moments = drawn < self._config.fraction, {}

    def watch(self, part: World, t: int) -> None:
        """Keep where the part stands."""
        if self._chosen[t]:
            for index, one in enumerate(self._parts):
                if any(one is other for other in find_parts(part)):
                    self._moments[t, index] = keep(one.swarm)

    def share(self, rollout: Rollout) -> Shares:
        """See `WorldCredit`."""
        mean = shares.average(rollout.reward, rollout.alive)
        found = torch.zeros(rollout.reward.shape, dtype=torch.float64, device=mean.device)
        over = rollout.truncated | (rollout.terminated | ~rollout.alive).all(2)
        for t in np.flatnonzero(self._chosen).tolist():
            found[t] = self._differ(rollout, t, over)
        chosen = torch.from_numpy(self._chosen)
        filled = shares.fill_steps(found, chosen, mean, _begins(over), self._config.fraction)
        return Shares((filled * rollout.alive).float())

    def _differ(self, rollout: Rollout, t: int, over: Tensor) -> Tensor:
        """What teams earned from step t on, less what they would have earned: a mean for each agent, [E, N]."""
        self._otherwise.begin([self._moments[t, index] for index in range(len(self._parts))])
        steps = range(t, min(t + self._config.horizon, rollout.steps))
        without = np.stack([self._otherwise.step(rollout.action[s].cpu().numpy()) for s in steps])
        rows = slice(t, steps.stop)
        earned = shares.earn_together(rollout.reward[rows], rollout.alive[rows])
        ended = over[rows].int().cumsum(0) - over[rows].int()
        return shares.weigh_window(earned - torch.from_numpy(without).to(earned.device), ended == 0, self._discount)


def _begins(over: Tensor) -> Tensor:
    """Where episodes begin, [T, E]; at the first step nothing is known of earlier ones."""
    return torch.cat([torch.ones_like(over[:1]), over[:-1]])
