"""Linear attention by its definition, with the whole map in memory: for comparisons and small inputs."""

from __future__ import annotations

import torch
from torch import Tensor


def naive_scan(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, run: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """What `chunked_scan` gives; differentiable in every floating-point tensor."""
    tokens = q.shape[2]
    position = torch.arange(tokens, device=q.device)
    behind = position[:, None] - position
    same = torch.ones(1, tokens, tokens, dtype=torch.bool, device=q.device)
    first = torch.ones(1, tokens, dtype=torch.bool, device=q.device)
    if run is not None:
        same, first = run[:, :, None] == run[:, None], run == run[:, :1]
    with torch.autocast(q.device.type, enabled=False):
        keys, values = (x.to(state.dtype) for x in (k, v))
        rate = log_decay[:, None, None]
        weights = (rate * behind.clamp(min=0)).exp() * ((behind >= 0) & same[:, None])
        fading = (rate[:, 0] * (position + 1)).exp() * first[:, None]
        queries = q.to(state.dtype)
        o = (queries @ keys.mT * weights) @ values + fading[..., None] * (queries @ state)
        if tokens == 0:
            return o.to(v.dtype), state
        last = fading[..., -1, None, None] * state + (keys * weights[..., -1, :, None]).mT @ values
    return o.to(v.dtype), last
