"""What a language model's attention does with one text: statistics of every head, roles, and signals of every token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coterie.agents.engines import decoding, models
from coterie.attention.ablation import Head, by_layer
from coterie.attention.head_roles import HeadProfile, HeadRoles, assign_roles, profile_heads
from coterie.attention.interception import full_layers
from coterie.attention.introspection import collect, middle_layers
from coterie.attention.scoring import mean_over_heads, score
from coterie.attention.statistics_request import StatisticsRequest
from coterie.attention.stats import AttentionStatistics
from coterie.errors import ConfigError, EnvironmentMissing
from coterie.experiments.provenance import versions

Floats = np.ndarray[Any, np.dtype[np.float32]]
_SENTENCE_END = re.compile(r"[.!?:;]['\")\]]*\s*$|\n")


@dataclass(frozen=True, slots=True)
class Options:
    """What to look at."""

    layers: tuple[int, ...] = ()
    """Where local and global heads are sought; by default five layers of the middle third."""
    heads: tuple[Head, ...] = ()
    """Read WAAD and FAI from these heads instead of from local and global ones."""
    window: int = 10
    """W of WAAD, in tokens."""
    horizon: tuple[int, int] = (10, 100)
    """From where to where after a token FAI looks, in tokens."""
    max_tokens: int = 2048
    """What comes after so many tokens is not read."""
    without_sink: bool = False
    """Leave the first token out of spans, and the first sentence out of kurtoses."""


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """Everything the picture and the JSON show."""

    model: str
    weights: str
    options: Options
    ids: list[int]
    pieces: list[str]
    """Tokens as text."""
    num_tokens: int
    """Of the whole text; more than `ids` where it was cut."""
    sentences: int
    signals: dict[str, Floats]
    """Each [T]: `logprobs`, `entropy` (NaN for the first token), `waad`, `fai` (NaN for an empty horizon)."""
    profile: HeadProfile
    entropy: Tensor
    """Mean entropy of each head's attention, nats: [L, Hq] as in the profile."""
    roles: HeadRoles
    """Local and global heads are those that the signals were read from."""


def load(model: str) -> tuple[Any, Any, str]:
    """Model, tokenizer and folder of a built-in name, a folder or a hub id.

    Raises:
        EnvironmentMissing: It cannot be found, or does not fit.
    """
    folder = models.resolve(model)
    models.quiet_transformers()
    from transformers import AutoTokenizer

    try:
        return decoding.load_model(folder, "auto", "auto"), AutoTokenizer.from_pretrained(folder), folder
    except (OSError, ValueError) as cause:
        raise models.missing(model, cause) from cause
    except (MemoryError, RuntimeError) as cause:
        raise EnvironmentMissing(
            f"the model {model} does not fit or does not run here: {str(cause)[:300]}", remedy="use a smaller model"
        ) from cause


def inspect(name: str, text: str, options: Options) -> Inspection:
    """One pass of a model over a text.

    Raises:
        EnvironmentMissing: There is no such model here.
        ConfigError: The text is shorter than two tokens, a layer or head is not there, or attention cannot be read.
    """
    model, tokenizer, folder = load(name)
    all_ids = tokenizer.encode(text)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or options.max_tokens
    ids = all_ids[: min(options.max_tokens, limit)]
    if len(ids) < 2:
        raise ConfigError("the text is too short: attention needs at least two tokens", remedy="give a longer text")
    _check_places(model, name, options)
    pieces = _pieces(tokenizer, ids)
    labels = sentence_labels(pieces)
    try:
        scored, found = _pass(model, ids, labels, options)
        profile = profile_heads(found, without_sink=options.without_sink)
        roles = _roles(model, profile, options)
    except ValueError as cause:
        raise ConfigError(f"cannot read this model's attention: {cause}", where=name) from cause
    entropy = torch.stack([found[layer].head_means()["entropy"] for layer in profile.layers])
    signals = scored | _attention_signals(found, roles)
    return Inspection(
        model=name, weights=models.fingerprint(folder), options=options, ids=ids, pieces=pieces,
        num_tokens=len(all_ids), sentences=max(labels) + 1, signals=signals, profile=profile, entropy=entropy,
        roles=roles,
    )  # fmt: skip


