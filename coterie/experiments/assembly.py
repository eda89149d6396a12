"""From the sections of a world's experiment file to what trains: world, networks, learner, trainer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from coterie import registry
from coterie.config.load import Loaded
from coterie.config.schema import WorldConfig
from coterie.errors import ConfigError, ResumeError
from coterie.experiments.folder import RunFolder
from coterie.experiments.training_record import Checkpoint, check_checkpoint
from coterie.types import World, WorldSpec

if TYPE_CHECKING:
    from coterie.agents.learning.normalisation import NormalisedActor
    from coterie.agents.learning.ppo import PPOLearner
    from coterie.agents.swarm.networks import Actor
    from coterie.orchestration.trainer import Trainer


def make_world(loaded: Loaded) -> World:
    """The world of an experiment file.

    Raises:
        InvalidConfig: the world refused its config, at the place where that is written.
        EnvironmentMissing: a package is missing.
    """
    config = loaded.config
    assert isinstance(config, WorldConfig)
    try:
        world: World = registry.impl("env", config.env.kind)(config.env, config.seed)
    except ConfigError as error:
        raise loaded.place(error, "env") from None
    return world


def make_trainer(loaded: Loaded, world: World) -> Trainer:
    """A trainer before its first iteration.

    Raises:
        InvalidConfig: the policy does not fit the world.
    """
    from coterie.orchestration.trainer import Trainer

    config = loaded.config
    assert isinstance(config, WorldConfig)
    be_exact(config.determinism == "exact")
    try:
        learner = make_learner(config, world.spec)
    except ConfigError as error:
        raise loaded.place(error, "policy") from None
    return Trainer(world, learner, config.seed)


def make_learner(config: WorldConfig, spec: WorldSpec) -> PPOLearner:
    """Fresh networks, and what trains them, for any world of this form.

    Raises:
        ConfigError: the policy does not fit the world.
    """
    from coterie.agents.swarm.networks import Critic

    policy, learning = cast(Any, config.policy), cast(Any, config.learning)
    architecture, settings = policy.build(), learning.build()
    actor = registry.impl("policy", config.policy.kind)(architecture, spec, config.seed)
    critic = Critic(architecture, spec, central=settings.central, seed=config.seed)
    learner: PPOLearner = registry.impl("learner", config.learning.kind)(actor, critic, settings, find_device())
    return learner


def find_device() -> str:
    """Where networks are: on a GPU, if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def be_exact(is_exact: bool) -> None:
    """Whether a GPU is to give the same bits each time, at some cost in speed; a CPU does anyway."""
    if is_exact:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.use_deterministic_algorithms(is_exact)


def load_policy(
    folder: RunFolder, config: WorldConfig, checkpoint: Checkpoint, spec: WorldSpec
) -> Actor | NormalisedActor:
    """The policy of a checkpoint: it acts in any world of the same form, whatever the number of agents.

    Args:
        folder: Of the run.
        config: Of the run.
        checkpoint: One of its checkpoints that is still there.
        spec: The world it was trained in.

    Raises:
        ResumeError: the checkpoint is damaged, gone, or of other networks.
    """
    import torch

    from coterie.orchestration import checkpoints
    from coterie.orchestration.trainer import WEIGHTS

    check_checkpoint(folder, checkpoint)
    path = folder.checkpoints / checkpoint.name
    files, _ = checkpoints.read(path, [WEIGHTS])
    learner, weights = make_learner(config, spec), files[WEIGHTS]
    here = learner.weights()
    if {name: tuple(x.shape) for name, x in here.items()} != {name: tuple(x.shape) for name, x in weights.items()}:
        raise ResumeError("the weights are those of other networks", where=str(path), remedy="start a new run")
    with torch.no_grad():
        for name, value in here.items():
            value.copy_(weights[name])
    return learner.policy
