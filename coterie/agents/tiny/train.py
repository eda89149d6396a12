"""Makes `coterie-tiny`: `python -m coterie.agents.tiny.train [FOLDER]` (minutes on two cores; `make tiny`).

The same seed on the same machine gives the same weights: lessons and first weights are counted draws, and nothing else
is random.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coterie import rng
from coterie.agents.engines import models
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.agents.tiny import folder as packaged_folder
from coterie.agents.tiny import measure, tokenizer
from coterie.agents.tiny.lessons import Lesson, draw_lesson
from coterie.agents.tiny.muon import Muon
from coterie.attention.mechanisms.auxiliary import auxiliary_losses

IGNORED = -100
"""What `tensors` puts where nothing is predicted."""
MEASURED = 256
"""Sums that the record's numbers come from."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the weights. Heads are 32 wide: vLLM's CPU attention knows no narrower ones.

    The first steps, `deepened` of them, train a model of `first_layers` layers, each of which then becomes two or more:
    these steps take half the time.
    """

    seed: int = 7
    layers: int = 12
    first_layers: int = 6
    deepened: int = 440
    width: int = 128
    heads: int = 4
    inner: int = 320
    context: int = 2048
    steps: int = 820
    lessons: int = 16
    part_tokens: int = 1000
    learning_rate: float = 3e-3
    warmup: int = 60
    weight_decay: float = 0.05
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Ids:
    """A lesson as ids, and for each whether it is learnt."""

    ids: tuple[int, ...]
    is_learnt: tuple[bool, ...]


def build_model(settings: Settings, size: int, end: int, pad: int) -> Any:
    """A Llama of `first_layers` with counted first weights: normal, narrower where a layer adds to the residual."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=size, hidden_size=settings.width, intermediate_size=settings.inner,
        num_hidden_layers=settings.first_layers, num_attention_heads=settings.heads, num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context, tie_word_embeddings=True, bos_token_id=None, eos_token_id=end,
        pad_token_id=pad,
    )  # fmt: skip
    with torch.random.fork_rng():  # what the constructor draws is overwritten, and nobody else's draws change
        model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            spread = 0.04 / math.sqrt(2 * settings.layers) if is_residual else 0.04
            drawn = rng.stream(settings.seed, "tiny", "weights", name).standard_normal(tuple(parameter.shape))
            parameter.data.copy_(torch.from_numpy(spread * drawn))
    return model


