"""Attention rollout: how much of each token's input reaches one position, by attention and residual connections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from coterie.attention.checks import check_shape
from coterie.attention.interception import Attended, count_layers, listen

# Scores in memory at once: at most this many float32 numbers (64 MB).
_CHUNK_NUMBERS = 1 << 24


@torch.no_grad()
def rollout(model: Any, input_ids: Tensor, *, position: int = -1, residual: float = 0.5) -> Tensor:
    """One row of the attention rollout of Abnar and Zuidema (arXiv 2005.00928), by a vector through the layers.

    With A_l the mean over heads of layer l's map, the rollout is the product of all (1 - residual) A_l + residual I.
    Its row for one position is a product from the left: top layer first, a vector at each step. So no two maps are
    multiplied and none is kept; what is kept until the forward pass has reached the top are the queries and keys.

    Args:
        model: As for `interception.listen`; windows and padding are read from its own masks.
        input_ids: [B, T], unpadded.
        position: Of the row; the last token by default.
        residual: Share of the residual connection.

    Returns:
        [B, T] in fp32; rows sum to 1, and what comes after the position has 0.

    Raises:
        ValueError: `input_ids` has another shape or no such position, a layer is without softmax attention, or as
            `interception.listen`.
    """
    length = check_shape("input_ids", input_ids, "B T")["T"]
    if not -length <= position < length:
        raise ValueError(f"position is {position}, expected one of the {length} tokens of input_ids")
    heard: list[Attended] = []

    def hear(attended: Attended) -> None:
        # The maps need no outputs, which would take as much room again.
        heard.append(replace(attended, output=attended.output.new_empty(0)))

    with listen(model, hear):
        model.base_model(input_ids=input_ids, use_cache=False)
    if missing := sorted(set(range(count_layers(model))) - {attended.layer for attended in heard}):
        raise ValueError(f"layer {missing[0]} has no softmax attention, so nothing can be followed through it")
    row = torch.zeros(input_ids.shape, device=input_ids.device)
    row[:, position] = 1
    for layer in sorted(heard, key=lambda attended: attended.layer, reverse=True):
        row = residual * row + (1 - residual) * columns(layer, row)
    return row


def columns(layer: Attended, weights: Tensor) -> Tensor:
    """Weighted column sums of a layer's map, averaged over heads: y_j = sum_i weights_i A_ij, [B, T] to [B, T].

    By blocks of rows: O(T) memory.
    """
    batch, heads, length, _ = layer.query.shape
    key = layer.key.repeat_interleave(heads // layer.key.shape[1], 1).float()
    total = torch.zeros_like(weights)
    chunk = max(1, _CHUNK_NUMBERS // (batch * heads * length))
    for begin in range(0, length, chunk):
        rows = slice(begin, min(begin + chunk, length))
        allowed = _allowed(layer, rows)
        logits = layer.query[:, :, rows].float() @ key.mT * layer.scale
        shares = logits.masked_fill(~allowed, -torch.inf).softmax(-1).mean(1)
        total += (weights[:, None, rows] @ shares).squeeze(1)
    return total


def _allowed(layer: Attended, rows: slice) -> Tensor:
    if layer.mask is not None:
        return layer.mask[:, :, rows]
    length = layer.key.shape[2]
    at = torch.arange(length, device=layer.key.device)
    return at[rows, None] >= at
