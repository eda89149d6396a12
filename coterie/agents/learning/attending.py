"""Where replies look: the attention that their tokens pay to labelled tokens, in an ordinary teacher-forced pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.agents.learning import bases
from coterie.agents.learning.examples import Example
from coterie.agents.learning.forcing import TeacherForcing
from coterie.agents.learning.packing import MicroBatch, label_rows, marks_of, pack
from coterie.attention.introspection import collect, middle_layers
from coterie.attention.statistics_request import StatisticsRequest
from coterie.errors import LearningError

Labels = NDArray[np.int64]
_MICRO_BATCH_TOKENS = 4096


class AttentionReader:
    """A model that is read and not trained.

    Args:
        model: A folder as transformers writes it, or a hub id.
        device: `cpu`, `cuda`, or `auto`.
        micro_batch_tokens: Tokens that go through the model at once.

    Raises:
        EnvironmentMissing: The model cannot be loaded.
    """

    def __init__(self, model: str, device: str, micro_batch_tokens: int = _MICRO_BATCH_TOKENS) -> None:
        self._device, self._micro_batch_tokens = bases.pick_device(device), micro_batch_tokens
        loaded = bases.load_model(model, self._device, torch.float32)
        self._teacher = TeacherForcing(loaded.requires_grad_(False))

    @torch.no_grad()
    def influence(
        self, policy: str, examples: Sequence[Example], labels: Sequence[Labels], layers: int = 5
    ) -> list[NDArray[np.float32]]:
        """As `LanguageLearner.influence`; whose policy it is does not matter."""
        check_labels(examples, labels)
        found = [np.zeros(count_labels(label), np.float32) for label in labels]
        for batch in pack(examples, self._micro_batch_tokens):
            masses = attend(self._teacher, batch.to(self._device), examples, labels, layers)
            for number, mass in zip(batch.turns, masses, strict=True):
                found[number] = mass.cpu().numpy()
        return found


def attend(
    teacher: TeacherForcing, batch: MicroBatch, examples: Sequence[Example], labels: Sequence[Labels], layers: int
) -> list[Tensor]:
    """Of each turn of a batch the attention on tokens of each label, float32 [its labels], summing to one.

    It is the mean over the rows that the reply's tokens were drawn from (that of the prompt's last token, and those of
    all tokens of the reply but the last), over all heads, and over layers evenly spaced in the middle third.

    Args:
        teacher: The model.
        batch: Made of `examples` by `packing.pack`.
        examples: All of them.
        labels: Of each example, see `check_labels`.
        layers: How many.
    """
    keys, own = label_rows(batch, [torch.from_numpy(each) for each in labels], [len(e.token_ids) for e in examples])
    chosen, which = middle_layers(teacher.model, layers), StatisticsRequest(mass=1 + max(0, int(keys.max())))
    with collect(teacher.model, which, chosen, queries=marks_of(batch, batch.before), labels=keys) as found:
        teacher(batch)
    mean = torch.stack([each.mass.mean(1) for each in found.values() if each.mass is not None]).mean(0)

    def read(turn: int) -> Tensor:
        if turn not in own:
            return mean.new_zeros(count_labels(labels[turn]))
        row, inside = own[turn]
        return mean[row, inside, inside].sum(0) / len(examples[turn].token_ids)

    return [read(turn) for turn in batch.turns]


def count_labels(labels: Labels) -> int:
    """One more than the greatest."""
    return int(labels.max()) + 1


def check_labels(examples: Sequence[Example], labels: Sequence[Labels]) -> None:
    """Labels are numbers from 0, one for each token of prompt and reply.

    Raises:
        LearningError: They are not.
    """
    for example, label in zip(examples, labels, strict=True):
        if len(label) != len(example) or label.min() < 0:
            raise LearningError("a turn needs a label of at least 0 for each token of prompt and reply",
                                where=example.key)  # fmt: skip
