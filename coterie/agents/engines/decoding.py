"""A causal language model of transformers: the token loop over a left-padded batch, and the teacher-forced pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from coterie.agents.engines import kv_cache, models, shared_cache
from coterie.agents.engines.live import LiveWeights
from coterie.agents.engines.replies import Reply, Writer
from coterie.agents.engines.shared_cache import Group, tabulate
from coterie.errors import EngineError
from coterie.types import EncodedPrompt, Place, Sample, Sampling, TokenIds


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
        writer = Writer(wanted, self._stop_ids, decode, spelt)
        replies = [Reply.begin(prompt, key, seed) for prompt, key in zip(prompts, keys, strict=True)]
        ids, mask = self._pad_left([reply.prompt for reply in replies], pad)
        cache, going = None, replies
        with self.weights.speaking([reply.adapter for reply in replies]) as speakers:
            while not beat() and not all(reply.finish for reply in going):
                kept = kv_cache.drop(cache, [bool(reply.finish) for reply in going])
                if len(kept) < len(going):
                    ids, mask = ids[kept], mask[kept]
                    going, speakers[:] = [going[n] for n in kept], [speakers[n] for n in kept]
                places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                logits, cache = self._read(ids, places, mask, cache, 1)
                ids = writer.go_on(going, logits[:, -1]).unsqueeze(1)
                mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        return [writer.sample(reply) for reply in replies]

    @torch.inference_mode()
    def generate_together(
        self,
        groups: Sequence[Group],
        wanted: Sampling,
        decode: Callable[[Sequence[int]], str],
        pad: int,
        beat: Callable[[], bool],
        spelt: Sequence[TokenIds] = (),
    ) -> list[Sample]:
        """One sample per thinker, group after group; else as `generate`.

        Raises:
            EngineError: as `generate`, or some layer of this model does not keep all tokens.
        """
        writer, going, cache = Writer(wanted, self._stop_ids, decode, spelt), list(groups), None
        with self.weights.speaking([group.replies[0].adapter for group in groups]) as speakers:
            seen = cells = tabulate([group.opening() for group in groups], pad, self.device)
            for step in range(-1, wanted.max_tokens - 1):
                if beat() or all(group.is_over for group in going):
                    break
                kept = kv_cache.drop(cache, [group.is_over for group in going])
                if len(kept) < len(going):
                    seen = seen[kept]
                    going, speakers[:] = [going[n] for n in kept], [speakers[n] for n in kept]
                newest = tabulate([group.newest(step, pad) for group in going], pad, self.device)
                cells = newest if step >= 0 else torch.cat([cells, newest], 1)
                seen = torch.cat([seen, newest], 1)
                mask = shared_cache.attended(cells, seen, self._model.dtype)
                logits, cache = self._read(cells[..., 0], cells[..., 1], mask, cache, newest.shape[1])
                _check_plain(cache)
                shared_cache.go_on(going, logits, writer)
        return [sample for group in groups for sample in group.samples(writer)]

    def _read(self, ids: Tensor, places: Tensor, mask: Tensor, cache: Any, keep: int) -> tuple[Tensor, Any]:
        """Logits of the last `keep` tokens [B, keep, V], and the cache with all of them."""
        out = self._model(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True,
            logits_to_keep=keep,
        )  # fmt: skip
        kv_cache.make_roomy(out.past_key_values)
        return out.logits, out.past_key_values

    def _pad_left(self, prompts: Sequence[TokenIds], pad: int) -> tuple[Tensor, Tensor]:
        width = max(len(p) for p in prompts)
        ids = [[pad] * (width - len(p)) + list(p) for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

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


def _check_plain(cache: Any) -> None:
    if not kv_cache.can_drop(cache):
        raise EngineError(
            "thinkers cannot share the cache of this model, whose layers do not keep every token",
            remedy="use a model in which all layers attend to all tokens, or `granularity: chunk`",
        )
