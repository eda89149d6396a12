"""What the kernels in Triton share."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
"""Softmaxes are in base 2, which the hardware knows."""


@triton.jit  # type: ignore[untyped-decorator]
def load_rows(x, offsets, is_there, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows of a tensor, [.., BLOCK], with zeros where nothing is."""
    depth = tl.arange(0, BLOCK)
    mask = is_there[:, None] & (depth < WIDTH)[None, :]
    return tl.load((x + offsets)[:, None] + depth[None, :], mask=mask, other=0.0)
