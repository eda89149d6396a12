"""Counted sampling inside vLLM: a logits processor that leaves one token to choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig as EngineSettings
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from coterie.agents.engines import sampling
from coterie.types import Place, Sampling

_FIELD = "coterie"
_CHOSEN = torch.finfo(torch.float32).max


def extra_args(wanted: Sampling, place: Place, seed: int) -> dict[str, Any]:
    """What `SamplingParams.extra_args` must carry for one counted request: plain values, as they cross processes."""
    return {
        _FIELD: {
            "seed": seed,
            "place": [place.task, place.round, place.seat, place.repeat, place.purpose],
            "draw": [wanted.temperature, wanted.top_p, wanted.top_k],
        }
    }


@dataclass(slots=True)
class _Request:
    stream: sampling.UniformStream
    settings: Sampling
    output_ids: list[int]


class CountedSampling(LogitsProcessor):  # type: ignore[misc]  # untyped under the pydantic plugin
    """Draws the token of every request that asks for it and makes it the argmax; vLLM itself then runs greedily.

    The position in the stream is the length of the output so far, so a request that was preempted, or whose prompt came
    in several chunks, goes on where it was.
    """

    def __init__(self, vllm_config: EngineSettings, device: torch.device, is_pin_memory: bool) -> None:
        self._requests: dict[int, _Request] = {}
        self._device = device
        self._indices: torch.Tensor | None = None
        self._rows: sampling.Rows | None = None

    def is_argmax_invariant(self) -> bool:
        """False: it chooses."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they enter, leave and move within the batch."""
        if batch_update is None:
            return
        self._rows = None
        for index in batch_update.removed:
            self._requests.pop(index, None)
        for index, params, _, output_ids in batch_update.added:
            self._add(index, params, output_ids)
        for source, target, direction in batch_update.moved:
            moved, replaced = self._requests.pop(source, None), self._requests.pop(target, None)
            if moved is not None:
                self._requests[target] = moved
            if replaced is not None and direction is MoveDirectionality.SWAP:
                self._requests[source] = replaced

    def _add(self, index: int, params: SamplingParams, output_ids: list[int]) -> None:
        self._requests.pop(index, None)
        asked = (params.extra_args or {}).get(_FIELD)
        if asked is not None:
            temperature, top_p, top_k = asked["draw"]
            stream = sampling.UniformStream(asked["seed"], Place(*asked["place"]))
            self._requests[index] = _Request(stream, Sampling(temperature, top_p, top_k), output_ids)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Raise the drawn token of each counted row above all others, in place."""
        if not self._requests:
            return logits
        order = sorted(self._requests)
        requests = [self._requests[i] for i in order]
        if self._rows is None or self._indices is None:
            self._rows = sampling.Rows.build([r.settings for r in requests], self._device)
            self._indices = torch.tensor(order, device=self._device)
        drawn = torch.tensor([r.stream.at(len(r.output_ids)) for r in requests], dtype=torch.float64)
        whole = len(order) == logits.shape[0]
        tokens = sampling.sample(logits if whole else logits[self._indices], self._rows, drawn.to(self._device))
        logits[self._indices, tokens] = _CHOSEN
        return logits
