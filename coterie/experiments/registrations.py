"""What this package registers. Strings only."""

from coterie.registry import register

_BACKENDS = "coterie.experiments.monitoring.tracker_backends"
_CONFIG = "coterie.experiments.monitoring.config"
register("tracker", "tensorboard", config=f"{_CONFIG}:TensorboardConfig", impl=f"{_BACKENDS}:TensorboardTracker",
         summary="event files in the run folder (extra: tensorboard)")  # fmt: skip
register("tracker", "wandb", config=f"{_CONFIG}:WandbConfig", impl=f"{_BACKENDS}:WandbTracker",
         summary="Weights & Biases, online or offline (extra: wandb)")  # fmt: skip
register("tracker", "mlflow", config=f"{_CONFIG}:MlflowConfig", impl=f"{_BACKENDS}:MlflowTracker",
         summary="an MLflow server, or a database in the run folder (extra: mlflow)")  # fmt: skip
