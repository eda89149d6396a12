"""Configs of the executors. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coterie.config.base import KindConfig


class ExecutorConfig(KindConfig):
    """What every executor has. None of it changes a fact of a run, only when and where the work is done."""

    episodes: int = Field(512, ge=1)
    """How many episodes are open at once, in all workers together. Of a society alone."""
    deadline: float = Field(600.0, gt=0)
    """Seconds an engine, or a worker of a training, may take for one call before it counts as hung."""
    attempts: int = Field(3, ge=1)
    """How often a request is tried, and how often in a row a worker is replaced, before the run fails."""


class LocalConfig(ExecutorConfig):
    """Everything in this process."""

    kind: Literal["local"] = "local"


class RayConfig(ExecutorConfig):
    """Episodes, or the shards of a training, in Ray workers, engines as actors; the driver keeps the journal."""

    kind: Literal["ray"] = "ray"
    address: str = "local"
    """`local` starts a private cluster on this machine; `auto` or HOST:PORT joins one (which must ask for a token)."""
    workers: int = Field(2, ge=1)
    replicas: int = Field(1, ge=1)
    """Engine actors for each policy's engine."""
    worker_cpus: float = Field(0.0, ge=0)
    """CPUs that Ray reserves for each worker, and in a training as many threads; 0 reserves none, and is one thread."""
    worker_gpus: float = Field(0.0, ge=0)
    """GPUs, likewise; in a training the worker's networks are on them."""
    engine_cpus: float = Field(0.0, ge=0)
    """CPUs for each engine actor."""
    engine_gpus: float = Field(0.0, ge=0)
    learner_cpus: float = Field(0.0, ge=0)
    """CPUs for each learner of a society's training, and as many threads; 0 reserves none, and is as many threads as
    the driver has."""
    learner_gpus: float = Field(0.0, ge=0)
    """GPUs, likewise."""
    learner_deadline: float = Field(3600.0, gt=0)
    """Seconds a learner may take for one call, such as all updates of a policy after a rollout, before it counts as
    hung."""
    heartbeat: float = Field(30.0, ge=0.5)
    """Seconds after which an actor that answers nothing at all is named and replaced. Of a society alone."""
