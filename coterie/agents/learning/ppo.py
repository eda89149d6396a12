"""Proximal policy optimisation of one policy that many agents share: IPPO, and MAPPO with a critic of the team."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from coterie.agents.learning import draws, losses
from coterie.agents.learning.normalisation import NormalisedActor, ObservationNormaliser, ValueNormaliser
from coterie.agents.learning.settings import PPOSettings
from coterie.agents.learning.threads import Threads
from coterie.agents.swarm import distributions
from coterie.agents.swarm.networks import Actor, Critic
from coterie.agents.swarm.team import TeamCritic
from coterie.attention.mechanisms.auxiliary import auxiliary_losses
from coterie.cuda_graphs import Recorded
from coterie.errors import LearningError as LearningError
from coterie.errors import ResumeError

_ROWS_AT_ONCE = 2048
"""On a CPU: rows that one thread works at a time, which fit into its cache."""


class Batch(NamedTuple):
    """S agent-steps, those of a team in a row, N after N.

    Attributes:
        observation: float32 [S, D].
        action: float32 [S, A] or int64 [S].
        log_prob: Under the policy that acted, [S].
        advantage: Normalised, [S].
        value: What the critic said, in returns, [S].
        target: What it should have said, [S].
        alive: Whose steps count, bool [S].
        team_reward: What the teams earned on average, [S]; for a learner with a critic of that alone.
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    value: Tensor
    target: Tensor
    alive: Tensor
    team_reward: Tensor | None = None


class Gradient(NamedTuple):
    """What some rows of a minibatch teach; those of all its rows are the sum.

    Attributes:
        parameters: Of all parameters of the learner, in their order, [P].
        facts: The rows' share of the first five facts of an `Update`, [5].
    """

    parameters: Tensor
    facts: Tensor


@dataclass(frozen=True, slots=True)
class Update:
    """What an update did: means over all its gradient steps; `kl` and `clipped` over those of the last epoch.

    Attributes:
        policy_loss: See `losses`.
        value_loss: In variances of the target, if values are normalised.
        entropy: Of the policy, nats.
        kl: Between the policy that acted and this one, nats.
        clipped: Share of actions whose ratio left the clipping range.
        policy_gradient: Norm, before clipping.
        value_gradient: Likewise.
        learning_rate: Of the last epoch's end, with its decay.
    """

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float
    clipped: float
    policy_gradient: float
    value_gradient: float
    learning_rate: float


_POLICY_LOSS, _VALUE_LOSS, _ENTROPY, _KL, _CLIPPED, _POLICY_GRADIENT, _VALUE_GRADIENT = range(7)


