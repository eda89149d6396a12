"""What a policy's replies are going to earn, as a linear head on its last hidden states expects it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from coterie.agents.learning.lessons import Lesson
from coterie.agents.learning.llm_settings import CriticSettings, LLMSettings
from coterie.agents.learning.losses import value_loss
from coterie.agents.learning.optimisers import Optimiser
from coterie.agents.learning.ranks import Ranks

_PREFIX = "critic."


class Critic:
    """The value head of one policy: V = w h / width + b, zero at first.

    A step of AdamW moves each number of w as far; divided by the width, V moves as far in wide models as in narrow
    ones. The head is no part of what engines load. Where several processes share a model each has all of it.

    Args:
        width: Of hidden states.
        settings: Of the policy's learner.
        critic: Its own.
        dtype: Of w and b.
        device: Where they are.
    """

    def __init__(
        self, width: int, settings: LLMSettings, critic: CriticSettings, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._settings = critic
        shapes: dict[str, tuple[int, ...]] = {"weight": (width,), "bias": ()}
        self._head = {n: nn.Parameter(torch.zeros(s, dtype=dtype, device=device)) for n, s in shapes.items()}
        self._optimiser = Optimiser(self._head, replace(settings, learning_rate=critic.learning_rate))

    def value(self, hidden: Tensor) -> Tensor:
        """Of hidden states [M, width], [M]; the gradient goes on into them times `weight` of the settings."""
        stopped = hidden.detach()
        if self._settings.weight:
            stopped = stopped + self._settings.weight * (hidden - stopped)
        weight = self._head["weight"]
        # Number by number: under autocast a matrix product would be rounded to bfloat16.
        return (stopped.to(weight.dtype) * weight).mean(-1) + self._head["bias"]

    def loss(self, hidden: Tensor, lesson: Lesson, rows: Tensor, weight: Tensor) -> Tensor:
        """What a micro-batch adds to the loss of its minibatch; see `losses.value_loss`.

        Args:
            hidden: Of its tokens, [M, width].
            lesson: With `value` and `target`.
            rows: Where in it they stand, int64 [M].
            weight: Of each, [M].
        """
        assert lesson.value is not None
        assert lesson.target is not None
        value = self.value(hidden)
        old, target, weight = (numbers.to(value) for numbers in (lesson.value[rows], lesson.target[rows], weight))
        return value_loss(value, old, target, weight, self._settings.clip)

    def zero(self) -> None:
        """Forget gradients."""
        self._optimiser.zero()

    def step(self, ranks: Ranks, where: str) -> None:
        """Follow the gradient of all processes together; see `Optimiser.step`."""
        for parameter in self._head.values():
            assert parameter.grad is not None
            ranks.sum(parameter.grad)
        self._optimiser.step(where)

    def state(self) -> dict[str, Tensor]:
        """The head, and what its optimiser remembers, on the CPU; not copies where it is there."""
        head = {name: parameter.detach().cpu() for name, parameter in self._head.items()}
        return {f"{_PREFIX}{name}": tensor for name, tensor in (head | self._optimiser.state()).items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave, which may stand among others; without it the head begins anew."""
        ours = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)}
        head = {name: ours.pop(name, torch.zeros_like(parameter)) for name, parameter in self._head.items()}
        self._optimiser.load(head, ours)
