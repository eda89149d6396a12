"""How a small Llama learns with another attention: `python -m coterie.agents.tiny.trial FILE.yaml`.

It learns the lessons of `coterie-tiny` for some steps, and tells the loss on lessons that it has not seen. The file:

    attention: {kind: long_short, window: 64}    # one of `coterie ls attention`; without it, softmax attention
    layers: 4
    steps: 100
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from coterie.agents.engines import models
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.agents.tiny import tokenizer, train
from coterie.attention.choice import Choice
from coterie.attention.replacement import replace_attention
from coterie.config.base import Config
from coterie.config.explain import explain
from coterie.config.problems import InvalidConfig, Mismatch, Problem
from coterie.config.sources import Sources
from coterie.config.tree import Node
from coterie.errors import CoterieError

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

    def faults(self) -> Iterator[Mismatch]:
        """Values that do not fit each other, or else a mechanism that does not fit a causal language model."""
        faults = self.attention.faults() if self.attention else ()
        found = [replace(fault, path=("attention", *fault.path)) for fault in faults]
        if self.width % (2 * self.heads):
            what = f"{self.heads} heads do not share a width of {self.width} in even parts"
            found.append(Mismatch(("heads",), what))
        yield from found
        if self.attention and not found:
            try:
                self._build(self._settings(), tokenizer.build())
            except ValueError as refusal:
                yield Mismatch(("attention",), str(refusal))

    def run(self) -> dict[str, Any]:
        """Train, and say what came of it."""
        settings, text = self._settings(), tokenizer.build()
        model = self._build(settings, text)
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

    def _settings(self) -> train.Settings:
        return replace(
            train.Settings(), seed=self.seed, layers=self.layers, first_layers=self.layers, width=self.width,
            heads=self.heads, inner=self.width * 5 // 2, steps=self.steps, lessons=self.lessons,
            warmup=max(self.steps // 10, 1), threads=1,  # mechanisms count and draw call by call
        )  # fmt: skip

    def _build(self, settings: train.Settings, text: Any) -> Any:
        model = train.build_model(settings, len(text), text.eos_token_id, text.pad_token_id)
        if self.attention is not None:
            replace_attention(model, self.attention.build(), self.seed)
        return model


def read(paths: Iterable[Path]) -> list[Trial]:
    """From YAML files, by the rules of experiment files; `extends` too.

    Raises:
        InvalidConfig: Its text lists every problem of every file.
    """
    roots, problems = list[Node](), list[Problem]()
    for path in paths:
        sources = Sources()
        roots.append(sources.read(path))
        problems += sources.problems or _check(roots[-1])
    if problems:
        raise InvalidConfig(problems)
    return [Trial.model_validate(root.plain()) for root in roots]


def _check(root: Node) -> list[Problem]:
    """What is wrong in one file. Values are compared with each other once each is right in itself."""
    data, errors = root.plain(), list[ErrorDetails]()
    try:
        Trial.model_validate(data)
    except ValidationError as wrong:
        errors = wrong.errors(include_url=False)
    names = {error["loc"][0] for error in errors}
    faults: Iterable[Mismatch] = ()
    if not names & {"attention", "width", "heads"}:
        faults = Trial.model_validate({name: value for name, value in data.items() if name not in names}).faults()
    return [*explain(errors, root, Trial), *(fault.placed(root) for fault in faults)]


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line of JSON for each file; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m coterie.agents.tiny.trial",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="all are checked before the first is run")
    given = parser.parse_args(arguments)
    models.quiet_transformers()
    torch.set_num_threads(1)
    try:
        for trial in read(given.files):
            sys.stdout.write(json.dumps(trial.run()) + "\n")
            sys.stdout.flush()
    except CoterieError as wrong:
        _tell(str(wrong))
        return wrong.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
