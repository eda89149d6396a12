"""The trackers that come with Coterie. Each imports its package when it starts."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coterie.config.references import resolve_secret
from coterie.errors import EnvironmentMissing
from coterie.experiments.monitoring.config import MlflowConfig, TensorboardConfig, WandbConfig

# What MLflow takes in a metric's name, the length of a parameter, and the parameters of one request.
_ODD = re.compile(r"[^\w./ -]")
_PARAM_CHARS = 500
_PARAMS_AT_ONCE = 100


class TensorboardTracker:
    """Scalars as event files. A resumed run adds a file; TensorBoard reads them as one."""

    def __init__(self, config: TensorboardConfig) -> None:
        self._config = config

    def start(self, run_name: str, config: Mapping[str, Any], folder: Path) -> None:
        """Open an event file."""
        from tensorboard.summary import Writer

        target = folder / self._config.dir
        target.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(str(target))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one scalar per metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Close the file."""
        self._writer.close()


class WandbTracker:
    """A W&B run whose id is the run folder's name, so that a resumed run continues it."""

    def __init__(self, config: WandbConfig) -> None:
        self._config = config

    def start(self, run_name: str, config: Mapping[str, Any], folder: Path) -> None:
        """Open the run.

        Raises:
            EnvironmentMissing: online, and there are no credentials.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        is_online = self._config.mode == "online"
        if is_online and not wandb.login(prompt=False):
            raise EnvironmentMissing(
                "Weights & Biases does not know you", where="track",
                remedy="run `wandb login`, or use `track: [{kind: wandb, mode: offline}]`",
            )  # fmt: skip
        self._run = wandb.init(
            project=self._config.project,
            entity=self._config.entity or None,
            name=run_name,
            id=run_name,
            # Offline there is nothing to ask whether the run exists; `wandb sync` joins the parts by their id.
            resume="allow" if is_online else None,
            dir=folder,
            mode=self._config.mode,
            config=dict(config),
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, init_timeout=60
            ),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send one point."""
        self._run.log(dict(metrics), step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Send the summary and close the run."""
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=1 if summary["status"] == "failed" else 0)


class MlflowTracker:
    """An MLflow run, found again by its tag `coterie.run` when the run is resumed. Uses no global MLflow state."""

    def __init__(self, config: MlflowConfig) -> None:
        self._config = config

    def start(self, run_name: str, config: Mapping[str, Any], folder: Path) -> None:
        """Open the run, or open it again."""
        # Without these an unreachable server is tried for many minutes, and MLflow reports its use to its makers.
        for name, value in (
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ):  # fmt: skip
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        uri = resolve_secret(self._config.uri) or f"sqlite:///{folder / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._experiment(folder)
        known = self._client.search_runs([experiment], f"tags.`coterie.run` = '{run_name}'", max_results=1)
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(experiment, run_name=run_name, tags={"coterie.run": run_name}).info.run_id
        self._log_params(config)

    def _experiment(self, folder: Path) -> str:
        name = self._config.experiment
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        # A database in the run folder keeps its artifacts there too; a server knows where its own belong.
        place = None if self._config.uri else (folder / "mlartifacts").as_uri()
        return str(self._client.create_experiment(name, artifact_location=place))

    def _log_params(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:_PARAM_CHARS]) for key, value in flatten(config)]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[start : start + _PARAMS_AT_ONCE])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send one point."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(_ODD.sub("_", n), v, now, step) for n, v in metrics.items()])

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Close the run."""
        self._client.set_tag(self._id, "coterie.status", str(summary["status"]))
        self._client.set_terminated(self._id, "FAILED" if summary["status"] == "failed" else "FINISHED")


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings and lists as pairs of `a.b.0` and value."""
    for name, value in config.items():
        path = f"{prefix}{_ODD.sub('_', str(name))}"
        if isinstance(value, list | tuple):
            value = {str(i): item for i, item in enumerate(value)}
        if isinstance(value, Mapping):
            yield from flatten(value, f"{path}.")
        else:
            yield path, value
