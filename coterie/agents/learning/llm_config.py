"""Config of the learner of language models. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from coterie import registry
from coterie.agents.learning.llm_settings import (
    Aggregation,
    CorrectionKind,
    CorrectionSettings,
    CriticSettings,
    Estimator,
    KLSettings,
    LLMSettings,
    LoraSettings,
)
from coterie.config.base import Config, KindConfig, OneOf


class LoraConfig(Config):
    """Low-rank adapters: a policy is a few million weights beside a model that it shares (arXiv 2106.09685)."""

    rank: int = Field(16, ge=1, le=512)
    """Of the product that is added to each weight."""
    alpha: float = Field(32.0, gt=0)
    """That product is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Names of the linear layers that get one, such as `q_proj`; empty: all but the output's."""


class KLConfig(Config):
    """What keeps a policy near the model it began as. A second model is held in memory, unless `lora` is set."""

    weight: float = Field(gt=0)
    """Beta."""
    estimator: Estimator = "k2"
    """k1 (log ratio), k2 (half its square) or k3 (never below zero). Only k1 and k3 are divergences as numbers, for the
    reward; only k2 and, nearly, k3 have the right gradient, for the loss."""
    at: Literal["loss", "reward"] = "loss"
    """Where it is added: to the loss, or taken from the reward of each token, before advantages."""

    @model_validator(mode="after")
    def _has_its_place(self) -> Self:
        if (self.estimator, self.at) in (("k1", "loss"), ("k2", "reward")):
            raise ValueError("take k2 or k3 in the loss, k1 or k3 in the reward: see `estimator`")
        return self


class CorrectionConfig(Config):
    """What makes up for that the engine's log-probabilities are not quite the learner's.

    The loss of each token is multiplied by the ratio of the two, within bounds.
    """

    kind: CorrectionKind = "token"
    """What is bounded: `token`, each token's ratio; `sequence`, their product over a reply; `geometric`, its mean."""
    low: float | None = Field(None, ge=0)
    """Least ratio; null: no limit."""
    high: float = Field(2.0, gt=0)
    """Greatest ratio."""
    mask: bool = False
    """Learn nothing from what is outside; else its ratio is set to the bound."""
    veto: float | None = Field(1e-4, gt=0)
    """Nothing is learnt from a reply with a token of a smaller ratio; null: no such limit."""

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.low is not None and self.low > self.high:
            raise ValueError("low is above high")
        return self


class PPOLossConfig(KindConfig):
    """The clipped surrogate, token by token (PPO, DAPO)."""

    kind: Literal["ppo"] = "ppo"
    clip_low: float = Field(0.2, gt=0, le=1)
    """How far a token's ratio may fall below 1."""
    clip_high: float = Field(0.28, gt=0)
    """How far it may rise above 1; more than `clip_low` (DAPO) keeps rare tokens alive."""
    dual_clip: float | None = Field(3.0, gt=1)
    """A bad token adds no more than this times its advantage (arXiv 1912.09729); null: no limit."""


class GSPOLossConfig(KindConfig):
    """The clipped surrogate with one ratio per reply (GSPO, arXiv 2507.18071)."""

    kind: Literal["gspo"] = "gspo"
    clip_low: float = Field(3e-4, gt=0, le=1)
    """How far the geometric mean of a reply's ratios may fall below 1."""
    clip_high: float = Field(4e-4, gt=0)
    """How far it may rise above 1."""


class CISPOLossConfig(KindConfig):
    """Log-probabilities weighted by a clipped ratio: every token keeps its gradient (CISPO, arXiv 2506.13585)."""

    kind: Literal["cispo"] = "cispo"
    clip_low: float = Field(1.0, gt=0, le=1)
    """How far the weight may fall below 1; 1 is no limit."""
    clip_high: float = Field(4.0, gt=0)
    """How far it may rise above 1."""


Ranks = Annotated[int, Field(ge=1, le=1024)]


