"""Experiment files: typed models (`schema`), and the loader (`load`) that reports every error with its line."""

from coterie.config.base import Config, KindConfig, OneOf, Secret
from coterie.config.schema import BudgetConfig, CreditConfig, ExperimentConfig, PolicyConfig, SamplingConfig, SeatConfig

__all__ = [
    "BudgetConfig", "Config", "CreditConfig", "ExperimentConfig", "KindConfig", "OneOf", "PolicyConfig",
    "SamplingConfig", "SeatConfig", "Secret",
]  # fmt: skip
