"""What token credit adds to the pass that gives old log-probabilities: ours, and a rival that makes the maps.

One policy, replies of a given length after a short prompt, heads sorted beforehand. Rounds of the pass alone, of the
pass with `waad` and `fai`, and of the rival are timed in turn, since the speed of the machine drifts; the overhead is
the median over rounds of the ratio within a round. On a CPU it is the time of its threads that is taken, so that others
on the machine matter less, and `statistics` is the share of the pass that is spent inside of the statistics themselves:
the overhead without the noise of everything else. Rival: plain torch inside the same pass, softmax of the scores of
the same heads of the same layers, kept whole, from which the same two numbers are summed.

Correct first: ours is compared with the rival before anything is timed.

    python benchmarks/credit_overhead.py [--tokens 1024] [--repeats 9] [--model smollm2-135m] [--replies 2] [--alone]

`--alone` leaves the rival out of the rounds, where time is short. Without `--model` a random Llama of the same shape as
SmolLM2-135M is made: speed does not depend on weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from _results import save, save_gpu, spread, timed

from coterie import rng
from coterie.agents.learning.examples import Example
from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_settings import LLMSettings
from coterie.agents.learning.signals import Roles
from coterie.attention import introspection
from coterie.attention.ablation import by_layer
from coterie.attention.interception import Attended, listen
from coterie.types import SignalRequest

REQUEST = SignalRequest(frozenset({"waad", "fai"}))
PROMPT, TARGET = 32, 0.01


def write_model(folder: Path, shape: str) -> str:
    """A random Llama of the shape of SmolLM2-135M, or of `coterie-tiny`'s size for a quick look."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "smollm2-135m": {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                         "num_attention_heads": 9, "num_key_value_heads": 3},
        "small": {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 12,
                  "num_attention_heads": 8, "num_key_value_heads": 4},
    }  # fmt: skip
    config = LlamaConfig(**sizes[shape], max_position_embeddings=16384, tie_word_embeddings=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def replies(count: int, tokens: int, vocabulary: int) -> list[Example]:
    """Each `tokens` long with its prompt."""
    found = []
    for number in range(count):
        ids = tuple(map(int, rng.stream(0, "credit overhead", number).integers(3, vocabulary, tokens)))
        zeros = np.zeros(tokens - PROMPT, np.float32)
        found.append(Example(f"{number}", "answer", ids[:PROMPT], ids[PROMPT:], zeros, zeros))
    return found


class Rival:
    """WAAD and FAI of the same heads from maps that are made whole, in the same pass; rows of one reply each."""

    def __init__(self, learner: LanguageLearner, roles: Roles, tokens: int) -> None:
        self.learner, self.model = learner, learner._base.teacher.model
        pairs = {name: [(layer, head) for layer, head in roles[name]] for name in ("local", "distant")}  # type: ignore[literal-required]
        self.heads = {name: by_layer(self.model, heads) for name, heads in pairs.items()}
        behind = torch.arange(tokens, device=learner.device)[:, None] - torch.arange(tokens, device=learner.device)
        is_said = behind[:, 0] >= PROMPT
        (window, (low, high)) = REQUEST.window, REQUEST.horizon
        self.is_future, self.capped = behind < 0, behind.clamp(0, window).float()
        self.horizon = ((behind >= low) & (behind <= (high or tokens)) & is_said[:, None]).float()
        self.waad: list[Tensor] = []
        self.fai: list[Tensor] = []

    def _maps(self, heard: Attended, heads: Sequence[int]) -> Tensor:
        group = heard.query.shape[1] // heard.key.shape[1]
        query, key = heard.query[:, heads], heard.key[:, [head // group for head in heads]]
        scores = (query.float() @ key.float().mT).mul_(heard.scale)
        return scores.masked_fill_(self.is_future, -torch.inf).softmax(-1)

    def hear(self, heard: Attended) -> None:
        local, distant = (self.heads[name].get(heard.layer) for name in ("local", "distant"))
        with torch.autocast(self.learner.device.type, enabled=False):
            if local:
                self.waad.append((self._maps(heard, local) * self.capped).sum(-1))
            if distant:
                count = self.horizon.sum(0).clamp(min=1)
                self.fai.append((self._maps(heard, distant) * self.horizon).sum(-2) / count)

    def __call__(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        self.waad, self.fai = [], []
        layers = sorted({*self.heads["local"], *self.heads["distant"]})
        with listen(self.model, self.hear, layers):
            self.learner.logprobs("policy", examples)
        return torch.cat(self.waad, 1).mean(1)[:, PROMPT:], torch.cat(self.fai, 1).mean(1)[:, PROMPT:]


class Stopwatch:
    """The time of this process's threads inside of the statistics, milliseconds."""

    def __init__(self) -> None:
        self.spent, self._real = 0.0, introspection.attention_statistics

    def __enter__(self) -> Stopwatch:
        introspection.attention_statistics = self._timed  # type: ignore[assignment]
        return self

    def __exit__(self, *error: object) -> None:
        introspection.attention_statistics = self._real

    def _timed(self, *arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        found = self._real(*arguments, **named)
        self.spent += (time.process_time() - start) * 1e3
        return found


def check(learner: LanguageLearner, rival: Rival, examples: Sequence[Example], roles: Roles) -> dict[str, float]:
    """The largest differences of one reply. Raises AssertionError above 1e-3 of the largest value."""
    (found,), theirs = learner.score("policy", examples[:1], REQUEST, roles), rival(examples[:1])
    worst = {}
    for name, other in zip(("waad", "fai"), theirs, strict=True):
        wanted = other[0].float().cpu().numpy()
        worst[name] = float(np.abs(found[name] - wanted).max() / np.abs(wanted).max())
        assert worst[name] < 1e-3, f"{name} differs by {worst[name]}"
    return worst


def measure(model: str, device: str, tokens: int, count: int, repeats: int, alone: bool) -> dict[str, Any]:
    learner = LanguageLearner(model, ("policy",), LLMSettings(micro_batch_tokens=tokens), device, 0)
    examples = replies(count, tokens, learner._base.teacher.model.config.vocab_size)
    roles = learner.assign_roles("policy", examples[:1], REQUEST)
    rival = Rival(learner, roles, tokens)
    differences = check(learner, rival, examples, roles)
    works: dict[str, Callable[[], object]] = {
        "pass": lambda: learner.logprobs("policy", examples),
        "with signals": lambda: learner.score("policy", examples, REQUEST, roles),
        **({} if alone else {"with maps": lambda: rival(examples)}),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    inside = list[float]()
    for repeat in range(repeats + 1):  # a first round warms up
        for name, work in works.items():
            with Stopwatch() as watch:
                took = timed(work, device) if device == "cuda" else _spent(work)
            if repeat:
                times[name].append(took)
            if repeat and name == "with signals":
                inside.append(watch.spent)
    shares = {
        name: [other / plain - 1 for other, plain in zip(times[name], times["pass"], strict=True)]
        for name in works
        if name != "pass"
    }
    within = {} if device == "cuda" else {
        "statistics": round(statistics.median(inside) / statistics.median(times["pass"]), 4)
    }  # fmt: skip
    return {
        "tokens": tokens, "replies": count, "layers": roles["layers"], "heads": [len(roles["local"])] * 2,
        "relative difference": differences, "ms": {name: spread(values) for name, values in times.items()},
        "overhead": {name: round(statistics.median(values), 4) for name, values in shares.items()} | within,
        "target": TARGET, "threads": torch.get_num_threads(),
    }  # fmt: skip


def _spent(work: Callable[[], object]) -> float:
    """Milliseconds of this process's threads."""
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--replies", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--model", default="")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--shape", choices=("smollm2-135m", "small"), default="smollm2-135m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.model:
            from coterie.agents.engines import models

            model = models.resolve(given.model)
        else:
            model = write_model(Path(folder, "model"), given.shape)
        result = measure(model, given.device, given.tokens, given.replies, given.repeats, given.alone)
    result = {"model": given.model or f"random, {given.shape}", **result}
    (save_gpu if given.device == "cuda" else save)("credit_overhead", result)


if __name__ == "__main__":
    main()