class PolicyGradientConfig(KindConfig):
    """Policies of language models learn from what their turns were worth.

    `preset` fills in what is not given: `improved`, the defaults below, or `faithful`, what CoMAS (arXiv 2510.08529)
    ran: advantages of all roles in one pool, a plain PPO loss, no correction, many updates per rollout.
    """

    model_config = ConfigDict(defer_build=True)
    trains: ClassVar[str] = "society"

    kind: Literal["policy_gradient"] = "policy_gradient"
    preset: Literal["improved", "faithful"] = "improved"
    iterations: int = Field(30, ge=1)
    """Rollouts, each followed by an update of every policy."""
    tasks: int = Field(64, ge=1)
    """Tasks per rollout."""
    episodes_per_task: int = Field(4, ge=1)
    """Episodes of each task per rollout."""
    held_out: int = Field(0, ge=0)
    """The last so many tasks of the benchmark are never trained on: `coterie eval` asks them."""
    sharing: Literal["policy", "agent"] = "policy"
    """`policy`: seats with the same policy train it together. `agent`: every agent has one of its own."""
    lora: LoraConfig | None = None
    """Train low-rank adapters, one per policy, beside one model; null: all weights. They learn at about ten times the
    learning rate."""
    advantage: Annotated[KindConfig, OneOf("advantage")] = Field(default="reinforce++")  # type: ignore[assignment]
    """How rewards become advantages of turns. `faithful`: `{kind: reinforce++, by: [policy]}`."""
    loss: Annotated[KindConfig, OneOf("loss")] = Field(default="ppo")  # type: ignore[assignment]
    """What is minimised for each token. `faithful`: ppo with 0.2 on both sides and no dual clip."""
    aggregation: Aggregation = "token_mean"
    """How tokens become one loss: their mean; the mean of replies' means; the mean of replies' sums; or that over a
    constant length. All are counted over a whole optimiser batch."""
    norm_length: int = Field(1024, ge=1)
    """The length by which `seq_mean_token_sum_norm` divides."""
    equal_roles: bool = True
    """Each role's loss is aggregated by itself and all count alike; else the role that talks most counts most.
    `faithful`: false."""
    kl: KLConfig | None = None
    """Keeps policies near the model they began as; null: no reference model is held."""
    correction: CorrectionConfig | None = CorrectionConfig()
    """Makes up for what engine and learner differ by; null, and `faithful`: nothing does."""
    updates: int = Field(4, ge=1, le=1000)
    """Optimiser steps of each policy per rollout, over all epochs; a multiple of `epochs`. `faithful`: 24."""
    epochs: int = Field(1, ge=1, le=100)
    """Passes over a rollout."""
    learning_rate: float = Field(1e-6, gt=0, le=1)
    """Of AdamW."""
    weight_decay: float = Field(0.0, ge=0)
    """Of AdamW."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Of AdamW."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Greatest norm of a policy's gradient."""
    warmup: int = Field(0, ge=0)
    """Optimiser steps over which the learning rate rises to its value."""
    micro_batch_tokens: int = Field(8192, ge=1)
    """Tokens that go through the learner's model at once, padding included (one turn always may): less takes less
    memory, and changes no result."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the learner computes in; trained weights are float32 all the same. `auto`: bfloat16 on a GPU that has it,
    else float32, whatever the engine takes on a CPU."""
    ranks: Ranks | dict[str, Ranks] = 1
    """Processes that hold each policy's model together (FSDP2), or `{policy: processes}`, where those not named have
    one; on GPUs each process has one. Changes results by rounding only."""
    mask_cut: bool = True
    """Learn nothing from replies that were cut at their greatest length."""
    canary_limit: float | None = Field(None, ge=0, le=1)
    """The greatest `canary_score` of an iteration (see `canaries` of `comas`): above it the training ends before that
    iteration is learnt from. Null: it is said where judges give null answers more than half of what there is."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("preset") == "faithful":
            return {**_FAITHFUL, **data}
        return data

    @model_validator(mode="after")
    def _has_whole_epochs(self) -> Self:
        if self.updates % self.epochs:
            raise ValueError("updates must be a multiple of epochs")
        return self

    def build(self) -> LLMSettings:
        """The same as learners take it."""
        loss, lora, kl, correction = self.loss, self.lora, self.kl, self.correction
        critic: Config | None = getattr(self.advantage, "critic", None)
        return LLMSettings(
            lora=None if lora is None else LoraSettings(**lora.model_dump()),
            loss=registry.impl("loss", loss.kind)(**loss.model_dump(exclude={"kind"})),
            kl=None if kl is None else KLSettings(**kl.model_dump()),
            correction=None if correction is None else CorrectionSettings(**correction.model_dump()),
            critic=None if critic is None else CriticSettings(**critic.model_dump()),
            **{name: getattr(self, name) for name in _PLAIN},
        )


_PLAIN = (
    "aggregation", "norm_length", "equal_roles", "updates", "epochs", "learning_rate", "weight_decay", "betas",
    "max_grad_norm", "warmup", "micro_batch_tokens", "gradient_checkpointing", "precision", "ranks",
)  # fmt: skip
_FAITHFUL = {
    "advantage": {"kind": "reinforce++", "by": ["policy"]},
    "loss": {"kind": "ppo", "clip_low": 0.2, "clip_high": 0.2, "dual_clip": None},
    "equal_roles": False,
    "correction": None,
    "updates": 24,
}
