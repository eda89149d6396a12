"""Head ablation: a forward pass without what some heads say, to see what the model needs them for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from coterie.attention.interception import Attended, count_layers, listen

Head = tuple[int, int]
"""Layer and query head."""


@contextmanager
def ablate(
    model: Any, heads: Iterable[Head], *, scale: float = 0.0, means: Mapping[int, Tensor] | None = None
) -> Iterator[None]:
    """Change what heads write, before the output projection, in whatever forward passes are made meanwhile.

    Zero ablation by default. It takes a head off the distribution that later layers know, which mean ablation does not;
    the paper that this follows chose zero because mean ablation did not separate its groups of heads (arXiv 2509.25758,
    A.7). The model is afterwards as it was.

    Args:
        model: As for `interception.listen`.
        heads: Which heads.
        scale: Factor of their output: 0 silences, 0.5 weakens, 1.3 strengthens.
        means: Mean ablation: per layer [Hq, Dv], as `mean_outputs` gives them, to stand for the heads' output at every
            position; `scale` is then not used.

    Raises:
        ValueError: `heads` names one that is not there, or whose layer `means` lacks.
    """
    chosen = by_layer(model, heads)
    if means is not None and (missing := sorted(set(chosen) - set(means))):
        raise ValueError(f"means lacks layer {missing[0]}, of which heads are to be ablated")

    def change(heard: Attended) -> Tensor:
        index = torch.tensor(chosen[heard.layer], device=heard.output.device)
        if means is None:
            return heard.output.index_copy(2, index, heard.output.index_select(2, index) * scale)
        given = means[heard.layer].to(heard.output)[index]
        return heard.output.index_copy(2, index, given.expand(*heard.output.shape[:2], *given.shape))

    with listen(model, change, sorted(chosen)):
        yield


@torch.no_grad()
def mean_outputs(
    model: Any, sequences: Iterable[Sequence[int]], layers: Sequence[int] | None = None
) -> dict[int, Tensor]:
    """What each head writes on average over all tokens of some sequences of token ids: per layer [Hq, Dv], fp32."""
    sums: dict[int, Tensor] = {}
    count = 0

    def add(heard: Attended) -> None:
        total = heard.output.float().sum((0, 1))
        sums[heard.layer] = sums[heard.layer] + total if heard.layer in sums else total

    with listen(model, add, layers):
        for ids in sequences:
            model.base_model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
            count += len(ids)
    if not count:
        raise ValueError("sequences is empty, expected token ids")
    return {layer: total / count for layer, total in sums.items()}


def by_layer(model: Any, heads: Iterable[Head]) -> dict[int, list[int]]:
    """Heads sorted into their layers.

    Raises:
        ValueError: One is not there.
    """
    num_layers, num_heads = count_layers(model), model.config.get_text_config().num_attention_heads
    found: defaultdict[int, list[int]] = defaultdict(list)
    for layer, head in sorted(set(heads)):
        if not (0 <= layer < num_layers and 0 <= head < num_heads):
            raise ValueError(f"heads holds ({layer}, {head}), expected layer < {num_layers} and head < {num_heads}")
        found[layer].append(head)
    return dict(found)
