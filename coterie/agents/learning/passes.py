"""Teacher-forced passes over turns: cut into micro-batches, which are dealt out to the processes of a learner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.agents.learning import attending
from coterie.agents.learning.critic import Critic
from coterie.agents.learning.examples import Example
from coterie.agents.learning.forcing import TeacherForcing
from coterie.agents.learning.packing import MicroBatch, Places, pack
from coterie.agents.learning.ranks import Ranks
from coterie.agents.learning.signals import SignalReader, SpanReader
from coterie.errors import LearningError


@dataclass(frozen=True, slots=True)
class Passes:
    """How a learner puts turns through its model.

    Attributes:
        device: Where the model is.
        dtype: What it computes in.
        ranks: The processes, of which this is one; what is found is that of all.
        micro_batch_tokens: See `LLMSettings`.
    """

    device: torch.device
    dtype: torch.dtype
    ranks: Ranks
    micro_batch_tokens: int

    @property
    def kept(self) -> torch.dtype:
        """What numbers of tokens are kept in."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def computing(self) -> AbstractContextManager[Any]:
        """In here the model computes in `dtype`."""
        if self.dtype == torch.bfloat16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def share(self, examples: Sequence[Example]) -> Iterator[tuple[MicroBatch, bool]]:
        """The micro-batches that this process works, on the device, and whether they count; see `Ranks.share`."""
        for batch, is_ours in self.ranks.share(pack(examples, self.micro_batch_tokens)):
            yield batch.to(self.device), is_ours

    @torch.no_grad()
    def measure(
        self, teacher: TeacherForcing, examples: Sequence[Example], critic: Critic | None = None,
        reader: SignalReader | None = None,
    ) -> Tensor:  # fmt: skip
        """Of all tokens of all replies, in order, log-probability, entropy, value and what is read, [rows, N]."""
        places = Places([len(example.token_ids) for example in examples])
        told = 2 + (critic is not None)
        rows = told + (len(reader.rows) if reader else 0)
        found = torch.zeros(rows, places.count, dtype=self.kept, device=self.device)
        for batch, is_ours in self.share(examples):
            listening: AbstractContextManager[Any] = reader.listen(batch) if reader else nullcontext()
            with listening as heard, self.computing():
                forced = teacher(batch, wants_entropy=True)
            if is_ours:
                at = places.of(batch.turns).to(self.device)
                values = (critic.value(forced.hidden),) if critic else ()
                found[:told, at] = torch.stack([forced.log_prob, forced.entropy, *values])
                if reader:
                    found[told:, at] = reader.read(batch, heard).to(found)
        return self.ranks.sum(found).cpu()

    @torch.no_grad()
    def spans(self, teacher: TeacherForcing, examples: Sequence[Example], reader: SpanReader) -> Tensor:
        """How far heads look back over each reply, [replies, heads]; see `SpanReader.read`."""
        lengths = [len(example.token_ids) for example in examples]
        spans = torch.zeros(len(examples), len(reader.layers) * reader.heads, device=self.device)
        for batch, is_ours in self.share(examples):
            with reader.listen(batch) as found, self.computing():
                teacher(batch)
            if is_ours:
                spans[list(batch.turns)] = reader.read(batch, found, lengths)
        return self.ranks.sum(spans).cpu()

    @torch.no_grad()
    def influence(
        self, teacher: TeacherForcing, examples: Sequence[Example], labels: Sequence[NDArray[np.int64]], layers: int
    ) -> list[NDArray[np.float32]]:
        """The share of its attention that each reply pays to tokens of each label; see `attending.attend`.

        Raises:
            LearningError: Labels do not fit.
        """
        attending.check_labels(examples, labels)
        sizes = [attending.count_labels(label) for label in labels]
        found = torch.zeros(len(examples), max(sizes, default=0), device=self.device)
        for batch, is_ours in self.share(examples):
            with self.computing():
                masses = attending.attend(teacher, batch, examples, labels, layers)
            for number, mass in zip(batch.turns, masses, strict=True) if is_ours else ():
                found[number, : len(mass)] = mass
        whole = self.ranks.sum(found).cpu().numpy()
        return [row[:size] for row, size in zip(whole, sizes, strict=True)]


@contextmanager
def reading() -> Iterator[None]:
    """What is wrong with a model's attention, as an error of ours."""
    try:
        yield
    except ValueError as cause:
        raise LearningError(f"the attention of this model cannot be read: {cause}", where="credit",
                            remedy="take a rule of credit that reads none") from cause  # fmt: skip
