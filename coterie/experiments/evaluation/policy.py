"""How good a trained policy is: whole episodes under chosen conditions, also under ones that it was never trained for.

Nothing learns here, nothing is replayed, and no curriculum makes a world easier. The episodes are other ones than those
of the training, whatever its seed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie import rng
from coterie.config.schema import WorldConfig
from coterie.errors import ConfigError, ResumeError
from coterie.experiments import provenance
from coterie.experiments.attempt import load_resolved
from coterie.experiments.comparison.learning_curves import SHARES
from coterie.experiments.evaluation.attention_tally import EVERY, AttentionTally
from coterie.experiments.evaluation.worlds import Cell, Conditions, cells_of, trained_in
from coterie.experiments.folder import RunFolder, write_json
from coterie.experiments.measures.summary import tidy
from coterie.experiments.measures.training_summary import training_facts
from coterie.experiments.records.training import Checkpoint, read_training
from coterie.experiments.statistics.inference import paired_bootstrap, wilson
from coterie.experiments.training import assembly
from coterie.journal import Journal
from coterie.types import World

if TYPE_CHECKING:
    from coterie.agents.learning.normalisation import NormalisedActor
    from coterie.agents.swarm.networks import Actor

    Policy = Actor | NormalisedActor

VERSION = 1
CHECKPOINTS = ("last", "best")
_MOST_AGENTS = 2048
"""That act at once."""
_RESAMPLES = 2000

Episode = dict[str, float | str]


def evaluate(
    folder: RunFolder, conditions: Conditions, *, command: str = "", say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Fly all cells and write `report/evaluation.json`; returns what it holds.

    Args:
        folder: Of a training run that has a checkpoint.
        conditions: What is flown.
        command: How it was asked for; kept beside the numbers.
        say: Told of each cell that is done.

    Raises:
        ConfigError: the run trained nothing, or the conditions do not go with its world.
        ResumeError: the checkpoint is damaged or gone.
    """
    cells = cells_of(find_checkpoint(folder, conditions.checkpoint)[0].env, conditions)
    config, checkpoint, policy = load_trained(folder, conditions.checkpoint)
    rows = []
    for number, cell in enumerate(cells, 1):
        rows.append(_evaluate(cell, policy, conditions))
        say(f"{number}/{len(cells)}  {cell}")
    [trained] = cells_of(config.env, Conditions())
    found: dict[str, Any] = tidy({
        "version": VERSION, "run": folder.path.name, "command": command,
        "checkpoint": {"which": conditions.checkpoint, "iteration": checkpoint.iteration, "sha256": checkpoint.hash},
        "conditions": asdict(conditions), "trained": trained.place, "training": _ending(folder), "cells": rows,
        "versions": provenance.versions(), "hardware": provenance.hardware(),
    })  # fmt: skip
    folder.report.mkdir(mode=0o700, exist_ok=True)
    write_json(folder.report / "evaluation.json", found)
    return found


def _ending(folder: RunFolder) -> dict[str, Any]:
    """What the training showed in the end, with actions that were drawn: see `training_facts`."""
    with Journal.read(folder.journal) as journal:
        found: dict[str, Any] = training_facts(read_training(journal))["training"]["final"]
    return found


def load_trained(folder: RunFolder, which: str) -> tuple[WorldConfig, Checkpoint, Policy]:
    """The config of a training run, its last or best checkpoint, and the policy in it, also while the run goes.

    Raises:
        ConfigError: as `find_checkpoint`.
        ResumeError: the checkpoint is damaged or gone.
    """
    config, checkpoint = find_checkpoint(folder, which)
    spec = trained_in(config.env)
    while True:
        try:
            return config, checkpoint, assembly.load_policy(folder, config, checkpoint, spec)
        except ResumeError as error:
            # A run that goes on has deleted it for a newer one, which is in the journal by then.
            tried, checkpoint = checkpoint, find_checkpoint(folder, which)[1]
            if checkpoint == tried:
                remedy = f"{error.remedy}{_tell_other(folder, which, checkpoint)}"
                raise ResumeError(error.what, where=error.where, remedy=remedy) from None


def _tell_other(folder: RunFolder, which: str, checkpoint: Checkpoint) -> str:
    """How to take the other checkpoint that is kept of a run, if there is one."""
    [other] = set(CHECKPOINTS) - {which}
    with contextlib.suppress(ConfigError):
        if find_checkpoint(folder, other)[1] != checkpoint:
            return f", or take the other checkpoint: --checkpoint {other}"
    return ""


