"""A teacher-forced pass over given tokens: log-probabilities, entropies, and the attention signals of credit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

from coterie.attention.ablation import Head
from coterie.attention.head_roles import HeadRoles, assign_roles, mean_profile, profile_heads
from coterie.attention.introspection import collect
from coterie.attention.statistics_request import StatisticsRequest
from coterie.attention.stats import AttentionStatistics

SIGNALS = ("logprobs", "entropy", "waad", "fai")
ATTENTION = StatisticsRequest(span=True, waad=10, fai=(10, 100))
"""Window and horizon as published (arXiv 2510.13554 v2)."""
# Logits of one chunk: at most this many float32 numbers (64 MB).
_CHUNK_NUMBERS = 1 << 24
_MAX_CHUNK = 512

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


@torch.inference_mode()
def score(
    model: Any, sequences: Sequence[Sequence[int]], signals: Sequence[str], roles: HeadRoles | None = None
) -> list[Arrays]:
    """Signals of each sequence's tokens 1..T-1, float32 [T-1]; sequences are passed one by one, each once.

    `logprobs` (nats, of the token given its prefix) and `entropy` (nats, of the distribution it was drawn from) are the
    same whatever else is asked for. `waad` (tokens, how far local heads look back from the token) and `fai` (mean
    attention that global heads pay to it from 10 to 100 tokens later; 0 for the last 10, which no such token follows)
    are as in arXiv 2510.13554, in five layers of the middle third.

    Args:
        model: A causal language model of transformers; for attention signals one that runs SDPA. No other thread may
            use it meanwhile.
        sequences: Token ids.
        signals: Some of `SIGNALS`.
        roles: Which heads are local and which are global; by default the 30 % of shortest and of longest mean span in
            these very sequences, so that a sequence's signals depend on what it is scored with.

    Raises:
        ValueError: There is no such signal, or no such token; or as `introspection.collect` for attention signals.
    """
    if unknown := set(signals) - set(SIGNALS):
        raise ValueError(f"signals holds {', '.join(sorted(unknown))}, expected some of {', '.join(SIGNALS)}")
    known = model.get_input_embeddings().num_embeddings
    for at, ids in enumerate(sequences):
        if strange := [token for token in ids if not 0 <= token < known]:
            raise ValueError(
                f"sequence {at} has token {strange[0]}, the model 0 to {known - 1}: encode it by the model's tokenizer"
            )
    wants_attention = bool({"waad", "fai"} & set(signals))
    layers = sorted({layer for layer, _ in (*roles.local, *roles.distant)}) if roles else None
    which = replace(ATTENTION, span=roles is None)  # Roles are assigned by span; what is left needs a band of the map.
    scored: list[Arrays] = []
    found: list[dict[int, AttentionStatistics]] = []
    for ids in sequences:
        tokens = torch.tensor([list(ids)], dtype=torch.long, device=model.device)
        if wants_attention and len(ids) > 1:
            with collect(model, which, layers) as statistics:
                scored.append(_score(model, tokens, signals))
        else:
            scored.append(_score(model, tokens, signals))
            statistics = {}
        found.append(statistics)
    if any(found):
        roles = roles or assign_roles(mean_profile([profile_heads(each) for each in found if each]))
    if wants_attention:
        for arrays, statistics in zip(scored, found, strict=True):
            arrays.update(_attention_signals(statistics, roles, signals))
    return [{signal: arrays[signal] for signal in signals} for arrays in scored]


def _score(model: Any, tokens: Tensor, signals: Sequence[str]) -> Arrays:
    """One pass through the layers; logits exist one chunk at a time."""
    parts: dict[str, list[Tensor]] = {name: [torch.empty(0)] for name in ("logprobs", "entropy") if name in signals}
    if tokens.shape[1] > 1:
        states = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
        chunk = max(1, min(_MAX_CHUNK, _CHUNK_NUMBERS // model.get_output_embeddings().weight.shape[0]))
        for begin in range(0, states.shape[1] if parts else 0, chunk):
            table = _logits(model, states[:, begin : begin + chunk])[0].float().log_softmax(-1)
            targets = tokens[0, begin + 1 : begin + 1 + len(table)]
            if "logprobs" in parts:
                parts["logprobs"].append(table.gather(1, targets.unsqueeze(1)).squeeze(1).cpu())
            if "entropy" in parts:
                parts["entropy"].append(torch.special.entr(table.exp()).sum(-1).cpu())
    return {signal: torch.cat(values).numpy() for signal, values in parts.items()}


def _logits(model: Any, states: Tensor) -> Tensor:
    """Logits of states of the last layer, by whatever the model does with them: scales and soft caps too."""
    body = model.base_model
    own = body.__dict__.get("forward")
    body.forward = lambda *_, **__: BaseModelOutputWithPast(last_hidden_state=states)
    try:
        logits: Tensor = model(inputs_embeds=states, use_cache=False).logits
    finally:
        del body.forward
        if own is not None:
            body.forward = own
    return logits


def _attention_signals(
    found: Mapping[int, AttentionStatistics], roles: HeadRoles | None, signals: Sequence[str]
) -> Arrays:
    names = [name for name in ("waad", "fai") if name in signals]
    if not found or roles is None:
        return {name: np.zeros(0, np.float32) for name in names}
    heads = {"waad": roles.local, "fai": roles.distant}
    return {name: mean_over_heads(found, heads[name], name)[0, 1:].cpu().numpy() for name in names}


def mean_over_heads(found: Mapping[int, AttentionStatistics], heads: Sequence[Head], name: str) -> Tensor:
    """The mean of a statistic over heads of several layers, [B, T].

    WAAD and FAI are linear in the map, so this is the statistic of the mean map.
    """
    return torch.stack([getattr(found[layer], name)[:, head] for layer, head in heads]).mean(0)
