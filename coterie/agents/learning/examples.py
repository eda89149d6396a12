"""What a language model learns from: turns, as token ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.errors import LearningError
from coterie.types import TokenIds


@dataclass(frozen=True, slots=True)
class Example:
    """One turn to learn from. Its ids are those that were sampled; nothing is tokenised again.

    Attributes:
        key: Of the turn; names it in errors and orders it, so that the order of examples never matters.
        role: What the turn was for, as in `Place.purpose`; losses and metrics are counted per role.
        prompt_ids: What the model was shown, at least one token.
        token_ids: What it said, T tokens.
        logprobs: Of `token_ids` in the engine that sampled them, at temperature 1, float32 [T].
        advantage: What each token is worth, float32 [T].
        old: Log-probabilities in the learner before the update, [T], where a pass before this one has told them.
        entropy: Likewise.
        value: What the learner's critic expected before each token, [T], likewise; needed where there is a critic.
        target: What it should have expected, [T]; likewise.
    """

    key: str
    role: str
    prompt_ids: TokenIds
    token_ids: TokenIds
    logprobs: NDArray[np.float32]
    advantage: NDArray[np.float32]
    old: NDArray[np.floating[Any]] | None = None
    entropy: NDArray[np.floating[Any]] | None = None
    value: NDArray[np.floating[Any]] | None = None
    target: NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        optional = (self.old, self.entropy, self.value, self.target)
        told = [numbers for numbers in optional if numbers is not None]
        sizes = {len(numbers) for numbers in (self.token_ids, self.logprobs, self.advantage, *told)}
        if len(sizes) > 1 or not self.prompt_ids:
            raise LearningError(
                "a turn needs a prompt, and as many log-probabilities, advantages and values as it has tokens",
                where=self.key,
            )

    def __len__(self) -> int:
        """Tokens of prompt and reply together."""
        return len(self.prompt_ids) + len(self.token_ids)


def in_order(examples: Iterable[Example]) -> list[Example]:
    """Those with a reply, each key once, sorted by key."""
    found = {example.key: example for example in examples if example.token_ids}
    return [found[key] for key in sorted(found)]