def find_checkpoint(folder: RunFolder, which: str) -> tuple[WorldConfig, Checkpoint]:
    """The config of a training run, and its last or best checkpoint.

    Raises:
        ConfigError: it is no training run, there is no such checkpoint, or none yet.
    """
    config = load_resolved(folder).config
    if not isinstance(config, WorldConfig):
        raise ConfigError(
            "this is the run of a society, which trains nothing", where=str(folder.path), remedy="name a training run"
        )
    if which not in CHECKPOINTS:
        known = ", ".join(CHECKPOINTS)
        raise ConfigError(f"there is no checkpoint {which!r}", where="--checkpoint", remedy=f"known: {known}")
    with Journal.read(folder.journal) as journal:
        record = read_training(journal)
    checkpoint = record.last if which == "last" else record.best and record.best[0]
    if checkpoint is None:
        why = "no episode has ended before one" if record.last else "none was written"
        raise ConfigError(
            f"there is no {which} checkpoint yet: {why}", where=str(folder.path), remedy="train on: coterie resume"
        )
    return config, checkpoint


def _evaluate(cell: Cell, policy: Policy, conditions: Conditions) -> dict[str, Any]:
    start = time.monotonic()
    episodes, attention = fly(cell, policy, conditions)
    seconds = time.monotonic() - start
    row = {**cell.place, "episodes": len(episodes), "metrics": measure(episodes, conditions.seed), "seconds": seconds}
    return row if attention is None else {**row, "attention": attention}


def fly(cell: Cell, policy: Policy, conditions: Conditions) -> tuple[list[Episode], dict[str, Any] | None]:
    """The metrics of a cell's episodes, and what the policy attended to; see `AttentionTally.measure`.

    As many episodes are of each environment, or else short ones would crowd out long ones.
    """
    agents = cell.place["agents"] or 1
    num_envs = max(min(conditions.episodes, _MOST_AGENTS // agents), 1)
    world = cell.make(num_envs, rng.derive(conditions.seed, "evaluation"))
    rounds = -(-conditions.episodes // num_envs)
    tally = AttentionTally(policy, world.spec)
    try:
        found = _fly(world, policy, conditions, rounds, tally)
    finally:
        world.close()
    return [one[number] for number in range(rounds) for one in found][: conditions.episodes], tally.measure()


def _fly(
    world: World, policy: Policy, conditions: Conditions, rounds: int, tally: AttentionTally
) -> list[list[Episode]]:
    found: list[list[Episode]] = [[] for _ in range(world.num_envs)]
    act = _actor(world, policy, conditions)
    observation, tick = world.reset(), 0
    while any(len(one) < rounds for one in found):
        if tick % EVERY == 0:
            tally.look(observation)
        observation, _, _, _ = world.step(act(observation, tick))
        tick += 1
        over = world.done.copy()
        if over.any():
            for env, episode in zip(np.flatnonzero(over), world.finished(), strict=True):
                found[env].append(episode)
            observation = world.reset(over)
    return found


def _actor(world: World, policy: Policy, conditions: Conditions) -> Callable[[Any, int], Any]:
    """From observations [E, N, D] and a tick to actions."""
    import torch

    from coterie.agents.learning import draws
    from coterie.agents.swarm import distributions

    spec, device = world.spec, next(policy.parameters()).device
    is_discrete = spec.action == "discrete"
    count = world.num_envs * spec.num_agents
    shape = (count,) if is_discrete else (count, spec.action_size)
    draw = draws.uniforms if is_discrete else draws.normals

    @torch.no_grad()
    def act(observation: Any, tick: int) -> Any:
        seen = torch.as_tensor(observation, device=device).flatten(0, 1)
        distribution = policy.distribution(seen)
        if conditions.is_deterministic:
            action = distributions.mode(distribution)
        else:
            action = distributions.sample(distribution, draw(shape, device, conditions.seed, "evaluation", tick))
        return action.view(world.num_envs, spec.num_agents, *action.shape[1:]).cpu().numpy()

    return act


def measure(episodes: Sequence[Episode], seed: int) -> dict[str, dict[str, float | int]]:
    """Each metric's mean over the episodes that have it, with a bootstrap over these; `n` says how many they are.

    A share that is 0 or 1 in every episode, of which a bootstrap would be sure, has Wilson's interval.
    """
    names = sorted({name for one in episodes for name, value in one.items() if not isinstance(value, str)})
    found: dict[str, dict[str, float | int]] = {}
    for name in names:
        values = [float(one[name]) for one in episodes if name in one]
        if name in SHARES and set(values) in ({0.0}, {1.0}):
            estimate = wilson(sum(values), len(values))
        else:
            estimate = paired_bootstrap(values, np.zeros(len(values)), seed, _RESAMPLES)
        found[name] = {**asdict(estimate), "n": len(values)}
    return found
