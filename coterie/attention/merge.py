"""Partial attentions as one: o_l over some of the keys each, by what their softmaxes' denominators say.

    L = log sum_l w_l exp(lse_l)        o = sum_l w_l exp(lse_l - L) o_l

The keys of different parts must be different, or they count twice. Not renormalised, L leaves the weights out: the map
is edited after its softmax, and its rows no longer sum to one.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from coterie.attention.checks import check_broadcast, check_device, check_shape
from coterie.attention.spec import widened

_MOST = 60.0
"""Largest exponent: a part of weight 0 may be larger than all that count, and 0 times infinity would be NaN."""


def merge(
    outputs: Sequence[Tensor],
    lses: Sequence[Tensor],
    weights: Sequence[Tensor | float] | None = None,
    *,
    renormalise: bool = True,
) -> tuple[Tensor, Tensor]:
    """Merge what `attend(..., return_lse=True)` gave for parts of the keys; differentiable in every tensor.

    A part with lse = -inf counts for nothing; where all parts do, the output is 0 and lse = -inf.

    Args:
        outputs: Each [..., N, Dv].
        lses: Each [..., N].
        weights: For each part a number, or a tensor that broadcasts to [..., N]; by default 1. They may be below 0 only
            where they are not renormalised.
        renormalise: Whether the weights count in L.

    Returns:
        The output [..., N, Dv] in the dtype of the first, and L [..., N].

    Raises:
        ValueError: Numbers of parts, shapes or devices do not match, or a weight is below 0 and shall be renormalised.
    """
    factors = [1.0] * len(outputs) if weights is None else weights
    if not outputs or not len(outputs) == len(lses) == len(factors):
        raise ValueError(
            f"merge has {len(outputs)} outputs, {len(lses)} lses and {len(factors)} weights, expected one of each for "
            "every part, and a part at least"
        )
    _check_parts(outputs, lses)
    scales = [_scale(f"weights[{at}]", factor, lses[0], renormalise) for at, factor in enumerate(factors)]
    top = _largest(lses, scales if renormalise else None)
    masses = [(lse - top).clamp(max=_MOST).exp() for lse in lses]
    shares = [mass * scale for mass, scale in zip(masses, scales, strict=True)]
    total = _sum(shares if renormalise else masses)
    empty = total == 0
    total = total.masked_fill(empty, 1)
    o = _sum([(share / total)[..., None] * o for share, o in zip(shares, outputs, strict=True)])
    return o.to(outputs[0].dtype), (top + total.log()).masked_fill(empty, -torch.inf)


def _check_parts(outputs: Sequence[Tensor], lses: Sequence[Tensor]) -> None:
    letters = [f"A{axis}" for axis in range(outputs[0].dim() - 2)]
    sizes: dict[str, int] = {}
    for at, (o, lse) in enumerate(zip(outputs, lses, strict=True)):
        sizes = check_shape(f"outputs[{at}]", o, " ".join([*letters, "N", "Dv"]), sizes)
        check_shape(f"lses[{at}]", lse, " ".join([*letters, "N"]), sizes)
        check_device(**{"outputs[0]": outputs[0], f"outputs[{at}]": o, f"lses[{at}]": lse})


def _scale(name: str, weight: Tensor | float, lse: Tensor, renormalise: bool) -> Tensor:
    scale = torch.as_tensor(weight, dtype=widened(lse).dtype, device=lse.device)
    check_broadcast(name, scale, *lse.shape)
    if renormalise and bool((scale < 0).any()):
        raise ValueError(f"{name} holds values below 0, which cannot be renormalised; merge with renormalise=False")
    return scale


def _largest(lses: Sequence[Tensor], scales: list[Tensor] | None) -> Tensor:
    """The largest that weighs anything: a shift, no part of the result. 0 for all -inf, which cannot be subtracted."""
    found = [lse.detach() for lse in lses]
    if scales is not None:
        found = [
            lse.masked_fill(scale.expand_as(lse) == 0, -torch.inf) for lse, scale in zip(found, scales, strict=True)
        ]
    top = widened(torch.stack(found).amax(0))
    return top.masked_fill(top == -torch.inf, 0)


def _sum(tensors: list[Tensor]) -> Tensor:
    return functools.reduce(operator.add, tensors)
