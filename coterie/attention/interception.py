"""Ordinary forward passes of a transformers model, with somebody listening to what its attention layers compute.

transformers looks attention up in a table by the name that the model's config holds. Meanwhile that name is one of
ours, whose function computes what SDPA computes, by the same kernel and on the same masks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from coterie.attention.stats import attention_with_lse

NAME = "coterie_sdpa"
"""What the config's attention implementation is called meanwhile."""
_FROM = ("sdpa", "eager", NAME)


@dataclass(frozen=True, slots=True)
class Attended:
    """What one attention layer computed for one batch."""

    layer: int
    query: Tensor
    """[B, Hq, T, D], as the softmax sees it: after norms and rotation."""
    key: Tensor
    """[B, Hk, S, D]; S > T where a cache went before."""
    output: Tensor
    """[B, T, Hq, Dv], before the output projection."""
    mask: Tensor | None
    """Bool [B, 1, T, S], or None: causal, or one query that sees every key."""
    window: int | None
    """How many tokens each query sees, itself among them; None: all before it."""
    scale: float
    lse: Tensor | None
    """[B, Hq, T], the log of each softmax's denominator in fp32, where it was asked for and comes for free."""


Listener = Callable[[Attended], Tensor | None]
"""Called after a layer's attention; a tensor it returns replaces the output."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ear:
    listener: Listener
    with_lse: bool


_ears: WeakKeyDictionary[nn.Module, list[_Ear]] = WeakKeyDictionary()
_layers: WeakKeyDictionary[nn.Module, dict[int, list[nn.Module]]] = WeakKeyDictionary()
"""Attention modules of models by layer: to look for them takes as long as some passes."""
_switched: WeakKeyDictionary[nn.Module, tuple[dict[str, str], int]] = WeakKeyDictionary()
"""Models that call us: what they called before, and for how many listeners. The last to go switches back."""
_lock = Lock()


@contextmanager
def listen(
    model: Any, listener: Listener, layers: Sequence[int] | None = None, *, with_lse: bool = False
) -> Iterator[None]:
    """Let a function hear, and change, what attention layers compute, in whatever forward passes are made meanwhile.

    The model is afterwards as it was, also after an exception. Listeners nest; the outer one is called first, and the
    inner one hears what it made of the output.

    Args:
        model: A causal language model of transformers (`PreTrainedModel`), on any device. What other threads do with
            it meanwhile is heard too.
        listener: Called once per layer and forward pass.
        layers: Their indices; all by default.
        with_lse: Whether it wants `Attended.lse`.

    Raises:
        ValueError: There is no such layer; or attention that SDPA cannot stand for: the model runs another
            implementation, or one that does not go through transformers' attention interface.
    """
    modules = _attention_modules(model, layers)
    _switch(model)
    ear = _Ear(listener, with_lse)
    try:
        for module in modules:
            _ears.setdefault(module, []).append(ear)
        yield
    finally:
        for module in modules:
            _ears[module].remove(ear)
        _switch_back(model)


def count_layers(model: Any) -> int:
    """The number of layers of a model's text part."""
    return int(model.config.get_text_config().num_hidden_layers)


def full_layers(model: Any) -> list[int]:
    """Indices of the layers whose queries may see every token before them: no window, no recurrence."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return [index for index, kind in enumerate(kinds) if kind == "full_attention"]


def _attention_modules(model: Any, layers: Sequence[int] | None) -> list[nn.Module]:
    count = count_layers(model)
    wanted = set(range(count) if layers is None else layers)
    if wrong := sorted(wanted - set(range(count))):
        raise ValueError(f"layers holds {wrong[0]}, expected 0 <= layer < {count}")
    if model not in _layers:
        found: dict[int, list[nn.Module]] = {}
        for module in model.modules():
            found.setdefault(getattr(module, "layer_idx", -1), []).append(module)
        _layers[model] = {layer: found.get(layer, []) for layer in range(count)}
    return [module for layer in sorted(wanted) for module in _layers[model][layer]]


def _switch(model: Any) -> None:
    with _lock:
        previous, listeners = _switched.get(model) or (_call_us(model), 0)
        _switched[model] = previous, listeners + 1


def _switch_back(model: Any) -> None:
    with _lock:
        previous, listeners = _switched.pop(model)
        if listeners > 1:
            _switched[model] = previous, listeners - 1
        else:
            model.config._attn_implementation = previous


def _call_us(model: Any) -> dict[str, str]:
    """Make the model call us, and say what it called before, as its config takes it.

    `set_attn_implementation` would do the same to the config, and walk through all modules, each time.
    """
    parts = {name: getattr(model.config, name) for name in model.config.sub_configs}
    previous = {"": model.config._attn_implementation} | {n: c._attn_implementation for n, c in parts.items() if c}
    if previous[""] not in _FROM:
        raise ValueError(
            f"model runs {previous['']} attention, expected sdpa or eager: model.set_attn_implementation('sdpa') first"
        )
    if not _can_be_switched(model.__class__):
        raise ValueError(f"model is a {type(model).__name__}, which does not use transformers' attention interface")
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.config._attn_implementation = NAME
    return previous


@functools.cache
def _can_be_switched(kind: Any) -> bool:
    """By the source of its file, which transformers reads."""
    return bool(kind._can_set_attn_implementation())


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers: [B, Hq, T, D], [B, Hk, S, D], [B, Hk, S, Dv] to [B, T, Hq, Dv]."""
    ears = _ears.get(module) or []
    if ears:
        _check(module, attention_mask, options)
        query, key, value = _as_computed(query, key, value)
    is_plain = attention_mask is None and query.shape[2] == key.shape[2] and not options.get("dropout")
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    lse = None
    if is_plain and any(ear.with_lse for ear in ears):
        output, lse = attention_with_lse(query, key, value, scale=scale)
        output = output.transpose(1, 2).contiguous()
    else:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    window = options.get("sliding_window")
    heard = Attended(module.layer_idx, query, key, output, attention_mask, window, scale, lse)
    for ear in ears:
        changed = ear.listener(heard)
        heard = heard if changed is None else replace(heard, output=changed)
    return heard.output, None


def _as_computed(*tensors: Tensor) -> list[Tensor]:
    """What SDPA makes of its inputs under autocast; rotated queries and keys come in float32."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    return [x if x.dtype == torch.float64 else x.to(torch.get_autocast_dtype(kind)) for x in tensors]


def _check(module: Any, mask: Any, options: dict[str, Any]) -> None:
    """Refuse what SDPA would leave out without a word, and masks with more to say than yes and no."""
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise ValueError(f"layer {module.layer_idx} has {name}, which is not part of plain softmax attention")
    if not (getattr(module, "is_causal", True) if options.get("is_causal") is None else options["is_causal"]):
        raise ValueError(f"layer {module.layer_idx} is not causal, expected a causal language model")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"attention_mask is {mask.dtype}, expected bool or a mask of shape [B, T]")
