"""From the sections of a world's experiment file to what trains: world, networks, learner, trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from coterie.config.load import Loaded
from coterie.config.schema import WorldConfig
from coterie.errors import ConfigError, ResumeError, WorkerLost
from coterie.experiments.folder import RunFolder
from coterie.experiments.records.training import Checkpoint, check_checkpoint
from coterie.orchestration.training_spec import TrainingSpec, be_exact, find_device
from coterie.types import WorldSpec

if TYPE_CHECKING:
    from coterie.agents.learning.normalisation import NormalisedActor
    from coterie.agents.swarm.networks import Actor
    from coterie.orchestration.crew import Crew
    from coterie.orchestration.trainer import Trainer


def settle_shards(loaded: Loaded, begun: Mapping[str, Any] | None) -> Loaded:
    """With a number of shards, if the file gives none: that with which the run began.

    One that begins on Ray has as many as workers, or as environments if those are fewer.

    Args:
        loaded: The experiment.
        begun: The fact `run`; None: the run begins.
    """
    config = cast(Any, loaded.config)
    if getattr(config.learning, "shards", 1) is not None:
        return loaded
    if begun is not None:
        shards = begun["config"]["learning"].get("shards")
    else:
        shards = min(config.executor.workers, config.env.num_envs) if config.executor.kind == "ray" else None
    learning = config.learning.model_copy(update={"shards": shards})
    return replace(loaded, config=config.model_copy(update={"learning": learning}))


def place_of(config: WorldConfig) -> str:
    """Where the policy learns, in words.

    Raises:
        EnvironmentMissing: a GPU is wanted here, and there is none.
    """
    executor = cast(Any, config.executor)
    if executor.kind == "local":
        return find_device(config.device)
    return f"a Ray cluster ({executor.address}) with at most {executor.workers} workers"


def preparation_of(config: WorldConfig) -> str:
    """What is waited for until the first iteration, in words."""
    executor, note = cast(Any, config.executor), getattr(config.env, "first_use", "")
    making = "making the world"
    if executor.kind != "local":
        making = f"starting Ray and at most {executor.workers} workers, which make the world"
    return f"{making}; {note}" if note else making


def make_crew(loaded: Loaded, on_loss: Callable[[WorkerLost], None]) -> Crew:
    """Worlds, networks and those who work them, as the executor says.

    Args:
        loaded: The experiment.
        on_loss: Told of each worker that was lost and is replaced.

    Raises:
        InvalidConfig: the world or the policy refused its config, at the place where that is written.
        EnvironmentMissing: a package is missing, a GPU or a cluster.
    """
    config = loaded.config
    assert isinstance(config, WorldConfig)
    spec = TrainingSpec.of(config)
    try:
        if config.executor.kind == "local":
            return _make_local(spec)
        from coterie.orchestration.ray.crew import RayCrew

        imports = [str(loaded.base / name) if name.endswith(".py") else name for name in config.imports]
        return RayCrew(cast(Any, config.executor), spec, imports, on_loss)
    except ConfigError as error:
        raise loaded.place(error, "policy" if error.where.startswith("policy") else "env") from None


def _make_local(spec: TrainingSpec) -> Crew:
    from coterie.orchestration.crew import LocalCrew

    be_exact(spec.exact)
    device = find_device(spec.device)
    worlds = [spec.make_world(index, device) for index in range(spec.num_shards)]
    try:
        learner = spec.make_learner(worlds[0][0].spec, device)
        return LocalCrew([spec.make_shard(world, learner, first) for world, first in worlds], learner)
    except BaseException:
        for world, _ in worlds:
            world.close()
        raise


def make_trainer(loaded: Loaded, crew: Crew) -> Trainer:
    """A trainer before its first iteration."""
    from coterie.orchestration.trainer import Trainer

    return Trainer(crew, loaded.config.seed)


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
    check_checkpoint(folder, checkpoint)
    from coterie.orchestration import checkpoints
    from coterie.orchestration.trainer import WEIGHTS

    path = folder.checkpoints / checkpoint.name
    files, _ = checkpoints.read(path, [WEIGHTS])
    learner = TrainingSpec.of(config).make_learner(spec, find_device())
    try:
        learner.load_weights(files[WEIGHTS])
    except ResumeError as error:
        raise ResumeError(error.what, where=str(path), remedy="start a new run") from None
    return learner.policy