def deepen(model: Any, layers: int) -> Any:
    """The same function, computed by more layers: each is followed by copies of itself that add nothing yet.

    A copy adds nothing while what it writes to the residual stream is multiplied by 0, and learns from there, as in
    LLaMA Pro (arXiv 2401.02415, section 3.2).

    Raises:
        ValueError: `layers` is no multiple of the model's.
    """
    before = model.config.num_hidden_layers
    if layers % before:
        raise ValueError(f"{before} layers cannot become {layers}, expected a multiple")
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = layers
    config.layer_types = None
    with torch.random.fork_rng():
        deeper = type(model)(config)
    kept = {name: values for name, values in model.state_dict().items() if ".layers." not in name}
    deeper.load_state_dict(kept, strict=False)
    every = layers // before
    for number, layer in enumerate(deeper.model.layers):
        layer.load_state_dict(model.model.layers[number // every].state_dict())
        if number % every:
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return deeper


def lessons(settings: Settings, encode: Callable[[Lesson], Ids], steps: range) -> Iterator[tuple[int, list[Ids]]]:
    """Steps, and the lessons of each."""
    for step in steps:
        first = step * settings.lessons
        yield step, [encode(draw_lesson(settings.seed, first + i)) for i in range(settings.lessons)]


def encoder(chat: ChatTokenizer, text: Any) -> Callable[[Lesson], Ids]:
    """From lessons to ids, prompts as engines render them.

    Learnt are the reply and what the prompt quotes: peers' words are replies too, and come at no cost.
    """
    marks = {mark: text.convert_tokens_to_ids(mark) for mark in ("<|assistant|>", "<<<\n", "\n>>>", tokenizer.END)}
    opening, closing = {marks["<|assistant|>"], marks["<<<\n"]}, {marks["\n>>>"], marks[tokenizer.END]}

    def encode(lesson: Lesson) -> Ids:
        reply = text.encode(lesson.reply, add_special_tokens=False)
        ids = (*chat.render(lesson.messages), *reply, marks[tokenizer.END])
        flags, is_open = [], False
        for token in ids:
            flags.append(is_open)
            is_open = token in opening or (is_open and token not in closing)
        return Ids(ids, tuple(flags))

    return encode


def split(batch: Sequence[Ids], most: int) -> Iterator[list[Ids]]:
    """Parts of about equal lengths, of at most `most` padded tokens (one that is longer by itself stays whole)."""
    part: list[Ids] = []
    for item in sorted(batch, key=lambda item: len(item.ids)):
        if part and len(item.ids) * (len(part) + 1) > most:
            yield part
            part = []
        part.append(item)
    yield part


def tensors(part: Sequence[Ids], pad: int) -> tuple[Tensor, Tensor]:
    """Ids and what is to be predicted at each place, [batch, length]; padding stands on the right, unseen."""
    width = max(len(item.ids) for item in part)
    ids = torch.full((len(part), width), pad)
    wanted = torch.full((len(part), width), IGNORED)
    for row, item in enumerate(part):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        targets = [i if learnt else IGNORED for i, learnt in zip(item.ids, item.is_learnt, strict=True)]
        wanted[row, : len(item.ids) - 1] = torch.tensor(targets[1:])
    return ids, wanted


def rate(step: int, settings: Settings) -> float:
    """Learning rate: linear warm-up, then a cosine down to a fiftieth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


def learn(
    model: Any, batches: Iterable[tuple[int, list[Ids]]], settings: Settings, pad: int, tell: Callable[[str], None]
) -> None:
    """Muon on the mean loss of each step's predicted tokens."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for _, p in named]
    matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in named if p.dim() != 2 or "embed" in name]
    optimiser = Muon(matrices, others, settings.weight_decay)
    seen, started, recent = 0, time.monotonic(), 0.0
    # A thread of its own for each part: they meet once a step, where the threads of an operator meet at its end, and
    # then wait for whoever else wants the cores. The order of the sum is fixed.
    with ThreadPoolExecutor(settings.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for step, batch in batches:
            parts = list(split(batch, settings.part_tokens))
            found = list(pool.map(lambda part: differentiate(model, parameters, part, pad), parts))
            count = sum(sum(item.is_learnt) for item in batch)
            for index, parameter in enumerate(parameters):
                parameter.grad = sum((gradients[index] for _, gradients in found[1:]), found[0][1][index]) / count
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step(rate(step, settings))
            recent += sum(loss for loss, _ in found) / count
            seen += sum(len(item.ids) for item in batch)
            if (step + 1) % 50 == 0:
                seconds = time.monotonic() - started
                tell(f"step {step + 1}: loss {recent / 50:.4f}, {seen / seconds:.0f} tokens/s, {seconds:.0f} s")
                recent = 0.0


def differentiate(model: Any, parameters: list[Any], part: Sequence[Ids], pad: int) -> tuple[float, tuple[Tensor, ...]]:
    """The summed loss of a part, and its gradient for each parameter, with that of losses that the model has itself."""
    ids, wanted = tensors(part, pad)
    with auxiliary_losses() as own:
        logits = model(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), wanted.flatten(), reduction="sum", ignore_index=IGNORED
    )
    learnt = sum(sum(item.is_learnt) for item in part)
    return loss.item(), torch.autograd.grad(loss + learnt * sum(own), parameters, materialize_grads=True)


def train(settings: Settings, text: Any, tell: Callable[[str], None]) -> Any:
    """A model that has learnt all lessons, its tokenizer given."""
    model = build_model(settings, len(text), text.eos_token_id, text.pad_token_id)
    encode = encoder(ChatTokenizer(text, settings.context), text)
    learn(model, lessons(settings, encode, range(settings.deepened)), settings, text.pad_token_id, tell)
    model = deepen(model, settings.layers)
    learn(model, lessons(settings, encode, range(settings.deepened, settings.steps)), settings, text.pad_token_id, tell)
    return model


def make(target: Path, settings: Settings, tell: Callable[[str], None]) -> None:
    """Train, and write the model's folder: weights in bfloat16, tokenizer, and a record of how they were made."""
    torch.set_num_threads(1)
    models.quiet_transformers()
    text = tokenizer.build()
    started, computed = time.monotonic(), time.process_time()
    model = train(settings, text, tell)
    seconds, computed = time.monotonic() - started, time.process_time() - computed
    model.to(torch.bfloat16).save_pretrained(target)
    text.save_pretrained(target)
    facts: dict[str, Any] = {
        "sha256": hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest(),
        "command": "make tiny",
        "parameters": sum(p.numel() for p in model.parameters()),
        "settings": asdict(settings),
        "seconds": round(seconds),
        "cpu_seconds": round(computed),
        "measured": measure.measure(target, MEASURED),
    }
    (target / "coterie.json").write_text(json.dumps(facts, indent=2) + "\n")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else packaged_folder(), Settings(), _tell)
