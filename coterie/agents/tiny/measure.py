"""What a model of this kind can do, by the roles of the protocol `comas`: `python -m coterie.agents.tiny.measure`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie import rng
from coterie.agents.engines.decoding import CausalModel
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.agents.prompts import template
from coterie.agents.tiny import folder as packaged_folder
from coterie.agents.tiny import formats
from coterie.agents.tiny.arithmetic import Terms, draw_sum
from coterie.text import fence
from coterie.types import Message, Messages, Place, Sample, Sampling

_ANSWER = re.compile(r"^Answer: (-?[0-9]+)$", re.MULTILINE)
_SCORE = re.compile(r"^Score: ([123])$", re.MULTILINE)
_LONGEST = 256
_BATCH = 64


class Speaker:
    """A model folder that replies to prompts, in float32 on the CPU, with counted draws at temperature 1."""

    def __init__(self, folder: Path, seed: int, temperature: float = 1.0) -> None:
        self._model = CausalModel.load(str(folder), "cpu", "float32")
        self._tokenizer = ChatTokenizer.load(str(folder), 2048)
        self._seed, self._sampling = seed, Sampling(temperature=temperature, max_tokens=_LONGEST)

    def reply(self, prompts: Sequence[Messages], purpose: str) -> list[Sample]:
        """One reply to each."""
        encoded = self._tokenizer.encode(prompts, self._sampling)
        keys = [Place(f"{i:05d}", 0, "tiny", purpose=purpose) for i in range(len(prompts))]
        samples: list[Sample] = []
        for at in range(0, len(prompts), _BATCH):
            part = slice(at, at + _BATCH)
            samples += self._model.generate(
                encoded[part], self._sampling, keys[part], self._seed, self._tokenizer.decode,
                self._tokenizer.pad_id, lambda: False,
            )  # fmt: skip
        return samples


def held_out(seed: int, count: int, family: tuple[int, int]) -> list[Terms]:
    """Sums that no lesson was drawn for (four terms of two digits: one in 5 * 10**8 may be in one by chance)."""
    return [draw_sum(rng.stream(seed, "tiny", "held-out", i), *family) for i in range(count)]


def measure(folder: Path, count: int, *, seed: int = 11, family: tuple[int, int] = (4, 2)) -> dict[str, Any]:
    """Each sum is solved, the solution evaluated, the evaluation scored, once, at temperature 1."""
    speaker, tasks = Speaker(folder, seed), held_out(seed, count, family)
    question = [formats.ask(terms) for terms in tasks]
    fill = template("question").fill
    solutions = speaker.reply([_user(fill(question=q, example="")) for q in question], "answer")
    said = [{"question": q, "solution": fence(s.text)} for q, s in zip(question, solutions, strict=True)]
    fill = template("comas_evaluate").fill
    evaluations = speaker.reply([_user(fill(**s)) for s in said], "evaluate")
    fill = template("comas_score").fill
    scorings = speaker.reply(
        [_user(fill(**s, evaluation=fence(e.text))) for s, e in zip(said, evaluations, strict=True)], "score"
    )
    right = np.array([_read(_ANSWER, s.text) == str(sum(t)) for s, t in zip(solutions, tasks, strict=True)])
    scores = [_read(_SCORE, s.text) for s in scorings]
    return {
        "tasks": count,
        "accuracy": round(float(right.mean()), 4),
        "answers_parsed": _share(_read(_ANSWER, s.text) is not None for s in solutions),
        "scores_parsed": _share(score is not None for score in scores),
        "scores": {name: _share(score == name for score in scores) for name in "123"},
        "scorer": _quality(right, np.array([score in ("2", "3") for score in scores])),
        "evaluator": _quality(right, np.array(["Mistake" not in e.text for e in evaluations])),
        "tokens": {
            name: _lengths(samples)
            for name, samples in (("answer", solutions), ("evaluate", evaluations), ("score", scorings))
        },
    }


def _user(text: str) -> Messages:
    return (Message("user", text),)


def _read(form: re.Pattern[str], text: str) -> str | None:
    found = form.findall(text)
    return str(found[0]) if len(found) == 1 else None


def _share(flags: Any) -> float:
    return round(float(np.mean(list(flags))), 4)


def _quality(right: Any, passed: Any) -> dict[str, float]:
    """Of calling a solution right: precision, recall, and Youden's J (recall less the false passes)."""
    recall = float(passed[right].mean()) if right.any() else 0.0
    false = float(passed[~right].mean()) if (~right).any() else 0.0
    precision = float(right[passed].mean()) if passed.any() else 0.0
    return {"precision": round(precision, 4), "recall": round(recall, 4), "youden": round(recall - false, 4)}


def _lengths(samples: Sequence[Sample]) -> dict[str, float]:
    sizes = np.array([s.num_tokens for s in samples])
    low, high = np.percentile(sizes, [5, 95])
    cut = _share(s.finish != "stop" for s in samples)
    prompt = round(float(np.mean([s.num_prompt_tokens for s in samples])), 1)
    return {
        "prompt": prompt,
        "mean": round(float(sizes.mean()), 1),
        "p5": float(low),
        "p95": float(high),
        "unended": cut,
    }


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else packaged_folder()
    sys.stdout.write(json.dumps(measure(place, 512), indent=2) + "\n")
