"""Configs of the trackers. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coterie.config.base import KindConfig, Secret


class TensorboardConfig(KindConfig):
    """Event files in the run folder; look at them with `tensorboard --logdir runs`."""

    kind: Literal["tensorboard"] = "tensorboard"
    dir: str = Field("tensorboard", min_length=1)
    """Where, relative to the run folder."""


class WandbConfig(KindConfig):
    """Weights & Biases."""

    kind: Literal["wandb"] = "wandb"
    project: str = Field("coterie", min_length=1)
    entity: str = ""
    """User or team; empty is your default one."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes into the run folder only; send it later with `wandb sync`."""


class MlflowConfig(KindConfig):
    """MLflow."""

    kind: Literal["mlflow"] = "mlflow"
    uri: Secret = ""
    """The tracking server or database; empty is `mlflow.db` (SQLite) in the run folder."""
    experiment: str = Field("coterie", min_length=1)
