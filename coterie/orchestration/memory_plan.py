"""How much memory a training of language models takes on one device, worked out before anything is loaded.

Weights, gradients, the optimiser's state, adapters and caches are counted exactly, from the model's config. Activations
are an estimate: what autograd keeps of a Llama's layers, about nine hidden states and four inner ones for each token,
or one hidden state with gradient checkpointing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from coterie.agents.learning.llm_settings import LLMSettings

GIB = 1 << 30
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_LOGITS = 1 << 24
"""Of `agents.learning.forcing`: logits that are there at once; three tensors of that size in float32."""
_WORKING = 1.75
"""What a pass holds at its peak, as a multiple of what autograd keeps: measured on CPUs with SmolLM2-135M and adapters,
1.7 for 2000 tokens and 1.8 for 1200. The allocator gives little of it back between updates."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What memory depends on, read off a model's config.

    Attributes:
        parameters: In all.
        linear: In and out sizes of each linear layer that gets an adapter.
        hidden: Width.
        inner: Width of the inner layer.
        layers: How many.
        cached: Numbers of keys and values per token, over all layers.
        vocabulary: Tokens.
    """

    parameters: int
    linear: Sequence[tuple[int, int]]
    hidden: int
    inner: int
    layers: int
    cached: int
    vocabulary: int

    @classmethod
    def of(cls, folder: str, targets: Sequence[str] = ()) -> ModelSize:
        """The size of a model in a folder, or in the hub's cache; its weights are not read."""
        from transformers import AutoConfig

        return cls.of_config(AutoConfig.from_pretrained(folder), targets)

    @classmethod
    def of_config(cls, config: Any, targets: Sequence[str] = ()) -> ModelSize:
        """The same of a config of transformers."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        head = model.get_output_embeddings()
        linear = [
            (layer.in_features, layer.out_features)
            for name, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear)
            and layer is not head
            and (not targets or name.rpartition(".")[2] in targets)
        ]
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        cached = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * size
        parameters = sum(p.numel() for p in model.parameters())
        return cls(
            parameters, linear, config.hidden_size, config.intermediate_size, config.num_hidden_layers, cached,
            config.vocab_size,
        )  # fmt: skip

    def adapter(self, rank: int) -> int:
        """Parameters of one adapter."""
        return sum(rank * (before + after) for before, after in self.linear)


Phase = Literal["rollout", "update"]
PHASES: tuple[Phase, ...] = ("rollout", "update")
"""Of an iteration: engines generate, or learners learn."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes by what they are for, in order; `only` names the phase that an item is there in, if not in both."""

    items: Mapping[str, int]
    only: Mapping[str, Phase] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.items.values())

    def during(self, phase: Phase) -> int:
        """Those that are there in a phase."""
        return sum(size for name, size in self.items.items() if self.only.get(name, phase) == phase)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {tell(size)}" for name, size in self.items.items())
        return f"{tell(self.total)}: {parts}"


def plan_engine(
    size: ModelSize, dtype: str, cache: int, *, rank: int = 0, adapters: int = 0, parts: int = 1, sleeps: bool = False
) -> MemoryPlan:
    """An engine that generates, or the part of it on one device.

    Args:
        size: Of its model.
        dtype: Of its weights.
        cache: Bytes for keys and values.
        rank: Of its adapters.
        adapters: How many there is room for.
        parts: Devices that share its weights.
        sleeps: It holds nothing while policies learn.
    """
    width = _BYTES[dtype]
    items = {"weights": width * size.parameters // parts, "keys and values": cache}
    if adapters:
        items["adapters"] = width * adapters * size.adapter(rank)
    return MemoryPlan(items, dict.fromkeys(items, "rollout") if sleeps else {})


def plan_learner(size: ModelSize, settings: LLMSettings, dtype: str, policies: int, parts: int = 1) -> MemoryPlan:
    """A learner of one model, all of its weights for one policy or adapters for several; or one of its processes.

    Args:
        size: Of the model.
        settings: Of the learner.
        dtype: What it computes in.
        policies: That it trains.
        parts: Processes that share weights, gradients and moments; each has activations of its own.
    """
    width = _BYTES[dtype]
    if settings.lora is None:
        trained, weights = size.parameters, 4 * size.parameters
        reference = weights if settings.kl is not None else 0
    else:
        trained, weights, reference = policies * size.adapter(settings.lora.rank), width * size.parameters, 0
    gradients = 4 * (size.parameters if settings.lora is None else size.adapter(settings.lora.rank))
    items = {
        "weights": weights // parts,
        "gradients": gradients // parts,
        "optimiser": 8 * trained // parts,
        "activations (estimate)": _activations(size, settings, width),
        "logits": 3 * 4 * min(_LOGITS, settings.micro_batch_tokens * size.vocabulary),
    }
    items |= {"adapters": 4 * trained // parts} if settings.lora is not None else {}
    items |= {"critic": 4 * 4 * policies * (size.hidden + 1)} if settings.critic is not None else {}
    items |= {"reference": reference // parts} if reference else {}
    return MemoryPlan(items, dict.fromkeys(("gradients", "activations (estimate)", "logits"), "update"))


def _activations(size: ModelSize, settings: LLMSettings, width: int) -> int:
    layer = 9 * size.hidden + 4 * size.inner
    kept = size.layers * size.hidden + layer if settings.gradient_checkpointing else size.layers * layer
    return int(_WORKING * width * settings.micro_batch_tokens * kept)


def tell(size: float) -> str:
    """Bytes as a person reads them."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{math.ceil(size / (1 << 20))} MiB"
