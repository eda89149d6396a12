"""Learners of language models as a training uses them, in this process or in another. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from coterie import registry
from coterie.config.base import KindConfig
from coterie.orchestration.training_spec import find_device

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from coterie.agents.learning.examples import Example
    from coterie.agents.learning.signals import Roles
    from coterie.types import SignalRequest


class Learner(Protocol):
    """Trains policies that share one model; see `agents.learning.llm.LanguageLearner`."""

    def update(self, policy: str, examples: Sequence[Example], *, iteration: int) -> dict[str, float]: ...

    def logprobs(self, policy: str, examples: Sequence[Example]) -> list[NDArray[np.float32]]: ...

    def reference_logprobs(self, examples: Sequence[Example]) -> list[NDArray[np.float32]]: ...

    def count_layers(self) -> int: ...

    def score(
        self, policy: str, examples: Sequence[Example], request: SignalRequest, roles: Roles | None = None
    ) -> list[dict[str, NDArray[np.floating[Any]]]]: ...

    def assign_roles(self, policy: str, examples: Sequence[Example], request: SignalRequest) -> Roles: ...

    def influence(
        self, policy: str, examples: Sequence[Example], labels: Sequence[NDArray[np.int64]], layers: int = 5
    ) -> list[NDArray[np.float32]]: ...

    def weights(self, policy: str) -> dict[str, Tensor]: ...

    def optimiser_state(self, policy: str) -> dict[str, Tensor]: ...

    def load(self, policy: str, weights: Mapping[str, Tensor], optimiser: Mapping[str, Tensor]) -> None: ...

    def export(self, policy: str, folder: Path) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LearnerSpec:
    """Everything needed to make a learner.

    Attributes:
        model: As the experiment file names it.
        policies: Who learns.
        config: The section `learning`.
        device: `auto`, `cpu` or `cuda`, where it is made.
        seed: The experiment's.
    """

    model: str
    policies: tuple[str, ...]
    config: KindConfig
    device: str
    seed: int

    def pack(self) -> dict[str, Any]:
        """The spec as plain data, for a process that has not imported the config's plugins yet; `unpack` reads it."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return given | {"config": self.config.model_dump(mode="json")}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> LearnerSpec:
        """The spec that was packed."""
        data = packed["config"]
        config: KindConfig = registry.load(registry.get("learner", data["kind"]).config).model_validate(data)
        return cls(**{**packed, "config": config})

    def build(self) -> Learner:
        """A fresh learner.

        Raises:
            EnvironmentMissing: The model or the device is missing.
        """
        from coterie.agents.engines import models

        make = registry.impl("learner", self.config.kind)
        settings, device = cast(Any, self.config).build(), find_device(self.device)
        learner: Learner = make(models.resolve(self.model), self.policies, settings, device, self.seed)
        return learner
