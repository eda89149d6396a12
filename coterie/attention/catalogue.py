"""The page of all mechanisms, made from the mechanisms: `python -m coterie.attention.catalogue docs`.

It writes a picture of each, drawn from what its module computes, and the section of `attention.md` that shows them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coterie import registry
from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Features, Heads, Mechanism, Options

HEADS = Heads(4, 4, 8, 10)
TOKENS = 36
"""A plane of 6 x 6 where a mechanism wants a grid."""
BEGIN, END = "<!-- made by python -m coterie.attention.catalogue docs: begin -->", "<!-- end -->"
PICTURES = Path("images") / "mechanisms"
NOTHING_MEASURED: Mapping[str, Any] = {}
_BATCH = 6
"""Sequences, where these meet."""
_LEAST = 0.1
"""Parameters that are all smaller are drawn larger: the first ones of some show nothing."""
_PIXELS = 4
_NOTHING = 1e-30
_PAPER, _INK, _FRAME = (torch.tensor(rgb) for rgb in ((1.0, 1.0, 1.0), (0.03, 0.19, 0.42), (0.6, 0.6, 0.6)))


def reach(mechanism: Options) -> Tensor:
    """How much each token's output follows the value of each token, [heads or 1, rows, TOKENS].

    For softmax attention these are its weights: the length of the gradient of o_i.r, |r| = 1, by v_j. Where sequences
    meet, the tokens are those of a batch, sequence after sequence. A pooled vector has a row for each of its numbers.
    """
    assert isinstance(mechanism, Mechanism | Features)
    draw, module = torch.Generator().manual_seed(2), _make(mechanism)
    batch = _BATCH if mechanism.meets_batch else 1
    tokens = TOKENS // batch
    context = mechanism.context(tokens, draw, HEADS, batch).to(dtype=torch.float64)
    q, k, v = torch.randn(3, batch, HEADS.queries, tokens, HEADS.width, generator=draw, dtype=torch.float64)
    if isinstance(mechanism, Features):
        source = torch.randn(batch, tokens, HEADS.features, generator=draw, dtype=torch.float64).requires_grad_()
        o = module(source, context)
        o = o[:, None] if o.dim() == 3 else o[:, None, :, None]
    else:
        source = v.requires_grad_()
        # Short queries: weights differ little, so that masks and biases are what one sees.
        o = module(0.5 * q, k, source, context)
    direction = nn.functional.normalize(torch.ones(o.shape[-1], dtype=o.dtype), dim=0)
    rows = (o @ direction).transpose(0, 1).flatten(1)
    found = [torch.autograd.grad(row, source, retain_graph=True)[0] for row in rows.flatten()]
    lengths = torch.stack(found).square().sum(-1)
    lengths = lengths if isinstance(mechanism, Features) else lengths.sum(2)
    return lengths.sqrt().view(*rows.shape, TOKENS).detach()


def _make(mechanism: Options) -> nn.Module:
    """Its module with parameters that show something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        module = mechanism.module(HEADS).double().eval()
        for parameter in module.parameters():
            if parameter.abs().max() < _LEAST:
                nn.init.normal_(parameter, std=0.5)
    return module


def draw(mechanism: Options) -> Tensor:
    """Up to two heads that see different tokens, [height, width, 3]: a row for each query, darker is more."""
    heads = reach(mechanism)
    shown = [heads[0]]
    shown += [head for head in heads if not torch.equal(head > _NOTHING, shown[0] > _NOTHING)][:1]
    panels = [_panel(head) for head in shown]
    gap = torch.ones(panels[0].shape[0], _PIXELS, 3)
    return torch.cat([part for panel in panels for part in (gap, panel)][1:], 1)


def _panel(head: Tensor) -> Tensor:
    shade = (head / head.max()).sqrt() * (head > _NOTHING)
    tall = max(_PIXELS, TOKENS // len(head))
    shade = shade.repeat_interleave(tall, 0).repeat_interleave(_PIXELS, 1)[..., None]
    rest = torch.where(shade > 0, 0.15 + 0.85 * shade, 0).float()
    panel = _PAPER + rest * (_INK - _PAPER)
    for edge in (panel[0], panel[-1], panel[:, 0], panel[:, -1]):
        edge[:] = _FRAME
    return panel


def section(measured: Mapping[str, Any] = NOTHING_MEASURED) -> str:
    """The part of the page between the marks, with a row for each registered mechanism.

    Args:
        measured: What `benchmarks/attention_mechanisms.py` has written, if anything.
    """
    rows = []
    for entry in registry.entries("attention"):
        gains = measured.get("mechanisms", {}).get(entry.name)
        rows.append(_row(registry.load(entry.impl), [_speed(gains)] if gains else []))
    return "\n".join([BEGIN, "| | |", "|---|---|", *rows, END])


def _speed(gains: Mapping[str, float]) -> str:
    forward, both = (_gain(gains[name]) for name in ("forward", "with_backward"))
    threads = f"{gains['threads']} CPU thread{'s' * (gains['threads'] > 1)}"
    return f"on {threads} at {gains['tokens']} tokens, beside dense SDPA: {forward}, with a backward pass {both}"


def _gain(times: float) -> str:
    return f"{times} times as fast{' (slower)' * (times < 1)}"


def load_measured(docs: Path) -> Mapping[str, Any]:
    """What was measured, from the repository that `docs` belongs to."""
    path = docs.parent / "benchmarks" / "results" / "attention_mechanisms.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else NOTHING_MEASURED


def _row(mechanism: type[Options], speed: list[str]) -> str:
    about, options = mechanism.about, ", ".join(f"{f.name}={f.default!r}" for f in dataclasses.fields(mechanism))
    needed, chosen = ", ".join(needs(mechanism.small())) or "nothing more", f"`{options}`" if options else "none"
    lines = [
        f"**{about.name}**: {about.title}", *(f"`{line}`" for line in about.formula.splitlines()),
        f"cost {about.cost}", *speed, f"needs {needed}; options {chosen}",
        re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", about.source),
    ]  # fmt: skip
    said = "<br>".join(line.replace("|", "\\|") for line in lines)
    return f"| ![{about.name}]({(PICTURES / about.name).as_posix()}.png) | {said} |"


def needs(mechanism: Options) -> list[str]:
    """What a context must hold for it, in words."""
    context = mechanism.context(TOKENS, torch.Generator().manual_seed(0), HEADS, 1)
    tokens, data = (_given(x) for x in (context.data.queries, context.data))
    more = [name for name in (*tokens, *data) if name not in ("queries", "keys")]
    first = ["a grid"] * (context.grid is not None) + ["hidden states"] * (context.features is not None)
    return first + [f"`{name}`" for name in more]


def _given(part: Tokens | Data) -> list[str]:
    return [f.name for f in dataclasses.fields(part) if getattr(part, f.name) is not None]


def write(docs: Path) -> None:
    """Pictures under `docs`, and the section in its `attention.md`."""
    import matplotlib.image

    folder, page = docs / PICTURES, docs / "attention.md"
    folder.mkdir(parents=True, exist_ok=True)
    for entry in registry.entries("attention"):
        matplotlib.image.imsave(folder / f"{entry.name}.png", draw(registry.load(entry.impl).small()).numpy())
    text = page.read_text("utf-8")
    before, rest = text.split(BEGIN)
    page.write_text(before + section(load_measured(docs)) + rest.split(END)[1], "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
