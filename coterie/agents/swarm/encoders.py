"""How an observation becomes features: the kinds of policies.

All work on each row by itself, and none cares in which order neighbours stand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie import registry
from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.layers import Linear, Perceptron, find_present, split
from coterie.agents.swarm.ordering import sort_neighbours
from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Heads, Mechanism, reason_of
from coterie.attention.neighbor import neighbor_attention
from coterie.attention.topology import Topology
from coterie.errors import ConfigError
from coterie.types import ObservationLayout, WorldSpec


class Encoder(nn.Module):
    """Observations [B, D] to features [B, `Architecture.final_width`].

    Attributes:
        final: What the features come out of.
        waits: Whether it waits for the GPU, so that it can be neither recorded there nor exported.
    """

    final: Perceptron
    waits = False

    def attention(self, observation: Tensor) -> Tensor | None:
        """Weights [B, heads, K + 1] of each neighbour and, last, of obstacles if any; None for kinds without them."""
        return None


class MlpEncoder(Encoder):
    """All numbers through one perceptron, neighbours sorted first; for any world."""

    def __init__(self, shape: Architecture, spec: WorldSpec) -> None:
        super().__init__()
        self.layout = spec.layout
        widths = [*[shape.width] * shape.layers, shape.final_width]
        self.final = Perceptron(spec.observation_size, widths, shape.activation)

    def forward(self, observation: Tensor) -> Tensor:
        if self.layout is not None:
            parts = split(observation, self.layout)
            sorted_ones = sort_neighbours(parts.neighbours).flatten(1)
            observation = torch.cat([parts.oneself, sorted_ones, parts.obstacles], 1)
        return self.final(observation)  # type: ignore[no-any-return]


class DeepSetsEncoder(Encoder):
    """Each neighbour through one perceptron, then their mean (Zaheer et al. 2017, arXiv 1703.06114)."""

    def __init__(self, shape: Architecture, layout: ObservationLayout) -> None:
        super().__init__()
        self.layout, self.width = layout, shape.width
        widths, act = [shape.width] * shape.layers, shape.activation
        self.oneself = Perceptron(layout.self_size, widths, act)
        self.neighbour = Perceptron(layout.neighbour_size, widths, act)
        self.obstacles = Perceptron(layout.obstacle_size, widths, act) if layout.obstacle_size else None
        self.final = Perceptron(shape.width * (2 + bool(layout.obstacle_size)), [shape.final_width], act)

    def forward(self, observation: Tensor) -> Tensor:
        parts = split(observation, self.layout)
        present = find_present(parts.neighbours).to(observation.dtype)[..., None]
        features = self.neighbour(parts.neighbours.flatten(0, 1)).view(*present.shape[:2], self.width)
        mean = (features * present).sum(1) / present.sum(1).clamp(min=1)
        read = [self.oneself(parts.oneself), mean]
        if self.obstacles is not None:
            read.append(self.obstacles(parts.obstacles))
        return self.final(torch.cat(read, 1))  # type: ignore[no-any-return]


class AttentionEncoder(Encoder):
    """Oneself attends to each neighbour and to obstacles: one query for each head, K + 1 keys.

        s_hj = q_h(self) . f_h(j) / sqrt(width / heads)    p_h = softmax over those present    o_h = sum_j p_hj f_h(j)

    A head's slice f_h of the features is both its keys and its values: projections of their own would only be factors
    of the layers that make features and queries, and of the one that reads o. What a neighbour costs is so one layer
    from its few numbers. Empty slots take no part; where there is nothing to attend to, o is zero.
    """

    def __init__(self, shape: Architecture, layout: ObservationLayout) -> None:
        super().__init__()
        self.layout, self.width, self.heads = layout, shape.width, shape.heads
        widths, act = [shape.width] * shape.layers, shape.activation
        self.oneself = Perceptron(layout.self_size, widths, act)
        self.neighbour = Perceptron(layout.neighbour_size, widths, act)
        self.obstacles = Perceptron(layout.obstacle_size, widths, act) if layout.obstacle_size else None
        self.query = Linear(shape.width, shape.width, bias=False)
        self.final = Perceptron(2 * shape.width, [shape.final_width], act)

    def forward(self, observation: Tensor) -> Tensor:
        oneself, query, neighbours, obstacles, present = self._read(observation)
        if torch.compiler.is_compiling():  # also while a graph is exported, which knows no kernel of ours
            tokens = _stack(neighbours, obstacles)
            read = (attend(query, tokens, present)[:, :, None] @ tokens.transpose(1, 2))[:, :, 0]
        else:
            keys = neighbours.flatten(0, 1) if obstacles is None else torch.cat([neighbours.flatten(0, 1), obstacles])
            topology = _slots(*neighbours.shape[:2], obstacles is not None, keys.device)
            read, _ = neighbor_attention(query, keys, keys, topology, allowed=present)
        return self.final(torch.cat([oneself, read.flatten(1)], 1))  # type: ignore[no-any-return]

    def attention(self, observation: Tensor) -> Tensor:
        _, query, neighbours, obstacles, present = self._read(observation)
        return attend(query, _stack(neighbours, obstacles), present)

    def _read(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """Of oneself features [B, W] and queries [B, H, d]; features of others [B, K, H, d], [B, H, d]; present."""
        parts = split(observation, self.layout)
        present, obstacles = find_present(parts.neighbours), None
        heads = self.heads, self.width // self.heads
        neighbours = self.neighbour(parts.neighbours.flatten(0, 1)).view(*present.shape, *heads)
        if self.obstacles is not None:
            obstacles = self.obstacles(parts.obstacles).view(-1, *heads)
            present = functional.pad(present, (0, 1), value=True)
        oneself = self.oneself(parts.oneself)
        return oneself, self.query(oneself).view(-1, *heads), neighbours, obstacles, present


def _stack(neighbours: Tensor, obstacles: Tensor | None) -> Tensor:
    """[B, T, H, d]."""
    return neighbours if obstacles is None else torch.cat([neighbours, obstacles[:, None]], 1)


def attend(query: Tensor, keys: Tensor, present: Tensor) -> Tensor:
    """Weights of T keys [B, T, H, d] for queries [B, H, d]: [B, H, T], zero for those that are not present [B, T]."""
    logits = (keys.transpose(1, 2) @ query[..., None])[..., 0] * keys.shape[-1] ** -0.5
    # A row with nothing in it attends to everything, and that is thrown away.
    logits = logits.masked_fill(~present[:, None], torch.finfo(logits.dtype).min)
    weights: Tensor = logits.softmax(-1) * present[:, None]
    return weights


def _keeping(make: Callable[..., Topology]) -> Callable[..., Topology]:
    """Keep topologies for the sizes asked for last; on a GPU all, since graphs that were recorded there read them."""
    made = torch.inference_mode(False)(make)  # what is kept must also serve gradients
    recent, all_of_them = functools.lru_cache(maxsize=32)(made), functools.cache(made)
    return lambda *given: (recent if given[-1].type == "cpu" else all_of_them)(*given)


@_keeping
def _slots(batch: int, neighbours: int, has_obstacles: bool, device: torch.device) -> Topology:
    """Each query attends to neighbours of its own, which are keys in a row, and to obstacles, which follow them all."""
    index = torch.arange(batch * neighbours, device=device).view(batch, neighbours)
    if has_obstacles:
        index = torch.cat([index, batch * neighbours + torch.arange(batch, device=device)[:, None]], 1)
    return Topology(index, batch * (neighbours + has_obstacles))


class PaperEncoder(Encoder):
    """What the authors ran: neighbours, sorted, are one token and obstacles another; the two attend to each other.

    Source: Huang et al. 2024, arXiv 2309.13285. Heads are as wide as `head_size`; residual and LayerNorm follow.
    """

    def __init__(self, shape: Architecture, layout: ObservationLayout) -> None:
        super().__init__()
        self.layout, self.heads = layout, shape.heads
        widths, act, inner = [shape.width] * shape.layers, shape.activation, shape.heads * shape.head_size
        seen = layout.num_neighbours * layout.neighbour_size, layout.obstacle_size
        self.oneself = Perceptron(layout.self_size, widths, act)
        self.neighbours, self.obstacles = (Perceptron(size, widths, act) if size else None for size in seen)
        self.query, self.key, self.value = (Linear(shape.width, inner, bias=False) for _ in range(3))
        self.attended = Linear(inner, shape.width, bias=False)
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        self.final = Perceptron(shape.width * (1 + sum(map(bool, seen))), [shape.final_width], act)

    def forward(self, observation: Tensor) -> Tensor:
        parts = split(observation, self.layout)
        seen = sort_neighbours(parts.neighbours).flatten(1), parts.obstacles
        encoders = self.neighbours, self.obstacles
        read = [encode(part) for encode, part in zip(encoders, seen, strict=True) if encode is not None]
        tokens = torch.cat(read)
        tokens = self.norm(self.attended(self._attend(tokens, len(read)).flatten(1)) + tokens)
        features = [self.oneself(parts.oneself), *tokens.view(len(read), -1, tokens.shape[1]).unbind()]
        return self.final(torch.cat(features, 1))  # type: ignore[no-any-return]

    def _attend(self, tokens: Tensor, count: int) -> Tensor:
        """What each of tokens [count B, W] reads of the `count` in its row, which lie B apart: [count B, H, d]."""
        rows = tokens.shape[0]
        query, key, value = (layer(tokens).view(rows, self.heads, -1) for layer in (self.query, self.key, self.value))
        if not torch.compiler.is_compiling():
            return neighbor_attention(query, key, value, _pairs(rows // count, count, tokens.device))[0]
        q, k, v = (x.view(count, -1, *x.shape[1:]).permute(1, 2, 0, 3) for x in (query, key, value))
        read: Tensor = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return read.permute(2, 0, 1, 3).flatten(0, 1)


@_keeping
def _pairs(batch: int, tokens: int, device: torch.device) -> Topology:
    """Each of the tokens of a row, which lie `batch` apart, attends to all of them."""
    rows = torch.arange(batch * tokens, device=device)
    return Topology(rows[:, None] % batch + batch * torch.arange(tokens, device=device))


class MechanismEncoder(Encoder):
    """Oneself, neighbours and obstacles are tokens that attend to each other by a mechanism of the literature.

    They stand in a row, neighbours from far to near, then obstacles, oneself last: these are positions, and in causal
    order oneself sees all. Roles are 1, 2 and 0, empty slots are padding, and features are those of the tokens.

    Raises:
        ConfigError: The mechanism needs more, or mixes rows of a batch.
    """

    waits = True

    def __init__(self, shape: Architecture, layout: ObservationLayout) -> None:
        super().__init__()
        self.layout, self.heads = layout, shape.heads
        widths, act, width = [shape.width] * shape.layers, shape.activation, shape.width
        self.oneself = Perceptron(layout.self_size, widths, act)
        self.neighbour = Perceptron(layout.neighbour_size, widths, act)
        self.obstacles = Perceptron(layout.obstacle_size, widths, act) if layout.obstacle_size else None
        self.query, self.key, self.value = (Linear(width, width, bias=False) for _ in range(3))
        self.mechanism = _make_mechanism(shape, layout)
        self.final = Perceptron(2 * width, [shape.final_width], act)

    def forward(self, observation: Tensor) -> Tensor:
        parts = split(observation, self.layout)
        slots = sort_neighbours(parts.neighbours).flip(1)
        neighbours = self.neighbour(slots.flatten(0, 1)).unflatten(0, slots.shape[:2])
        obstacles = [] if self.obstacles is None else [self.obstacles(parts.obstacles)[:, None]]
        oneself = self.oneself(parts.oneself)
        tokens = torch.cat([neighbours, *obstacles, oneself[:, None]], 1)
        q, k, v = (_by_head(layer(tokens), self.heads) for layer in (self.query, self.key, self.value))
        read = self.mechanism(q, k, v, _describe(tokens, find_present(slots), len(obstacles)))
        return self.final(torch.cat([oneself, read[:, :, -1].flatten(1)], 1))  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Self:
        """As any module, but for the mechanism: chances of actions may not depend on how often they were asked for."""
        super().train(mode)
        self.mechanism.eval()
        return self


def _by_head(rows: Tensor, heads: int) -> Tensor:
    return rows.view(*rows.shape[:-1], heads, -1).transpose(1, 2)


def _describe(tokens: Tensor, present: Tensor, obstacles: int) -> Context:
    """What is known about tokens [B, T, W] besides queries, keys and values; `present` are neighbours."""
    segment = functional.pad(present, (0, obstacles + 1), value=True).long() - 1
    return Context(features=tokens, data=Data(Tokens(segment=segment)))


def _make_mechanism(shape: Architecture, layout: ObservationLayout) -> nn.Module:
    """With weights of its own where it has others than those of linear layers, which `networks` draws anew."""
    rows, slots, obstacles = 3, layout.num_neighbours, int(layout.obstacle_size > 0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        mechanism = registry.impl("attention", shape.mechanism)(**shape.options)
        tokens, present = torch.randn(rows, 1 + slots + obstacles, shape.width), torch.rand(rows, slots) > 0.5
        present[0] = False  # What empty slots do not go with is known from the start.
        try:
            if not isinstance(mechanism, Mechanism):
                raise ValueError("it pools or weighs features and has no queries")
            module = mechanism.module(Heads(shape.heads, shape.heads, shape.width // shape.heads, shape.width)).eval()
            q, k, v = (_by_head(torch.randn_like(tokens), shape.heads) for _ in range(3))
            whole = module(q, k, v, _describe(tokens, present, obstacles))
            alone = module(q[1:2], k[1:2], v[1:2], _describe(tokens[1:2], present[1:2], obstacles))
            if not torch.allclose(whole[1:2], alone, atol=1e-4):
                raise ValueError("a row of a batch gets something else than the same row alone")
        except ValueError as refusal:
            raise ConfigError(
                f"{shape.mechanism} does not fit a policy: {reason_of(refusal)}", where="policy.attention",
                remedy="change `heads` or its options, or choose one that needs no more than order and features of "
                "tokens: docs/swarm-policies.md",
            ) from None  # fmt: skip
    return module


def build(shape: Architecture, spec: WorldSpec) -> Encoder:
    """The encoder of a kind.

    Raises:
        ConfigError: It does not fit the world; see `Architecture.check`.
    """
    shape.check(spec)
    if shape.kind == "mlp" or spec.layout is None:
        return MlpEncoder(shape, spec)
    kinds: dict[str, Callable[[Architecture, ObservationLayout], Encoder]] = {
        "paper": PaperEncoder, "attention": AttentionEncoder, "mechanism": MechanismEncoder,
        "deepsets": DeepSetsEncoder,
    }  # fmt: skip
    return kinds[shape.kind](shape, spec.layout)
