"""The declaration of an attention mechanism: which terms of the formula it has. It holds structure and no tensors.

For queries i and keys j, in each query head, with m its key head:

    s_ij = a q_i.k_m(j) + sum_r u_ir w_jr + b_j - l f(e_ij)
    p_i  = softmax over allowed j (and a sink)
    o_i  = g_i * sum_j p_ij v_m(j)
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from coterie.attention.checks import check_device, check_dtype, check_finite, check_not_empty, check_shape, check_type
from coterie.attention.data import Data, Fields, Pairs, Sizes
from coterie.attention.masks import Mask

Shape = Literal["linear", "squared", "log1p"]
"""f of the edge bias: e, e^2, or log(1 + e)."""


@dataclass(frozen=True, slots=True)
class EdgeBias:
    """-l f(e_ij), with e in `distance` and l in `slope`.

    `by_neighbor`: distances stand by slot of the neighbour lists, and the bias of a key outside the list is 0.

    Raises:
        ValueError: There is no such shape.
    """

    shape: Shape = "linear"
    by_neighbor: bool = False

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"EdgeBias.shape is {self.shape!r}, expected one of {', '.join(get_args(Shape))}")

    def of(self, distance: Tensor) -> Tensor:
        """f(e)."""
        if self.shape == "squared":
            return distance.square()
        return distance.log1p() if self.shape == "log1p" else distance


@dataclass(frozen=True, slots=True)
class Spec:
    """Structure of one attention: frozen, hashable, without tensors. `Data` holds the tensors of the terms it names.

    Raises:
        ValueError: A value that no call can have.
    """

    mask: Mask | None = None
    """None: every query attends to every key."""
    scale: float | None = None
    """a of the formula; by default 1/sqrt(D)."""
    head_map: tuple[int, ...] | None = None
    """m of the formula: the key head of each query head. By default consecutive query heads share one."""
    rank: int = 0
    """R of the low-rank bias; 0: there is none."""
    key_bias: bool = False
    edge_bias: EdgeBias | None = None
    sink: bool = False
    gate: bool = False
    temperature: bool = False
    """q.k is divided by `Data.temperature`."""

    def __post_init__(self) -> None:
        check_type("Spec.mask", self.mask, Mask | None, "a mask such as masks.Causal()")
        check_type("Spec.head_map", self.head_map, tuple | None, "a tuple of integers")
        check_type("Spec.edge_bias", self.edge_bias, EdgeBias | None, "an EdgeBias")
        if self.scale is not None and not math.isfinite(self.scale):
            raise ValueError(f"Spec.scale is {self.scale}, expected a finite number")
        if self.rank < 0:
            raise ValueError(f"Spec.rank is {self.rank}, expected 0 or more")

    @property
    def biased(self) -> bool:
        """Whether anything is added to a q.k."""
        return bool(self.rank or self.key_bias or self.edge_bias)

    def read(self, q: Tensor, k: Tensor, data: Data) -> Fields:
        """Check q, k, the head map, and that `data` gives no term which this spec does not name.

        Args:
            q: [B, Hq, N, D].
            k: [B, Hk, M, D].
            data: The tensors of the terms; each is checked when it is read from what is returned.

        Raises:
            ValueError: Names the tensor that is wrong.
        """
        sizes = check_shape("k", k, "B Hk M D", check_shape("q", q, "B Hq N D"))
        check_not_empty("q", q, sizes, "Hq", "D")
        check_dtype("q", q, torch.float32, torch.bfloat16, torch.float16, torch.float64)
        check_dtype("k", k, q.dtype)
        check_device(q=q, k=k)
        self._check_heads(sizes["Hq"], sizes["Hk"])
        named = {
            "query_factors": self.rank, "key_factors": self.rank, "key_bias": self.key_bias,
            "distance": self.edge_bias, "slope": self.edge_bias,
            "sink": self.sink, "gate": self.gate, "temperature": self.temperature,
        }  # fmt: skip
        for name, there in named.items():
            if not there and getattr(data, name) is not None:
                raise ValueError(f"{name} is given, but the spec does not name it")
        return Fields(data, Sizes(sizes["B"], sizes["Hq"], sizes["N"], sizes["M"]), q.device)

    def _check_heads(self, heads: int, key_heads: int) -> None:
        if self.head_map is None:
            if key_heads == 0 or heads % key_heads:
                raise ValueError(f"q has {heads} heads, which {key_heads} heads of k cannot share evenly")
        elif len(self.head_map) != heads or not all(0 <= head < key_heads for head in self.head_map):
            raise ValueError(f"Spec.head_map is {self.head_map}, expected {heads} heads of k below {key_heads}")

    def allowed(self, fields: Fields) -> Tensor | None:
        """The mask as bool, [B or 1, Hq or 1, N, M]; None: everything is allowed."""
        return None if self.mask is None else _four(self.mask.allows(Pairs.all(fields)))

    def bias(self, fields: Fields) -> Tensor | None:
        """What is added to a q.k, [B or 1, Hq or 1, N or 1, M], in float32 or float64; None: nothing."""
        return _four(functools.reduce(operator.add, self._terms(fields))) if self.biased else None

    def _terms(self, fields: Fields) -> Iterator[Tensor]:
        """Of the bias, one after the other: each may be as large as the map."""
        batch, heads, queries, keys = fields.sizes
        if self.rank:
            u, w = self._factor("query_factors", fields, queries), self._factor("key_factors", fields, keys)
            # No matrix product: those may run in tf32 or under autocast, and factors hold positions up to 1e5.
            yield from (u[..., :, None, r] * w[..., None, :, r] for r in range(self.rank))
        if self.key_bias:
            key_bias = fields.term("key_bias", batch, heads, keys)
            yield widened(key_bias.expand(batch, heads, keys))[..., None, :]
        if self.edge_bias:
            yield self._edge_bias(fields, self.edge_bias)

    def factors(self, fields: Fields) -> tuple[Tensor, Tensor] | None:
        """What the low-rank bias and that of the keys are products of: u [B, Hq, N, R] and w [B, Hq, M, R]."""
        batch, heads, queries, keys = fields.sizes
        us, ws = [], []
        if self.rank:
            us.append(self._factor("query_factors", fields, queries).expand(batch, heads, queries, self.rank))
            ws.append(self._factor("key_factors", fields, keys).expand(batch, heads, keys, self.rank))
        if self.key_bias:
            ws.append(widened(fields.term("key_bias", batch, heads, keys).expand(batch, heads, keys))[..., None])
            us.append(ws[-1].new_ones(batch, heads, queries, 1))
        return (torch.cat(us, -1), torch.cat(ws, -1)) if us else None

    def _factor(self, name: str, fields: Fields, tokens: int) -> Tensor:
        shape = fields.sizes.batch, fields.sizes.heads, tokens, self.rank
        return _four(fields.term(name, *shape, dtypes=(torch.float32, torch.float64)))

    def _edge_bias(self, fields: Fields, edge: EdgeBias) -> Tensor:
        reach = edge.of(widened(fields.distance(edge.by_neighbor)))
        check_finite("f(distance)", reach)
        reach = fields.spread(reach) if edge.by_neighbor else reach
        slope = widened(fields.term("slope", fields.sizes.heads))
        return -slope[..., None, None] * (reach[:, None] if reach.dim() == 3 else reach)

    def show(self, n: int, data: Data | None = None, *, batch: int = 1, heads: int = 1) -> str:
        """The mask of n tokens as text: a row for each query, `#` where it may attend. `data` must be on the CPU."""
        allowed = self.allowed(Fields(data or Data(), Sizes(batch, heads, n, n), torch.device("cpu")))
        grids = torch.ones(1, 1, n, n, dtype=torch.bool) if allowed is None else allowed
        drawn = []
        for b, h in itertools.product(range(grids.shape[0]), range(grids.shape[1])):
            title = [f"batch {b}, head {h}"] if grids.shape[:2] != (1, 1) else []
            rows = ["".join("#" if cell else "." for cell in row) for row in grids[b, h].expand(n, n).tolist()]
            drawn.append("\n".join(title + rows))
        return "\n\n".join(drawn)


def widened(tensor: Tensor) -> Tensor:
    """In float32 or more: halves cannot hold positions."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _four(tensor: Tensor) -> Tensor:
    return tensor[(None,) * (4 - tensor.dim())]
