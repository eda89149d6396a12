"""What the attention of a policy says of the tokens of replies, read in the pass that gives their log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypedDict

import torch
from torch import Tensor

from coterie.agents.learning.packing import MicroBatch, label_rows, marks_of
from coterie.attention.ablation import Head, by_layer
from coterie.attention.head_roles import HeadProfile, assign_roles
from coterie.attention.interception import full_layers
from coterie.attention.introspection import collect, middle_layers
from coterie.attention.statistics_request import StatisticsRequest
from coterie.attention.stats import AttentionStatistics
from coterie.types import Signal, SignalRequest

Found = Mapping[int, AttentionStatistics]
_ROWS: dict[Signal, tuple[str, ...]] = {
    "waad": ("waad",), "fai": ("fai", "fai_queries"), "received": ("received",), "influence": ("influence", "step"),
}  # fmt: skip


class Roles(TypedDict):
    """Which heads of a policy are local and which are global, as plain data."""

    layers: list[int]
    span: list[list[float]]
    """Mean distance looked back, by layer and head."""
    local: list[list[int]]
    """Layer and head, shortest span first."""
    distant: list[list[int]]
    """Longest span first."""


def signal_rows(request: SignalRequest) -> tuple[str, ...]:
    """Names of the numbers that come of a token, in the order of `SignalReader.read`; entropy is not among them."""
    return tuple(row for name, rows in _ROWS.items() if name in request.names for row in rows)


class SignalReader:
    """Listens to a model while it reads replies.

    Args:
        model: A causal language model of transformers.
        request: What is wanted.
        roles: Of the policy's heads; needed for `waad` and `fai`.
        steps: The step that each token of each reply is in, int64 [T], by the numbers that `MicroBatch.turns` has;
            needed for `influence`.
    """

    def __init__(
        self, model: Any, request: SignalRequest, roles: Roles | None = None, steps: Sequence[Tensor] = ()
    ) -> None:
        self._model, self._request, self._steps = model, request, steps
        self._own: dict[int, tuple[int, slice]] = {}
        self.rows = signal_rows(request)
        if roles is not None:
            self._heads = {"waad": _heads(roles["local"]), "fai": _heads(roles["distant"])}

    @contextmanager
    def listen(self, batch: MicroBatch) -> Iterator[dict[Signal, Found]]:
        """In here one pass is made over a batch; what was collected by then goes to `read`."""
        wanted, replies = self._request, marks_of(batch, batch.before + 1)
        with ExitStack() as stack:

            def hear(name: Signal, which: StatisticsRequest, layers: Any, **marks: Tensor) -> None:
                if name in wanted.names:
                    found[name] = stack.enter_context(collect(self._model, which, layers, **marks))

            found: dict[Signal, Found] = {}
            if {"waad", "fai"} & wanted.names:
                near, far = (by_layer(self._model, self._heads[name]) for name in ("waad", "fai"))
                hear("waad", StatisticsRequest(waad=wanted.window), near, queries=replies)
                hear("fai", StatisticsRequest(fai=wanted.horizon), far, queries=replies)
            if "received" in wanted.names:
                last = replies if wanted.rows == "later" else marks_of(batch, self._last_tokens(batch))
                hear("received", StatisticsRequest(received=True), full_layers(self._model)[-1:], queries=last)
            if "influence" in wanted.names:
                labels, self._own = label_rows(batch, self._steps, [len(each) for each in self._steps])
                which = StatisticsRequest(mass=int(labels.max()) + 1)
                hear("influence", which, middle_layers(self._model, wanted.layers), queries=replies, labels=labels)
            yield found

    def read(self, batch: MicroBatch, found: Mapping[Signal, Found]) -> Tensor:
        """The rows of all tokens of the batch's replies, float32 [rows, M]."""
        at = batch.before + 1
        rows: dict[str, Tensor] = {name: _mean(of, name, at) for name, of in found.items() if name != "influence"}
        if "fai" in found:
            queries = next(iter(found["fai"].values())).fai_queries
            assert queries is not None
            rows["fai_queries"] = queries.flatten()[at]
        if "influence" in found:
            steps = {turn: self._steps[turn].to(at.device) for turn in batch.turns}
            rows["influence"] = torch.cat([self._influence(found["influence"], turn, steps[turn]) for turn in steps])
            rows["step"] = torch.cat(list(steps.values()))
        return torch.stack([rows[name].float() for name in self.rows])

    def _last_tokens(self, batch: MicroBatch) -> Tensor:
        # Before each reply stands a token of its prompt at least.
        at = batch.before + 1
        return at[torch.cat([at[1:] != at[:-1] + 1, torch.ones_like(at[:1], dtype=torch.bool)])]

    def _influence(self, found: Found, turn: int, steps: Tensor) -> Tensor:
        """Of the step of each token of a turn, [T]; see `step_influence`."""
        (row, own), size = self._own[turn], steps.bincount()
        masses = [statistics.mass[row, :, own, own] for statistics in found.values() if statistics.mass is not None]
        return step_influence(torch.cat(masses), size, self._request.proximity)[steps]


