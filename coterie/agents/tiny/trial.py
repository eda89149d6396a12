"""How a small Llama learns with another attention: `python -m coterie.agents.tiny.trial FILE.yaml`.

It learns the lessons of `coterie-tiny` for some steps, and tells the loss on lessons that it has not seen. The file:

    attention: {kind: long_short, window: 64}    # one of `coterie ls attention`; without it, softmax attention
    layers: 4
    steps: 100
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError

from coterie.agents.engines import models
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.agents.tiny import tokenizer, train
from coterie.attention.choice import Choice
from coterie.config.base import Config
from coterie.config.problems import render
from coterie.config.yaml import parse
from coterie.errors import ConfigError, CoterieError

_UNSEEN = 1_000_000
"""Number of the first lesson, in steps, that no training gets to."""


class Trial(Config):
    """One training."""

    attention: Choice | None = None
    """One of `coterie ls attention`, and its options."""
    seed: int = Field(7, ge=0)
    layers: int = Field(4, ge=1)
    width: int = Field(128, ge=32)
    heads: int = Field(4, ge=1)
    """They share the width."""
    steps: int = Field(100, ge=1)
    lessons: int = Field(16, ge=1)
    """Of each step."""
    unseen: int = Field(64, ge=1)
    """Lessons that the loss is told of."""

    @classmethod
    def read(cls, path: Path) -> Trial:
        """From a YAML file.

        Raises:
            ConfigError: It is none, or a value does not fit.
        """
        node, problems = parse(path.read_text("utf-8"), str(path))
        if problems:
            raise ConfigError(render(problems))
        try:
            return cls.model_validate(node.plain() or {})
        except ValidationError as wrong:
            first = wrong.errors()[0]
            raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", where=str(path)) from None

    def run(self) -> dict[str, Any]:
        """Train, and say what came of it.

        Raises:
            ConfigError: The mechanism does not fit a causal language model.
        """
        settings = replace(
            train.Settings(), seed=self.seed, layers=self.layers, first_layers=self.layers, width=self.width,
            heads=self.heads, inner=self.width * 5 // 2, steps=self.steps, lessons=self.lessons,
            warmup=max(self.steps // 10, 1), threads=1,  # mechanisms count and draw call by call
        )  # fmt: skip
        text = tokenizer.build()
        model = train.build_model(settings, len(text), text.eos_token_id, text.pad_token_id)
        self._replace_attention(model)
        encode = train.encoder(ChatTokenizer(text, settings.context), text)
        started = time.monotonic()
        train.learn(model, train.lessons(settings, encode, range(self.steps)), settings, text.pad_token_id, _tell)
        seconds = time.monotonic() - started
        drawn = replace(settings, lessons=self.unseen)
        (_, unseen), *_ = train.lessons(drawn, encode, range(_UNSEEN // self.unseen, _UNSEEN // self.unseen + 1))
        return {
            "attention": None if self.attention is None else self.attention.model_dump(),
            "parameters": sum(p.numel() for p in model.parameters()),
            "loss": round(_loss(model, unseen, settings.part_tokens, text.pad_token_id), 4),
            "seconds": round(seconds, 1),
        }

    def _replace_attention(self, model: Any) -> None:
        if self.attention is None:
            return
        from coterie.attention.replacement import replace_attention

        try:
            replace_attention(model, self.attention.build(), self.seed)
        except ValueError as refusal:
            raise ConfigError(str(refusal), where="attention") from None


@torch.no_grad()
def _loss(model: Any, batch: list[train.Ids], part_tokens: int, pad: int) -> float:
    """Mean of the replies' tokens."""
    model.eval()
    total = 0.0
    for part in train.split(batch, part_tokens):
        ids, wanted = train.tensors(part, pad)
        logits = model(input_ids=ids, use_cache=False).logits
        total += float(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), wanted.flatten(), reduction="sum", ignore_index=train.IGNORED
            )
        )
    return total / sum(sum(item.is_learnt) for item in batch)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main(arguments: list[str]) -> int:
    """Print one line of JSON for each file; the exit code."""
    models.quiet_transformers()
    torch.set_num_threads(1)
    try:
        for path in arguments:
            sys.stdout.write(json.dumps(Trial.read(Path(path)).run()) + "\n")
            sys.stdout.flush()
    except (CoterieError, OSError) as wrong:
        _tell(str(wrong))
        return getattr(wrong, "exit_code", 2)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
