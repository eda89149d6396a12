"""A mechanism of the literature in the place of a transformers model's attention, in training and scoring.

Projections and rotation of queries and keys stay the model's; what comes after them is the mechanism's.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from coterie.attention.mechanisms.base import Context, Heads, Mechanism, Options, reason_of

NAME = "coterie_mechanism"
"""What the config's attention implementation is called."""

_hidden = threading.local()
"""`states`: what the attention layer that this thread is in was given."""


def replace_attention(model: Any, mechanism: Options, seed: int = 0) -> None:
    """Make every attention layer of a causal language model compute a mechanism, causally.

    The mechanism's parameters become the layers' own (`self_attn.mechanism`), drawn from `seed`. From then on the model
    takes whole sequences: `use_cache=False`, and no attention mask. Padding on the right changes no output of other
    tokens; a mechanism's own losses and counts include it. `save_pretrained` does not keep what was replaced: a state
    dict is loaded into a model whose attention was replaced alike.

    Args:
        model: Of transformers, with its attention interface.
        mechanism: One that is causal and needs no more than hidden states.
        seed: Of the first weights.

    Raises:
        ValueError: The mechanism does not fit; what it lacks is named. Or the model projects queries, keys and values
            at once.
    """
    layers = [module for module in model.modules() if hasattr(module, "layer_idx") and hasattr(module, "q_proj")]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no attention layer with a projection for queries alone (q_proj), as Llama's "
            "have: give a model that has"
        )
    name, config = mechanism.about.name, model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = Heads(config.num_attention_heads, config.num_key_value_heads, width, config.hidden_size)
    if not isinstance(mechanism, Mechanism):
        raise ValueError(f"{name} does not fit a language model: it pools or weighs features and has no queries")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            made = [mechanism.module(heads) for _ in layers]
            _try(mechanism.module(heads).eval(), heads)
        except ValueError as refusal:
            raise ValueError(f"{name} does not fit a language model: {reason_of(refusal)}") from None
    for layer, module in zip(layers, made, strict=True):
        layer.mechanism = module.to(layer.q_proj.weight)
        layer.register_forward_pre_hook(_remember, with_kwargs=True)
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation(NAME)


@torch.no_grad()
def _try(module: nn.Module, heads: Heads, tokens: int = 8) -> None:
    """Whether it can be called, and leaves the second of two sequences alone when the first one changes."""
    shapes = [(n, tokens, heads.width) for n in (heads.queries, heads.keys, heads.keys)] + [(tokens, heads.features)]
    second = [torch.randn(shape) for shape in shapes]
    found = []
    for _ in range(2):
        *inputs, features = (torch.stack([torch.randn_like(x), x]) for x in second)
        found.append(module(*inputs, _describe(features))[1])
    before, after = found
    if not torch.allclose(before, after, atol=1e-4):
        raise ValueError("what a sequence gets depends on the other sequences of its batch")


def _describe(states: Tensor) -> Context:
    """What a layer knows of tokens with these hidden states [B, T, C]; a sequence is a grid of one axis."""
    return Context(causal=True, grid=(states.shape[1],), features=states)


def _remember(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    _hidden.states = arguments[0] if arguments else named["hidden_states"]


def _attend(
    layer: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers: [B, Hq, T, D], [B, Hk, T, D] twice, to [B, T, Hq, D]."""
    if attention_mask is not None or query.shape[2] != key.shape[2]:
        raise ValueError(
            "a mechanism needs whole sequences: call the model with use_cache=False, without attention_mask, and not "
            "compiled, where transformers makes a mask"
        )
    states, _hidden.states = _hidden.states, None  # Who kept them would keep the graph that made them.
    o = layer.mechanism(query, key, value, _describe(states))
    return o.transpose(1, 2).contiguous(), None
