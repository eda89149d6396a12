"""AdamW of one policy, with what can be written down of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from coterie.agents.learning.llm_settings import LLMSettings
from coterie.agents.learning.ranks import part_of, whole
from coterie.errors import LearningError, ResumeError

_STEPS = "steps"
_EPSILON = 1e-8


class Optimiser:
    """Steps of AdamW with a bounded gradient and a learning rate that rises at first."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: LLMSettings) -> None:
        self._parameters, self._settings, self._steps = dict(parameters), settings, 0
        self._adam = torch.optim.AdamW(
            list(self._parameters.values()), settings.learning_rate, settings.betas, _EPSILON, settings.weight_decay
        )

    def zero(self) -> None:
        """Forget gradients."""
        self._adam.zero_grad(set_to_none=True)

    def step(self, where: str) -> tuple[float, float]:
        """Follow the gradient; its norm before it was bounded, and the learning rate.

        Raises:
            LearningError: The norm is no number; nothing has changed. `where` is told.
        """
        norm = float(whole(nn.utils.clip_grad_norm_(self._parameters.values(), self._settings.max_grad_norm)))
        if norm - norm != 0:
            raise LearningError(
                "the gradient is no number any more", where=where,
                remedy="resume from the last checkpoint with a lower learning_rate",
            )  # fmt: skip
        rate = self._settings.learning_rate * min((self._steps + 1) / max(self._settings.warmup, 1), 1.0)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._steps += 1
        return norm, rate

    def state(self) -> dict[str, Tensor]:
        """All that decides the next step beside weights and settings, on the CPU; not copies where it is there."""
        found = {_STEPS: torch.tensor(self._steps)}
        for name, parameter in self._parameters.items():
            kept = self._adam.state.get(parameter, {})
            found |= {f"{name}.{part}": whole(value).cpu() for part, value in kept.items()}
        return found

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Put back weights, and what `state` gave; an empty one begins anew.

        Raises:
            ResumeError: They are of other parameters.
        """
        here = {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}
        if here != {name: tuple(tensor.shape) for name, tensor in weights.items()}:
            raise ResumeError("the weights are those of another model, or of other adapters",
                              remedy="use the model and learning.lora with which they were made")  # fmt: skip
        for name, parameter in self._parameters.items():
            parameter.copy_(part_of(weights[name], parameter))
        self._steps = int(state[_STEPS]) if state else 0
        self._adam.state.clear()
        kept: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            owner, _, part = name.rpartition(".")
            kept.setdefault(owner, {})[part] = tensor
        for name, parameter in self._parameters.items():
            if name in kept:
                moments = {part: part_of(tensor, parameter) for part, tensor in kept[name].items() if part != "step"}
                self._adam.state[parameter] = {"step": kept[name]["step"].clone(), **moments}
