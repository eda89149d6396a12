"""A rollout as arrays over all tokens of all replies, cut into minibatches, and what learning from it was like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie import rng
from coterie.agents.learning import correction
from coterie.agents.learning.examples import Example
from coterie.agents.learning.kl import estimate
from coterie.agents.learning.llm_settings import CorrectionSettings, LLMSettings
from coterie.agents.learning.losses import explained_variance, ratio
from coterie.agents.learning.packing import Places
from coterie.errors import LearningError


def minibatches(examples: Sequence[Example], count: int, seed: int, *coordinates: str | int) -> Iterator[list[int]]:
    """Numbers of examples, dealt out to `count` hands of nearly equal size, role by role; fewer if some were empty.

    What an example draws for its place is a function of the seed, the coordinates and its key.
    """
    draws = [float(rng.uniforms(seed, *coordinates, example.key, count=1)[0]) for example in examples]
    order = sorted(range(len(examples)), key=lambda n: (examples[n].role, draws[n], examples[n].key))
    for hand in range(min(count, len(order))):
        yield sorted(order[hand::count])


_BY_TOKEN = (
    "roles", "advantage", "engine", "old", "entropy", "reference", "value", "target", "weight", "counts",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lesson:
    """Examples, and numbers over all N tokens of their replies, one after the other.

    Attributes:
        examples: In order.
        replies: The reply that each token is of, int64 [N].
        roles: Its role, a number from 0 in the order of names, int64 [N].
        advantage: [N].
        engine: Log-probabilities of the engine, [N].
        old: Of the learner before the update, [N].
        entropy: Likewise, [N].
        reference: Of the model before training, [N], if that is wanted.
        value: What the critic expected before the update, [N], if there is one.
        target: What it should have expected, likewise.
        weight: What corrects for the engine, [N].
        counts: Whether it is learnt from, bool [N].
        names: Of the roles.
    """

    examples: Sequence[Example]
    replies: Tensor
    roles: Tensor
    advantage: Tensor
    engine: Tensor
    old: Tensor
    entropy: Tensor
    reference: Tensor | None
    value: Tensor | None
    target: Tensor | None
    weight: Tensor
    counts: Tensor
    names: Sequence[str]

    @classmethod
    def of(
        cls, examples: Sequence[Example], old: Tensor, entropy: Tensor, reference: Tensor | None,
        settings: CorrectionSettings | None,
    ) -> Self:  # fmt: skip
        """All tokens of some examples."""
        lengths = torch.tensor([len(example.token_ids) for example in examples], dtype=torch.long)
        replies = torch.arange(len(examples)).repeat_interleave(lengths)
        names = sorted({example.role for example in examples})
        roles = torch.tensor([names.index(example.role) for example in examples], dtype=torch.long)[replies]
        engine, advantage = _join([e.logprobs for e in examples]), _join([e.advantage for e in examples])
        value, target = _join_told([e.value for e in examples]), _join_told([e.target for e in examples])
        weight, counts = correction.correct(old, engine.to(old), replies, settings)
        return cls(
            examples, replies, roles, advantage, engine, old, entropy, reference, value, target, weight, counts, names
        )

    @property
    def places(self) -> Places:
        """Of the tokens of each reply."""
        return Places([len(example.token_ids) for example in self.examples])

    def teaching(self) -> list[int]:
        """The replies that add to the gradient: others count, and need not go through the model."""
        always = self.reference is not None or self.target is not None
        matters = self.counts if always else self.counts & (self.advantage != 0)
        return sorted(set(self.replies[matters].tolist()))

    def part(self, chosen: Sequence[int]) -> Self:
        """The same of some examples."""
        rows = self.places.of(chosen)
        lengths = torch.tensor([len(self.examples[n].token_ids) for n in chosen], dtype=torch.long)
        replies = torch.arange(len(chosen)).repeat_interleave(lengths)
        by_token = {name: numbers[rows] for name in _BY_TOKEN if (numbers := getattr(self, name)) is not None}
        return replace(self, examples=[self.examples[n] for n in chosen], replies=replies, **by_token)

    def refuse_broken(self, log_prob: Tensor, loss: float, where: str) -> None:
        """Refuse to go on where there is a number that is none.

        Args:
            log_prob: Of all tokens, at a step, [N].
            loss: Of the step.
            where: For the error, which also names the first turn that has one.

        Raises:
            LearningError: There is.
        """
        wrong = self.replies[~(log_prob + self.advantage + self.weight).isfinite()].tolist()
        if wrong or loss - loss != 0:
            raise LearningError(
                "the loss is no number any more", where=f"{where}, turn {self.examples[(wrong or [0])[0]].key}",
                remedy="resume from the last checkpoint with a lower learning_rate, or a smaller max_grad_norm",
            )  # fmt: skip


@dataclass
class Tally:
    """What an update was like.

    Its metrics: `loss`, `gradient_norm` (before it was bounded) and `learning_rate`, means over optimiser steps;
    `updates`, `examples`, `tokens`; over tokens `entropy` before the update, `mismatch_*` of `correction.mismatch`,
    `weight` (of the correction), `dropped` (share of tokens that do not count) and `flat` (share of those that do whose
    advantage is 0); and over all steps, of replies that add to the gradient, `ratio`, `clipped` (share), `kl` from the
    policy before the update, and `reference_kl`, if a reference is in the loss. With a critic also `value_loss`, a mean
    over optimiser steps, and over tokens `explained_variance`, of targets by the values before the update.
    """

    lesson: Lesson
    _seen: list[tuple[Lesson, Tensor]] = field(default_factory=list)
    _steps: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, lesson: Lesson, log_prob: Tensor) -> None:
        """Log-probabilities of all tokens of a part of the lesson, at a step."""
        self._seen.append((lesson, log_prob))

    def step(self, loss: float, value_loss: float, norm: float, rate: float) -> None:
        """A step was made."""
        self._steps.append((loss, value_loss, norm, rate))

    def metrics(self, settings: LLMSettings) -> dict[str, float]:
        """All of them, over all tokens and then of each role, as `role/metric`."""
        names = ("loss", "value_loss", "gradient_norm", "learning_rate")
        means = [sum(numbers) / len(numbers) for numbers in zip(*self._steps, strict=True)] or [0.0] * 4
        found = dict(zip(names, means, strict=True)) | {"updates": float(len(self._steps))}
        if settings.critic is None:
            del found["value_loss"]
        found |= self._over(settings, None)
        for number, name in enumerate(self.lesson.names):
            found |= {f"{name}/{metric}": value for metric, value in self._over(settings, number).items()}
        return found

    def _over(self, settings: LLMSettings, role: int | None) -> dict[str, float]:
        lesson = self.lesson
        at = slice(None) if role is None else lesson.roles == role
        old, engine, counts = lesson.old[at], lesson.engine[at], lesson.counts[at]
        found = {
            "examples": float((lesson.replies[at].bincount() > 0).sum()),
            "tokens": float(len(old)),
            "entropy": _mean(lesson.entropy[at]),
            "advantage": _mean(lesson.advantage[at]),
            "weight": _mean(lesson.weight[at]),
            "dropped": _mean(~counts),
            "flat": _mean(lesson.advantage[at][counts] == 0),
        }
        if lesson.value is not None and lesson.target is not None:
            found["explained_variance"] = explained_variance(lesson.value[at], lesson.target[at])
        return found | correction.mismatch(old, engine.to(old)) | self._of_steps(settings, role)

    def _of_steps(self, settings: LLMSettings, role: int | None) -> dict[str, float]:
        ratios, clipped, moved, away = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
        for lesson, log_prob in self._seen:
            at = lesson.counts if role is None else lesson.counts & (lesson.roles == role)
            change = log_prob[at] - lesson.old[at]
            ratios.append(ratio(change))
            clipped.append(settings.loss.clipped(change, lesson.advantage[at].to(change), lesson.replies[at]))
            moved.append(ratio(change) - 1 - change)
            if lesson.reference is not None:
                away.append(estimate(log_prob[at], lesson.reference[at], "k3"))
        found = {"ratio": _mean(*ratios), "clipped": _mean(*clipped), "kl": _mean(*moved)}
        return found | ({"reference_kl": _mean(*away)} if self.lesson.reference is not None else {})


def told_before(examples: Sequence[Example], dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Log-probabilities and entropies that all examples bring along, [N] each; None if one does not."""
    known = [(example.old, example.entropy) for example in examples]
    pairs = [(old, entropy) for old, entropy in known if old is not None and entropy is not None]
    if len(pairs) < len(known) or not pairs:
        return None
    old, entropy = (torch.from_numpy(np.concatenate(numbers)).to(dtype) for numbers in zip(*pairs, strict=True))
    return old, entropy


def _join(parts: Sequence[NDArray[np.floating[Any]]]) -> Tensor:
    return torch.cat([torch.as_tensor(part, dtype=torch.float32) for part in parts] or [torch.empty(0)])


def _join_told(parts: Sequence[NDArray[np.floating[Any]] | None]) -> Tensor | None:
    """The same, where all examples bring it along."""
    told = [part for part in parts if part is not None]
    return _join(told) if told and len(told) == len(parts) else None


def _mean(*parts: Tensor) -> float:
    numbers = torch.cat([part.double() for part in parts]) if parts else torch.empty(0)
    return float(numbers.mean()) if len(numbers) else 0.0
