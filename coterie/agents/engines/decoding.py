"""A causal language model of transformers: the token loop over a left-padded batch, and the teacher-forced pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor

from coterie.agents.engines import chat, kv_cache, models, sampling
from coterie.agents.engines.choosing import Choices
from coterie.agents.engines.live import LiveWeights
from coterie.types import EncodedPrompt, Place, Sample, Sampling, TokenIds

_CROWD = 0.75
"""Replies that are over leave the batch when no more than this share of it goes on."""


@dataclass
class _Row:
    """One prompt of a batch on its way."""

    prompt: TokenIds
    said: TokenIds
    stream: sampling.UniformStream
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    text: str | None = None


class CausalModel:
    """Weights on a device, with the ids that end a reply.

    Args:
        model: A causal language model of transformers.
        stop_ids: The ids that end a reply.
        weights: What is published to it.
    """

    def __init__(self, model: Any, stop_ids: frozenset[int], weights: LiveWeights) -> None:
        self._model, self._stop_ids, self.weights = model, stop_ids, weights
        self.device, self.dtype = str(model.device), str(model.dtype).removeprefix("torch.")

    @classmethod
    def load(cls, folder: str, device: str, dtype: str, adapters: int = 0, lora_rank: int = 16) -> CausalModel:
        """As `load_model`, with room for so many LoRA adapters of at most this rank."""
        model = load_model(folder, device, dtype)
        stops = model.generation_config.eos_token_id
        stops = model.config.eos_token_id if stops is None else stops
        ends = frozenset([stops] if isinstance(stops, int) else stops or [])
        return cls(model, ends, LiveWeights(model, adapters, lora_rank))

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[EncodedPrompt],
        wanted: Sampling,
        keys: Sequence[Place],
        seed: int,
        decode: Callable[[Sequence[int]], str],
        pad: int,
        beat: Callable[[], bool],
        spelt: Sequence[TokenIds] = (),
    ) -> list[Sample]:
        """One sample per prompt of ids; one of the choices `spelt`, if there are any.

        `beat` is called before every step and ends the loop by returning True.

        Raises:
            EngineError: a prompt names an adapter that was not published.
        """
        streams = [sampling.UniformStream(seed, key) for key in keys]
        rows = [_Row(cast(TokenIds, p.prompt), p.said, s) for p, s in zip(prompts, streams, strict=True)]
        ids, mask = self._pad_left([row.prompt for row in rows], pad)
        settings = sampling.Rows.build([wanted] * len(rows), self.device)
        cache: Any = None
        choices, going = Choices(spelt, self._stop_ids), rows
        with self.weights.speaking([prompt.adapter for prompt in prompts]) as speakers:
            for position in range(wanted.max_tokens):
                kept = [number for number, row in enumerate(going) if not row.finish]
                if beat() or not kept:
                    break
                if len(kept) <= _CROWD * len(going) and kv_cache.can_drop(cache):
                    chosen = torch.tensor(kept, device=self.device)
                    cache.batch_select_indices(chosen)
                    ids, mask = ids[chosen], mask[chosen]
                    going, speakers[:] = [going[n] for n in kept], [speakers[n] for n in kept]
                    settings = sampling.Rows.build([wanted] * len(going), self.device)
                places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                out = self._model(
                    input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True,
                    logits_to_keep=1,
                )  # fmt: skip
                cache, logits = out.past_key_values, choices.mask(out.logits[:, -1], [row.ids for row in going])
                kv_cache.make_roomy(cache)
                drawn = [row.stream.at(position) for row in going]
                ids = sampling.sample(
                    logits, settings, torch.tensor(drawn, dtype=torch.float64, device=self.device)
                ).unsqueeze(1)
                self._append(going, ids, sampling.logprobs_of(logits, ids.squeeze(1)), wanted, decode, choices)
                mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        return [_sample(row, decode) for row in rows]

    def _pad_left(self, prompts: Sequence[TokenIds], pad: int) -> tuple[Tensor, Tensor]:
        width = max(len(p) for p in prompts)
        ids = [[pad] * (width - len(p)) + list(p) for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    def _append(
        self, rows: list[_Row], ids: Tensor, logprobs: Tensor, wanted: Sampling,
        decode: Callable[[Sequence[int]], str], choices: Choices,
    ) -> None:  # fmt: skip
        for row, token, logprob in zip(rows, ids.squeeze(1).tolist(), logprobs.tolist(), strict=True):
            if row.finish:
                continue
            row.ids.append(token)
            row.logprobs.append(logprob)
            if token in self._stop_ids or choices.is_over(row.ids):
                row.finish = "stop"
            elif wanted.stop:
                _look_for_stop(row, wanted.stop, decode)
            if row.finish is None and len(row.ids) == wanted.max_tokens:
                row.finish = "length"

    def score(self, sequences: Sequence[TokenIds], signals: Sequence[str]) -> list[dict[str, Any]]:
        """As `attention.scoring.score`. Raises ValueError for signals that there are not, or not of this model."""
        from coterie.attention.scoring import score

        with self.weights.speaking(()):
            return [dict(arrays) for arrays in score(self._model, sequences, signals)]


def load_model(folder: str, device: str, dtype: str) -> Any:
    """Weights for inference. Raises what transformers and torch raise (OSError, ValueError, RuntimeError)."""
    from transformers import AutoModelForCausalLM

    models.quiet_transformers()
    place = _pick(device)
    wanted = models.cpu_dtype(dtype) if place.type == "cpu" else dtype
    kind = wanted if wanted == "auto" else getattr(torch, wanted)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=kind).to(place).eval()


def _pick(device: str) -> torch.device:
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _look_for_stop(row: _Row, stops: Sequence[str], decode: Callable[[Sequence[int]], str]) -> None:
    text, is_found = chat.read_on(decode, row.said, row.ids, stops)
    if is_found:
        row.finish, row.text = "stop", text


def _sample(row: _Row, decode: Callable[[Sequence[int]], str]) -> Sample:
    return Sample(
        text=chat.read_on(decode, row.said, row.ids)[0] if row.text is None else row.text,
        finish=row.finish or "length",
        num_prompt_tokens=len(row.prompt),
        num_tokens=len(row.ids),
        prompt_ids=row.prompt,
        token_ids=tuple(row.ids),
        logprobs=tuple(row.logprobs),
    )
