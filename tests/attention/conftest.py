"""Every feature of a spec, with tensors that use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from coterie.attention.data import Data, Tokens
from coterie.attention.masks import (
    Blocks,
    Causal,
    Emitted,
    Hops,
    Listed,
    Neighborhood,
    Neighbors,
    Roles,
    Segments,
    Window,
)
from coterie.attention.spec import EdgeBias, Spec

TABLE = (("always", "never", "equal"), ("overlap", "disjoint", "never"), ("always", "equal", "overlap"))

SPECS = {
    "dense": Spec(),
    "causal": Spec(Causal()),
    "window": Spec(Window(2, 1)),
    "window by head": Spec(Window((0, 2, None, 3), 1)),
    "segments": Spec(Segments()),
    "roles": Spec(Roles(TABLE)),
    "emitted": Spec(Emitted()),
    "hops": Spec(Hops(2)),
    "neighbors": Spec(Neighbors()),
    "neighborhood": Spec(Neighborhood((25, 40), (3, 4), (1, 2))),
    "blocks": Spec(Blocks(5, halo=1, shift=(0, 2, 0, 2))),
    "listed": Spec(Listed(2, rows=3) & Causal()),
    "and, or": Spec((Causal() & Segments()) | (Hops(1) & Emitted())),
    "scale": Spec(scale=0.25),
    "head map": Spec(Causal(), head_map=(0, 0, 0, 1)),
    "low rank": Spec(rank=3),
    "key bias": Spec(key_bias=True),
    "edge bias": Spec(edge_bias=EdgeBias("squared")),
    "edge bias by neighbor": Spec(Neighbors(), edge_bias=EdgeBias("log1p", by_neighbor=True)),
    "sink": Spec(sink=True),
    "sink and empty rows": Spec(Neighbors(), sink=True),
    "gate": Spec(gate=True),
    "temperature": Spec(temperature=True),
    "everything": Spec(
        Causal() & Segments(), 0.3, (0, 1, 1, 0), 2, True, EdgeBias(by_neighbor=True), True, True, temperature=True
    ),
}  # fmt: skip


@dataclass
class Case:
    """Inputs of one call: 2 sequences, 4 query heads, 2 key heads. The first query has no neighbours."""

    spec: Spec
    data: Data
    q: Tensor
    k: Tensor
    v: Tensor

    @property
    def floats(self) -> dict[str, Tensor]:
        """Every tensor that has a gradient."""
        given = {f.name: getattr(self.data, f.name) for f in fields(self.data)}
        terms = {name: x for name, x in given.items() if isinstance(x, Tensor) and x.is_floating_point()}
        return {"q": self.q, "k": self.k, "v": self.v, **terms}

    def put(self, **tensors: Tensor) -> Case:
        """The same with other tensors."""
        mine = {name: tensors.pop(name) for name in ("q", "k", "v") if name in tensors}
        return replace(self, data=replace(self.data, **tensors), **mine)


def make_case(name: str, tokens: int = 5, dtype: torch.dtype = torch.float64, seed: int = 0) -> Case:
    spec, draw, n = SPECS[name], torch.Generator().manual_seed(seed), tokens

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=draw)

    slots = min(3, n)
    lists = torch.stack([torch.randperm(n, generator=draw)[:slots] for _ in range(2 * n)]).view(2, n, slots)
    lists[:, 0] = -1
    lists[1, n // 2, 0] = -1
    tokens_of = Tokens(
        segment=integers(-1, 2, 2, n).sort(-1).values, role=integers(0, 3, n), group=integers(0, 8, 2, n),
        time=integers(0, 3, 2, n), agent=integers(0, 2, n),
    )  # fmt: skip
    edge = spec.edge_bias
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    data = Data(
        tokens_of,
        hops=integers(-1, 4, 2, n, n),
        neighbors=lists,
        blocks=integers(-1, -(-n // 2), 2, 2, -(-n // 3), 3),
        query_factors=normal(2, 4, n, spec.rank).to(wide) if spec.rank else None,
        key_factors=normal(n, spec.rank).to(wide) if spec.rank else None,
        key_bias=normal(2, 1, n).to(wide) if spec.key_bias else None,
        distance=normal(2, n, slots if edge.by_neighbor else n).abs().to(wide) if edge else None,
        slope=normal(4).abs().to(wide) if edge else None,
        sink=normal(4).to(wide) if spec.sink else None,
        gate=normal(2, 4, n, 1).sigmoid().to(wide) if spec.gate else None,
        temperature=(normal(2, 4, n).abs() + 0.5).to(wide) if spec.temperature else None,
    )
    q, k, v = normal(2, 4, n, 8).to(dtype), normal(2, 2, n, 8).to(dtype), normal(2, 2, n, 6).to(dtype)
    return Case(spec, data, q, k, v)


@pytest.fixture(params=SPECS)
def feature(request: pytest.FixtureRequest) -> str:
    """The name of each feature in turn."""
    return str(request.param)


@pytest.fixture(name="make_case")
def _make_case() -> Callable[..., Case]:
    return make_case


@pytest.fixture(scope="session")
def smol_model(smollm: str) -> Any:
    """The built-in model in float32 on the CPU."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm, dtype=torch.float32).eval()
