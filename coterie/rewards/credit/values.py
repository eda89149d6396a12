"""Steps of a reply worth by how much they change what the reply is worth, as Monte-Carlo continuations tell.

    A_i = V(s_{i+1}) - V(s_i)

V of the beginning of a reply is the mean reward of replies that go on from there; that of the whole reply is its reward
R. The sum over its steps telescopes to R - V(prompt), whatever the values are worth. Two rules say where steps begin:
VinePPO (arXiv 2410.01679) at steps of reasoning, SPO (arXiv 2505.23564) at cutpoints or after so many tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coterie.rewards.credit.token import Conserved, Floats, ScoredReply, Weighed
from coterie.text import number_steps
from coterie.types import SignalRequest

if TYPE_CHECKING:
    from coterie.rewards.credit.config_token import SpoConfig, ValueCreditConfig, VineConfig


@dataclass(frozen=True, slots=True, eq=False)
class SaidReply:
    """A reply before it is cut into steps.

    Attributes:
        pieces: The text of each of its T tokens.
        logprobs: Of each, in the engine that sampled it, [T].
    """

    pieces: Sequence[str]
    logprobs: NDArray[np.float32]


class StepValues:
    """What both rules share: `number` says in which step each token is.

    Reads the signals `step`, and the `value` of the reply before each token's step and `after` it.
    """

    wants = SignalRequest()
    bounds = (0.0, 0.0)
    """Nothing is left of the advantages that were estimated."""

    def __init__(self, config: ValueCreditConfig) -> None:
        self.config = config

    @property
    def conserves(self) -> Conserved:
        """The sum over steps or, normalised, the mean over tokens is R - V(prompt)."""
        return "mean" if self.config.normalise else "steps"

    def number(self, reply: SaidReply) -> list[int]:
        """The step that each token is in, counted from 0, [T]."""
        raise AssertionError("each rule has its own")

    def weigh(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        """As `TokenCredit.weigh`."""
        return [self._weigh(reply) for reply in replies]

    def _weigh(self, reply: ScoredReply) -> Weighed:
        teaches = self._teaching(reply)
        added = np.where(teaches, reply.signal("after") - reply.signal("value"), 0.0)
        if self.config.normalise:
            step = reply.signal("step").astype(np.int64)
            added *= len(step) / np.bincount(step, teaches)[step]
        return Weighed(np.zeros(len(added)), {"chosen": teaches}, added)

    def _teaching(self, reply: ScoredReply) -> NDArray[np.bool_]:
        """The tokens that get what their step is worth, [T]; at least one of each step."""
        return np.ones(len(reply.advantage), np.bool_)


class Vine(StepValues):
    """Steps of reasoning, told apart by the text."""

    config: VineConfig

    def number(self, reply: SaidReply) -> list[int]:
        """As `StepValues.number`."""
        return number_steps(reply.pieces, self.config.split)


class Spo(StepValues):
    """Segments of so many cutpoints, tokens that had not been sure to come, or of so many tokens."""

    config: SpoConfig

    def number(self, reply: SaidReply) -> list[int]:
        """As `StepValues.number`."""
        counts: Floats = np.ones(len(reply.logprobs))
        if self.config.cut == "cutpoints":
            counts = self._is_unsure(reply.logprobs.astype(np.float64)).astype(np.float64)
        # A segment begins with its first cutpoint; what is sure before the first of all belongs to it.
        segments = np.maximum(np.cumsum(counts) - 1, 0) // self.config.every
        return [int(segment) for segment in segments]

    def _teaching(self, reply: ScoredReply) -> NDArray[np.bool_]:
        """Where the mask is on, the unsure tokens of a segment, or all of it where there are none."""
        if not self.config.mask:
            return super()._teaching(reply)
        unsure, step = self._is_unsure(reply.signal("old")), reply.signal("step").astype(np.int64)
        return np.asarray(unsure | (np.bincount(step, unsure)[step] == 0))

    def _is_unsure(self, logprobs: Floats) -> NDArray[np.bool_]:
        return np.asarray(np.exp(logprobs) < self.config.sure)


def mean_values(earned: Sequence[Sequence[float | None]], reward: float) -> list[float]:
    """The values before each step, and after the last, [S + 1].

    Args:
        earned: What replies earned that go on from the beginning of each step; None: they were given nothing.
        reward: Of the whole reply.

    Where none was given anything the value is that of the next beginning, so that the step has changed nothing.
    """
    values = [reward]
    for given in reversed(earned):
        known = [one for one in given if one is not None]
        values.append(float(np.mean(known)) if known else values[-1])
    return values[::-1]


def by_token(step: Sequence[int], values: Sequence[float]) -> dict[str, NDArray[np.float64]]:
    """The signals of a reply, [T] each.

    Args:
        step: Of each token, [T].
        values: Before each step, and after the last, [S + 1].
    """
    at = np.asarray(step, np.int64)
    known = np.asarray(values, np.float64)
    return {"step": at.astype(np.float64), "value": known[at], "after": known[at + 1]}