def sentence_labels(pieces: Sequence[str]) -> list[int]:
    """The number of each token's sentence, from 0. A sentence ends with a mark, or where a line does."""
    labels, current = [], 0
    for index, piece in enumerate(pieces):
        labels.append(current)
        current += bool(_SENTENCE_END.search(piece)) and index + 1 < len(pieces)
    return labels


def as_json(found: Inspection) -> dict[str, Any]:
    """Everything that was found; what is not known is null."""
    profile, roles = found.profile, found.roles
    measures = {"span": profile.span, "sink": profile.sink, "kurtosis": profile.kurtosis, "entropy": found.entropy}
    named = {"local": roles.local, "global": roles.distant, "receiver": roles.receiver, "sink": roles.sink}
    heads = [
        {
            "layer": layer, "head": head,
            **{name: _number(table[row, head].item()) for name, table in measures.items()},
            "roles": [name for name, members in named.items() if (layer, head) in members],
        }
        for row, layer in enumerate(profile.layers) for head in range(profile.span.shape[1])
    ]  # fmt: skip
    return {
        "model": found.model, "weights": found.weights, "window": found.options.window,
        "horizon": list(found.options.horizon), "without_sink": found.options.without_sink,
        "tokens_of_text": found.num_tokens, "sentences": found.sentences,
        "tokens": {
            "id": found.ids, "text": found.pieces,
            **{name: [_number(value) for value in values.tolist()] for name, values in found.signals.items()},
        },
        "heads": heads, "versions": versions(),
    }  # fmt: skip


def _pass(
    model: Any, ids: list[int], labels: list[int], options: Options
) -> tuple[dict[str, Floats], dict[int, AttentionStatistics]]:
    """Log-probabilities and the statistics of all layers that see the whole text, from one forward pass."""
    which = StatisticsRequest(
        span=True, entropy=True, sink=1, waad=options.window, fai=options.horizon, mass=max(labels) + 1
    )
    given = torch.tensor([labels], device=model.device)
    with collect(model, which, full_layers(model), labels=given) as found:
        scored = score(model, [ids], ["logprobs", "entropy"])[0]
    return {name: np.concatenate([[np.nan], values]).astype(np.float32) for name, values in scored.items()}, found


def _check_places(model: Any, name: str, options: Options) -> None:
    """Refuse layers and heads that are not there, before anything is computed."""
    try:
        by_layer(model, options.heads)
    except ValueError as cause:
        raise ConfigError(str(cause), where=name, remedy="choose --heads among those, counted from 0") from cause
    whole = full_layers(model)
    if missing := sorted({*options.layers, *(layer for layer, _ in options.heads)} - set(whole)):
        known = f"0 to {len(whole) - 1}" if whole == list(range(len(whole))) else ", ".join(map(str, whole))
        what = f"layer {missing[0]} is none of those that see the whole text"
        raise ConfigError(what, where=name, remedy=f"choose among layers {known}")


def _roles(model: Any, profile: HeadProfile, options: Options) -> HeadRoles:
    """Receivers and sinks of all layers; local and global heads as asked for, or of the middle layers."""
    everywhere = assign_roles(profile)
    layers = sorted(options.layers or middle_layers(model))
    rows = [profile.layers.index(layer) for layer in layers]
    part = HeadProfile(tuple(layers), profile.span[rows], profile.sink[rows], profile.kurtosis[rows])
    chosen = assign_roles(part)
    return HeadRoles(
        options.heads or chosen.local, options.heads or chosen.distant, everywhere.receiver, everywhere.sink
    )


def _attention_signals(found: dict[int, AttentionStatistics], roles: HeadRoles) -> dict[str, Floats]:
    waad = mean_over_heads(found, roles.local, "waad")[0].cpu().numpy()
    fai = mean_over_heads(found, roles.distant, "fai")[0].cpu().numpy()
    counts = next(iter(found.values())).fai_queries
    assert counts is not None
    return {"waad": waad, "fai": np.where(counts[0].cpu().numpy() > 0, fai, np.nan).astype(np.float32)}


def _pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token as the text it stands for; a part of a character is shown as the replacement character."""
    return [str(tokenizer.decode([token], skip_special_tokens=False)) for token in ids]


def _number(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None
