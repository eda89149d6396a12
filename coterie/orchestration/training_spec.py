"""What a training is made of: worlds, networks and learner, here or in another process. Imports nothing heavy."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from coterie import registry
from coterie.config.base import KindConfig
from coterie.config.schema import WorldConfig
from coterie.errors import ConfigError, EnvironmentMissing
from coterie.types import World, WorldSpec

if TYPE_CHECKING:
    from coterie.agents.learning.ppo import PPOLearner
    from coterie.orchestration.shards import Shard

_KINDS = {"env": "env", "policy": "policy", "learning": "learner", "credit": "world_credit"}


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """Everything needed to make a shard of a training. Its fields are those of `WorldConfig`.

    Attributes:
        exact: Whether `determinism` is.
        num_shards: The environments are cut into so many.
        credit: Of `WorldCreditConfig` the rule; None: each agent learns from what the world gives it.
    """

    env: KindConfig
    policy: KindConfig
    learning: KindConfig
    seed: int
    exact: bool
    device: str
    num_shards: int
    credit: KindConfig | None = None

    @classmethod
    def of(cls, config: WorldConfig) -> TrainingSpec:
        """What an experiment file asks for."""
        exact, shards = config.determinism == "exact", getattr(config.learning, "shards", None) or 1
        credit = None if config.credit is None else config.credit.agent
        return cls(config.env, config.policy, config.learning, config.seed, exact, config.device, shards, credit)

    def pack(self) -> dict[str, Any]:
        """The spec as plain data, for a process that has not imported the configs' plugins yet; `unpack` reads it."""
        given = {name: getattr(self, name) for name in _KINDS}
        parts = {name: None if one is None else one.model_dump(mode="json") for name, one in given.items()}
        return {field.name: getattr(self, field.name) for field in fields(self)} | parts

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> TrainingSpec:
        """The spec that was packed."""
        parts = {
            name: registry.load(registry.get(kind, packed[name]["kind"]).config).model_validate(packed[name])
            for name, kind in _KINDS.items()
            if packed[name] is not None
        }
        return cls(**{**packed, **parts})

    def make_world(self, shard: int = 0, device: str = "cpu") -> tuple[World, int]:
        """The environments of one shard, and the index of the first; on the policy's device if they can be there.

        Raises:
            ConfigError: The world refused its config, or cannot be cut.
            EnvironmentMissing: A package is missing.
        """
        make = registry.impl("env", self.env.kind)
        takes = inspect.signature(make).parameters
        place = {"device": device} if "device" in takes else {}
        if self.num_shards == 1:
            return make(self.env, self.seed, **place), 0
        if "first_env" not in takes:
            raise ConfigError(
                f"worlds of kind {self.env.kind} cannot be cut into shards, for they take no `first_env`",
                where="env.kind", remedy="take `learning: {shards: 1}`",
            )  # fmt: skip
        total = cast(Any, self.env).num_envs
        low, high = (total * edge // self.num_shards for edge in (shard, shard + 1))
        return make(self.env.model_copy(update={"num_envs": high - low}), self.seed, first_env=low, **place), low

    def make_learner(self, spec: WorldSpec, device: str) -> PPOLearner:
        """Fresh networks on a device, and what trains them, for any world of this form.

        Raises:
            ConfigError: The policy does not fit the world.
        """
        from coterie.agents.swarm.networks import Critic
        from coterie.agents.swarm.team import TeamCritic

        policy, learning = cast(Any, self.policy), cast(Any, self.learning)
        architecture, settings = policy.build(), learning.build()
        actor = registry.impl("policy", self.policy.kind)(architecture, spec, self.seed)
        critic = Critic(architecture, spec, central=settings.central, seed=self.seed)
        made, rule = registry.impl("learner", self.learning.kind), cast(Any, self.credit)
        team = [TeamCritic(architecture, spec, rule.heads, self.seed)] if getattr(rule, "has_critic", False) else []
        learner: PPOLearner = made(actor, critic, settings, device, *team)
        return learner

    def make_shard(self, world: World, learner: PPOLearner, first_env: int) -> Shard:
        """The environments of one shard, with what they learn by.

        Raises:
            ConfigError: The rule of credit does not fit the world.
        """
        from coterie.orchestration.shards import Shard

        if (credit := self.credit) is None:
            return Shard(world, learner, self.seed, first_env)
        rule = registry.impl("world_credit", credit.kind)(credit, world, learner, self.seed)
        return Shard(world, learner, self.seed, first_env, rule)


def find_device(wanted: str = "auto") -> str:
    """Where networks are: `auto` is on a GPU, if there is one.

    Raises:
        EnvironmentMissing: `cuda` is wanted, and torch finds none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        why = "it finds no GPU" if torch.version.cuda else "it is built without CUDA"
        raise EnvironmentMissing(
            f"torch {torch.__version__} cannot use a GPU: {why}", where="device: cuda",
            remedy="take `device: cpu` or `auto`; `coterie doctor` tells what is installed",
        )  # fmt: skip
    return "cuda" if has_gpu and wanted != "cpu" else "cpu"


def be_exact(is_exact: bool) -> None:
    """Whether a GPU is to give the same bits each time, at some cost in speed; a CPU does anyway."""
    if is_exact:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.use_deterministic_algorithms(is_exact)