class PPOLearner:
    """A policy, its critic, and all that their training has to remember.

    Rows are differentiated where they are, which may be elsewhere; gradients come back and are taken here.

    Attributes:
        parameters: Of actor and critics.
        threads: That work parts of a batch at once.

    Args:
        actor: Shared by all agents.
        critic: Central if `settings.central`.
        settings: How to learn.
        device: Where networks and batches are.
        team: What says who earned a team's reward, and learns it beside; None: nobody asks.
    """

    def __init__(
        self, actor: Actor, critic: Critic, settings: PPOSettings, device: str | torch.device = "cpu",
        team: TeamCritic | None = None,
    ) -> None:  # fmt: skip
        self.device, self.settings = torch.device(device), settings
        self.actor, self.critic = actor.to(self.device), critic.to(self.device)
        spec = actor.spec
        self.num_agents = spec.num_agents
        self.observations: ObservationNormaliser | None = None
        if settings.normalise_observations:
            self.observations = ObservationNormaliser(spec).to(self.device)
        self.values = ValueNormaliser().to(self.device) if settings.normalise_values else None
        self.team = None if team is None else team.to(self.device)
        self.team_rewards = None if team is None else ValueNormaliser().to(self.device)
        self.rate = settings.learning_rate
        self._least = math.log(settings.min_std) if settings.min_std else -math.inf
        self._networks: list[nn.Module] = [actor, critic, *([] if team is None else [team])]
        self.parameters = [parameter for network in self._networks for parameter in network.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=self.rate, eps=1e-5, fused=True)
        self.threads = Threads()
        if self.device.type != "cpu":
            self.threads.count = 1  # one queue of work
        most = 0 if actor.encoder.waits else 8
        self._acting, self._teaching = Recorded(self._act, most), Recorded(self._teach, most)

    @property
    def policy(self) -> Actor | NormalisedActor:
        """What acts, is evaluated and exported: the actor, behind the normaliser of observations if there is one."""
        return self.actor if self.observations is None else NormalisedActor(self.observations, self.actor)

    def act(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions for observations [B, D] and noise [B, A] or [B], with their log-probabilities [B]."""
        action, log_prob = self._acting(observation, noise)
        return action, log_prob

    @torch.no_grad()
    def _act(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        distribution = self.policy.distribution(observation)
        action = distributions.sample(distribution, noise)
        return action, distributions.log_prob(distribution, action)

    def judge(self, observation: Tensor) -> Tensor:
        """Returns that the critic expects of observations [S, D], N after N: [S]."""
        count = len(observation)
        if self.device.type != "cpu":
            # Powers of two, so that few sizes occur: for each the policy keeps who attends to whom.
            room = self.num_agents << (count // self.num_agents - 1).bit_length()
            observation = torch.nn.functional.pad(observation, (0, 0, 0, room - count))
        parts = torch.split(observation, self._at_once(len(observation)))
        values = torch.cat(self.threads.map(self._judge, parts))[:count]
        return values if self.values is None else self.values.restore(values)

    def _at_once(self, count: int) -> int:
        """Rows to work at a time: whole teams."""
        if self.device.type != "cpu":
            return max(count, 1)
        return max(_ROWS_AT_ONCE // self.num_agents, 1) * self.num_agents

    def _part(self, count: int) -> int:
        """Likewise, in parts of one size: a few rows more, as a shard's share of a minibatch has, are no part alone."""
        parts = max(math.ceil(count / self._at_once(count) - 0.25), 1)
        return math.ceil(count / parts / self.num_agents) * self.num_agents

    @torch.no_grad()
    def _judge(self, observation: Tensor) -> Tensor:
        return self._value(observation if self.observations is None else self.observations(observation))

    def apportion(self, observation: Tensor, action: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """What each agent earned, and its team on average, as the critic of team rewards sees it: [S] each.

        Both are off by what the team earns on average over time, and 0 as long as nothing was learnt.

        Args:
            observation: [S, D], N after N.
            action: [S, A], or int64 [S].
            alive: Who was there, bool [S].
        """
        size = self._at_once(len(observation))
        rows = zip(*(torch.split(part, size) for part in (observation, action, alive)), strict=True)
        found = self.threads.map(lambda part: self._apportion(*part), list(rows))
        parts, mean = (torch.cat(each) for each in zip(*found, strict=True))
        return parts, mean

    @torch.no_grad()
    def _apportion(self, observation: Tensor, action: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        assert self.team is not None and self.team_rewards is not None, "there is no critic of team rewards"
        seen = observation if self.observations is None else self.observations(observation)
        there, scale = alive.view(-1, self.num_agents), self.team_rewards.deviation
        added = scale * self.team(seen, action, there)
        mean = added.sum(1, keepdim=True).expand_as(added)
        return (added * there.sum(1, keepdim=True)).flatten(), mean.flatten()

    def weights(self) -> dict[str, Tensor]:
        """What was learnt, statistics of normalisers included; not copies."""
        parts: dict[str, nn.Module | None] = {
            "actor": self.actor, "critic": self.critic, "observations": self.observations, "values": self.values,
            "team": self.team, "team_rewards": self.team_rewards,
        }  # fmt: skip
        return {
            f"{part}.{name}": value
            for part, module in parts.items()
            if module is not None
            for name, value in module.state_dict().items()
        }

    def optimiser_state(self) -> dict[str, Tensor]:
        """What Adam remembers of each parameter, counted in the order of `weights`; not copies."""
        state = self.optimiser.state_dict()["state"]
        return {f"{index}.{name}": value for index, kept in state.items() for name, value in kept.items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what `weights` gave.

        Raises:
            ResumeError: They are of other networks.
        """
        here = self.weights()
        if {name: tuple(x.shape) for name, x in here.items()} != {name: tuple(x.shape) for name, x in weights.items()}:
            raise ResumeError("the weights are those of other networks",
                              remedy="use the policy and the learner with which they were made")  # fmt: skip
        with torch.no_grad():
            for name, value in here.items():
                value.copy_(weights[name])

    def load(self, weights: Mapping[str, Tensor], optimiser: Mapping[str, Tensor], rate: float) -> None:
        """Put back what `weights` and `optimiser_state` gave, and the learning rate.

        Raises:
            ResumeError: They are of other networks.
        """
        self.load_weights(weights)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in optimiser.items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.rate = rate

    def _value(self, observation: Tensor) -> Tensor:
        """From observations that are normalised."""
        team = observation.view(-1, self.num_agents, observation.shape[1]) if self.settings.central else None
        return self.critic(observation, team)  # type: ignore[no-any-return]

    def prepare(self, batch: Batch) -> Batch:
        """The same as `differentiate` takes it: with observations and values in the units of the networks."""
        if self.values is not None:
            batch = batch._replace(value=self.values.normalise(batch.value), target=self.values.normalise(batch.target))
        if self.observations is not None:
            batch = batch._replace(observation=self.observations(batch.observation))
        if self.team_rewards is not None and batch.team_reward is not None:
            batch = batch._replace(team_reward=self.team_rewards.normalise(batch.team_reward))
        return batch

    def update(
        self,
        alive: Tensor,
        differentiate: Callable[[Tensor, Tensor], Gradient],
        seed: int,
        iteration: int,
        remaining: float = 1.0,
    ) -> Update:
        """Gradient steps over a batch, in minibatches of agents, or of whole teams for a critic that sees them.

        Args:
            alive: Whose steps count, bool [S].
            differentiate: The gradient of a minibatch with the present weights, from its rows in the batch and the
                number of those that count.
            seed: Of the order of rows.
            iteration: Likewise.
            remaining: Share of the training that is still to come, from 1 to 0, for `PPOSettings.decay`.

        Raises:
            LearningError: A loss or gradient is no number.
        """
        epochs, decay = [], max(remaining, 0.0) if self.settings.decay else 1.0
        for epoch in range(self.settings.epochs):
            parts = self._minibatches(alive, seed, iteration, epoch)
            facts = [self._step(differentiate(rows, alive[rows].sum()), decay * self.rate) for rows in parts]
            epochs.append(torch.stack(facts).mean(0))
            self._check(epochs[-1])
            self.rate = losses.adapted_rate(self.rate, float(epochs[-1][_KL]), self.settings)
        every, last = torch.stack(epochs).mean(0).tolist(), epochs[-1].tolist()
        return Update(
            every[_POLICY_LOSS], every[_VALUE_LOSS], every[_ENTROPY], last[_KL], last[_CLIPPED],
            every[_POLICY_GRADIENT], every[_VALUE_GRADIENT], decay * self.rate,
        )  # fmt: skip

    def _minibatches(self, alive: Tensor, seed: int, iteration: int, epoch: int) -> list[Tensor]:
        size = self.num_agents if self.settings.central or self.team is not None else 1
        if self.device.type == "cpu":
            chosen = alive.view(-1, size).any(1).nonzero()[:, 0]
        else:  # all of them, so that there is one size to be recorded: those that do not count weigh nothing
            chosen = torch.arange(len(alive) // size, device=self.device)
        order = chosen[draws.permutation(len(chosen), self.device, seed, "minibatches", iteration, epoch)]
        rows = (order[:, None] * size + torch.arange(size, device=self.device)).flatten()
        count = max(round(len(rows) / self.settings.minibatch), 1)
        return [part.flatten() for part in rows.view(-1, size).tensor_split(count)]

    def _step(self, gradient: Gradient, rate: float) -> Tensor:
        """A gradient step; what it was like, [7]."""
        parts = torch.split(gradient.parameters, [parameter.numel() for parameter in self.parameters])
        for parameter, found in zip(self.parameters, parts, strict=True):
            parameter.grad = found.view_as(parameter)
        norms = [
            nn.utils.clip_grad_norm_(network.parameters(), self.settings.max_grad_norm) for network in self._networks
        ][:2]
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        if self.actor.log_std is not None:
            with torch.no_grad():
                self.actor.log_std.clamp_(min=self._least)
        return torch.cat([gradient.facts, torch.stack(norms)])

    def differentiate(self, batch: Batch, rows: Tensor, total: Tensor) -> Gradient:
        """What some rows of a batch that is prepared teach, in a minibatch of which `total` rows count."""
        if not len(rows):
            size = sum(parameter.numel() for parameter in self.parameters)
            return Gradient(torch.zeros(size, device=self.device), torch.zeros(5, device=self.device))
        parts = torch.split(rows, self._part(len(rows)))
        return add(self.threads.map(lambda part: self._differentiate(batch, part, total), parts))

    def _differentiate(self, batch: Batch, rows: Tensor, total: Tensor) -> Gradient:
        return Gradient(*self._teaching(*(numbers[rows] for numbers in batch if numbers is not None), total))

    def _teach(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """`differentiate` of all rows of a batch, whose fields are given, and of the total after them."""
        (*rows, total), settings = given, self.settings
        batch = Batch(*rows)
        weight = batch.alive / total
        with auxiliary_losses() as own:
            distribution = self.actor.distribution(batch.observation)
            value = self._value(batch.observation)
        log_ratio = distributions.log_prob(distribution, batch.action) - batch.log_prob
        entropy = (distributions.entropy(distribution) * weight).sum()
        surrogate = losses.policy_loss(log_ratio, batch.advantage, weight, settings.clip)
        error = losses.value_loss(value, batch.value, batch.target, weight, settings.value_clip)
        loss = surrogate - settings.entropy * entropy + error + self._team_loss(batch, weight)
        loss = loss + sum(own) * weight.sum()
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            kl, clipped = losses.divergence(log_ratio, weight), losses.clipped(log_ratio, weight, settings.clip)
            facts = torch.stack([surrogate, error, entropy, kl, clipped])
            return torch.cat([gradient.flatten() for gradient in gradients]), facts

    def _team_loss(self, batch: Batch, weight: Tensor) -> Tensor:
        """Half the mean square of what the critic of team rewards is off by: AREL's first term (arXiv 2201.04612)."""
        if self.team is None:
            return weight.new_zeros(())
        assert batch.team_reward is not None, "what teams earned was not told"
        there = batch.alive.view(-1, self.num_agents)
        foreseen = self.team(batch.observation, batch.action, there).sum(1)
        error = (foreseen[:, None] - batch.team_reward.view_as(there)).square()
        loss: Tensor = 0.5 * (error * weight.view_as(there)).sum()
        return loss

    def _check(self, facts: Tensor) -> None:
        if bool(facts.isfinite().all()):
            return
        names = ("policy loss", "value loss", "entropy", "divergence", "clipping", "policy gradient", "value gradient")
        broken = [name for name, value in zip(names, facts.tolist(), strict=True) if value - value != 0]
        raise LearningError(
            f"no number any more: {', '.join(broken)}",
            remedy="resume from the last checkpoint with a lower learning_rate, or a lower target_kl",
        )


def add(gradients: Sequence[Gradient]) -> Gradient:
    """Their sum, in this order."""
    first, *others = gradients
    return Gradient(
        sum((other.parameters for other in others), first.parameters),
        sum((other.facts for other in others), first.facts),
    )
