"""What the learner of language models is told: plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from coterie.agents.learning.surrogates import PPOLoss, TokenLoss
from coterie.errors import ConfigError

Aggregation = Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm"]
Estimator = Literal["k1", "k2", "k3"]
CorrectionKind = Literal["token", "sequence", "geometric"]
Precision = Literal["auto", "float32", "bfloat16", "float64"]


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
        rank: Of the product that is added to each weight.
        alpha: It is multiplied by alpha / rank.
        targets: Names of the linear layers that get one; empty: all but the output's.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KLSettings:
    """What keeps a policy near the model it began as.

    Attributes:
        weight: Beta.
        estimator: See `kl`. k1 belongs into the reward, k2 into the loss, k3 into either.
        at: `loss`: the learner adds it. `reward`: whoever makes the advantages takes it from the reward.
    """

    weight: float
    estimator: Estimator = "k2"
    at: Literal["loss", "reward"] = "loss"

    def __post_init__(self) -> None:
        wrong = {("k1", "loss"): "expected gradient is zero", ("k2", "reward"): "value is no divergence"}
        reason = wrong.get((self.estimator, self.at))
        if reason:
            raise ConfigError(
                f"{self.estimator} is of no use in the {self.at}: its {reason}", where="learning.kl",
                remedy="take k2 in the loss, or k1 in the reward",
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CorrectionSettings:
    """How it is made up for that the engine's log-probabilities are not quite the learner's; see `correction`.

    Attributes:
        kind: What is bounded: each token's weight, their product over a reply, or its geometric mean.
        low: Least weight; None: no limit.
        high: Greatest weight.
        mask: Drop what is outside; else it is clamped.
        veto: A reply with a token of a smaller weight is dropped; None: none is.
    """

    kind: CorrectionKind = "token"
    low: float | None = None
    high: float = 2.0
    mask: bool = False
    veto: float | None = 1e-4

    def __post_init__(self) -> None:
        if self.low is not None and self.low > self.high:
            raise ConfigError(f"low {self.low} is above high {self.high}", where="learning.correction",
                              remedy="give the smaller bound first")  # fmt: skip


@dataclass(frozen=True, slots=True)
class CriticSettings:
    """What learns how much replies are going to earn; see `critic`.

    Attributes:
        learning_rate: Of its AdamW, which is otherwise as the policy's; about what a value moves by in a step.
        clip: How far a value may go in one update from what it was; None: no limit.
        weight: How much of its gradient goes on into the policy's own weights.
    """

    learning_rate: float = 0.05
    clip: float | None = 0.5
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class LLMSettings:
    """How policies learn from turns whose advantages are known.

    Attributes:
        lora: Train adapters; None: all weights.
        loss: What is minimised for each token.
        aggregation: How tokens become one number; see `aggregation`.
        norm_length: L of `seq_mean_token_sum_norm`.
        equal_roles: Each role is aggregated by itself, and all count alike.
        kl: None: no reference model is kept.
        correction: None: log-probabilities of engine and learner are taken for equal.
        critic: None: nobody expects anything of a reply.
        updates: Optimiser steps per rollout, over all epochs.
        epochs: Passes over a rollout.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        betas: Of AdamW.
        max_grad_norm: Greatest norm of the gradient.
        warmup: Optimiser steps over which the learning rate rises to its value.
        micro_batch_tokens: Tokens that go through the model at once, padding included; one turn always may.
        gradient_checkpointing: Compute activations again instead of keeping them.
        precision: What the model computes in; trained weights are float32 all the same. `auto`: bfloat16 on a GPU.
        ranks: Processes that hold a model together, or how many by policy, where those not named have one.
    """

    lora: LoraSettings | None = None
    loss: TokenLoss = field(default_factory=PPOLoss)
    aggregation: Aggregation = "token_mean"
    norm_length: int = 1024
    equal_roles: bool = True
    kl: KLSettings | None = None
    correction: CorrectionSettings | None = CorrectionSettings()
    critic: CriticSettings | None = None
    updates: int = 4
    epochs: int = 1
    learning_rate: float = 1e-6
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    warmup: int = 0
    micro_batch_tokens: int = 8192
    gradient_checkpointing: bool = False
    precision: Precision = "auto"
    ranks: int | Mapping[str, int] = 1

    def __post_init__(self) -> None:
        if self.updates % self.epochs:
            raise ConfigError(
                f"{self.updates} updates are no whole number for each of {self.epochs} epochs",
                where="learning.updates",
                remedy="set a multiple of epochs",
            )

    def num_ranks(self, policies: Sequence[str]) -> int:
        """Processes for a model that some policies share: as many as the greatest of them is to have."""
        if isinstance(self.ranks, int):
            return self.ranks
        return max(self.ranks.get(policy, 1) for policy in policies)
