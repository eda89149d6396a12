"""Attention statistics of a transformers model, collected during its ordinary forward passes.

    with collect(model, StatisticsRequest(waad=10, fai=(10, 100))) as found:
        logits = model(input_ids=ids).logits
    found[15].waad     # [B, Hq, T]

There is no second model, no second pass and no map: queries, keys and the log-sum-exps of the attention that the model
computes anyway are read in passing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from coterie.attention.ablation import by_layer
from coterie.attention.interception import Attended, full_layers, listen
from coterie.attention.layout import Layout, lay_out
from coterie.attention.statistics_request import StatisticsRequest
from coterie.attention.stats import AttentionStatistics, attention_statistics


@contextmanager
def collect(
    model: Any,
    which: StatisticsRequest,
    layers: Sequence[int] | Mapping[int, Sequence[int]] | None = None,
    *,
    queries: Tensor | None = None,
    labels: Tensor | None = None,
) -> Iterator[dict[int, AttentionStatistics]]:
    """Collect statistics in whatever forward passes are made meanwhile; each replaces those of the one before.

    Padding and packed sequences are found in the model's own masks. Log-probabilities stay what they were, as the same
    kernels run; a pass with a mask costs one attention forward more per layer, since SDPA keeps its log-sum-exps.
    The model is afterwards as it was, also after an exception.

    Args:
        model: A causal language model of transformers that runs SDPA (or eager attention, replaced by SDPA meanwhile).
        which: What is wanted.
        layers: Which layers, or per layer which of its heads; `middle_layers(model)` by default, all heads.
        queries: As for `attention_statistics`, of the passes that are made meanwhile: such as a response's tokens.
        labels: Likewise.

    Yields:
        By layer the statistics; their head dimension holds the heads that were asked for.

    Raises:
        ValueError: Nothing is asked for, or a layer or head that is not there. During a pass: a layer whose queries do
            not see their whole sequence (windows), a mask that is not causal, a cache with tokens of earlier passes.
    """
    if which.is_empty:
        raise ValueError("`which` asks for no statistic: ask for one at least, such as StatisticsRequest(span=True)")
    chosen = _choose(model, layers)
    found: dict[int, AttentionStatistics] = {}
    reader = _MaskReader(queries, labels)

    def hear(heard: Attended) -> None:
        query, key, lse = _pick(heard, chosen[heard.layer])
        layout = reader.layout(heard)
        # Sums are taken in fp32, also where the model computes under autocast.
        with torch.autocast(query.device.type, enabled=False):
            found[heard.layer] = attention_statistics(query, key, lse, which, layout=layout, scale=heard.scale)

    with listen(model, hear, sorted(chosen), with_lse=True):
        yield found


def middle_layers(model: Any, count: int = 5) -> list[int]:
    """Layers evenly spaced over the middle third of those that see their whole sequence, floor(L/3) to floor(2L/3).

    Where attention tells most about credit; all layers, the top or the bottom third were worse than none (arXiv
    2510.13554, section 5.1 and the ablations).

    Raises:
        ValueError: There is none.
    """
    layers = full_layers(model)
    if not layers:
        raise ValueError("model has no layer that sees its whole sequence")
    first, last = len(layers) // 3, min(2 * len(layers) // 3, len(layers) - 1)
    return [layers[index] for index in sorted({int(i) for i in torch.linspace(first, last, count).round()})]


def _choose(model: Any, layers: Sequence[int] | Mapping[int, Sequence[int]] | None) -> dict[int, list[int] | None]:
    if layers is not None and not layers:
        raise ValueError("layers is empty, expected one layer at least, or None for those of the middle third")
    if isinstance(layers, Mapping):
        if idle := [layer for layer, heads in layers.items() if not heads]:
            raise ValueError(f"layers holds no head of layer {idle[0]}")
        return dict(by_layer(model, [(layer, head) for layer, heads in layers.items() for head in heads]))
    return dict.fromkeys(middle_layers(model) if layers is None else layers)


def _pick(heard: Attended, heads: list[int] | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Queries, keys and log-sum-exps of some heads, cut off from the graph."""
    query, key, lse = heard.query.detach(), heard.key.detach(), heard.lse
    if heads is None:
        return query, key, lse
    group = query.shape[1] // key.shape[1]
    mine, shared = (_index(numbers, query.device) for numbers in (tuple(heads), tuple(head // group for head in heads)))
    picked = None if lse is None else lse.index_select(1, mine)
    return query.index_select(1, mine), key.index_select(1, shared), picked


@functools.lru_cache(maxsize=256)
def _index(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept, since to put numbers on a GPU is to wait for all that it has to do before."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, device=device)


class _MaskReader:
    """Reads from masks where sequences begin and what is padding. Layers share masks, so the last one is remembered."""

    def __init__(self, queries: Tensor | None, labels: Tensor | None) -> None:
        self._marks = {"queries": queries, "labels": labels}
        self._last: tuple[Tensor | None, Layout] | None = None

    def layout(self, heard: Attended) -> Layout:
        """For `attention_statistics`. Without a mask each element of the batch is one sequence."""
        (batch, _, length, _), seen = heard.query.shape, heard.key.shape[2]
        if length != seen:
            raise ValueError(
                f"key of layer {heard.layer} holds {seen} tokens and query {length}, expected whole sequences: "
                "statistics need one pass with an empty cache"
            )
        if heard.window is not None and heard.window < length:
            raise ValueError(f"layer {heard.layer} sees {heard.window} tokens back and the input has {length}")
        if self._last is not None:
            mask, layout = self._last
            is_same = layout.start.shape == (batch, length) and layout.start.device == heard.query.device
            if mask is heard.mask and is_same:
                return layout
        segments = None if heard.mask is None else _read_segments(heard.mask)
        layout = lay_out(heard.query, segments=segments, **self._marks)
        self._last = heard.mask, layout
        return layout


def _read_segments(mask: Tensor) -> Tensor:
    """[B, 1, T, T] to [B, T]: a sequence begins where a token does not see the one before; no token sees padding."""
    allowed = mask[:, 0]
    is_real = allowed.diagonal(dim1=1, dim2=2)
    begins = torch.ones_like(is_real)
    begins[:, 1:] = ~allowed.diagonal(-1, 1, 2)
    segments = begins.cumsum(1).masked_fill(~is_real, -1)
    causal = torch.ones(allowed.shape[1:], dtype=torch.bool, device=mask.device).tril()
    expected = (segments[:, :, None] == segments[:, None]) & causal & is_real[:, :, None]
    if not bool((expected == allowed)[is_real].all()):
        raise ValueError("attention_mask is not causal within sequences that follow one another")
    return segments