def step_influence(mass: Tensor, size: Tensor, proximity: int) -> Tensor:
    """The greatest of any head's sum_{j >= k + proximity} of the mean attention from step j to step k, [S].

    NaN for steps that have no such j. Source: arXiv 2509.26628, the future influence of a step.

    Args:
        mass: Attention from step to step, summed over their tokens, [heads, S, S].
        size: Tokens of each step, [S].
        proximity: Steps.
    """
    means = mass / (size[:, None] * size)
    summed = means.tril(-proximity).sum(1).max(0).values
    number = torch.arange(len(size), device=size.device)
    return torch.where(number + proximity < len(size), summed, torch.nan)


class SpanReader:
    """Sums up how far heads look back, reply by reply, to tell local from global ones.

    Args:
        model: A causal language model of transformers.
        request: How many layers, and which shares of their heads.
    """

    def __init__(self, model: Any, request: SignalRequest) -> None:
        self._model, self._request = model, request
        self.layers = middle_layers(model, request.layers)
        self.heads = int(model.config.get_text_config().num_attention_heads)

    @contextmanager
    def listen(self, batch: MicroBatch) -> Iterator[Found]:
        """In here one pass is made over a batch."""
        which = StatisticsRequest(span=True, sink=int(self._request.without_sink))
        with collect(self._model, which, self.layers, queries=marks_of(batch, batch.before + 1)) as found:
            yield found

    def read(self, batch: MicroBatch, found: Found, lengths: Sequence[int]) -> Tensor:
        """The mean span of each head over each reply of a batch, float32 [turns, layers * heads] (eq. 7)."""
        at = batch.before + 1
        span = torch.cat([_rows(found[layer].span, at) for layer in self.layers])
        weight = torch.ones_like(span)
        if self._request.without_sink:
            sink = torch.cat([_rows(found[layer].sink, at) for layer in self.layers])
            span, weight = span - sink * batch.positions.flatten()[at], 1 - sink
        split = [lengths[turn] for turn in batch.turns]
        parts = zip(torch.split(span, split, 1), torch.split(weight, split, 1), strict=True)
        return torch.stack([one.sum(1) / other.sum(1) for one, other in parts])

    def assign(self, spans: Tensor) -> Roles:
        """Roles by the mean over replies; `spans` is [replies, layers * heads]."""
        span = spans.mean(0).view(len(self.layers), self.heads)
        unknown = torch.full_like(span, torch.nan)
        profile = HeadProfile(tuple(self.layers), span, unknown, unknown)
        roles = assign_roles(profile, local=self._request.local, distant=self._request.distant)
        return Roles(
            layers=list(self.layers), span=span.tolist(), local=[list(head) for head in roles.local],
            distant=[list(head) for head in roles.distant],
        )  # fmt: skip


def _heads(pairs: Sequence[Sequence[int]]) -> list[Head]:
    return [(layer, head) for layer, head in pairs]


def _rows(values: Tensor | None, at: Tensor) -> Tensor:
    """[B, H, T] to [H, M], at places of the flattened batch."""
    assert values is not None
    return values.transpose(0, 1).flatten(1)[:, at]


def _mean(found: Found, name: str, at: Tensor) -> Tensor:
    """Over all heads of all layers, [M]; the statistics are linear in the map, so this is that of the mean map."""
    return torch.cat([_rows(getattr(statistics, name), at) for statistics in found.values()]).mean(0)
