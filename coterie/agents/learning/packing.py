"""Turns of unequal length in one rectangle: rows about as long as the longest turn, several turns in a row.

Positions begin anew with each turn, by which transformers' models see that turns do not attend to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.agents.learning.examples import Example


class MicroBatch(NamedTuple):
    """What goes through the model at once: R rows of W tokens, with M tokens of replies.

    Attributes:
        ids: int64 [R, W]; what fills up rows is 0.
        positions: int64 [R, W], from 0 in each turn and where a row is filled up.
        before: Where in the flattened [R * W] the token before each token of a reply stands, int64 [M].
        targets: The tokens of replies, int64 [M].
        turns: Which turns these are, as numbers in the order in which they were given; tokens are in this order.
    """

    ids: Tensor
    positions: Tensor
    before: Tensor
    targets: Tensor
    turns: tuple[int, ...]

    def to(self, device: torch.device) -> MicroBatch:
        """The same on a device."""
        ids, positions, before, targets = (tensor.to(device) for tensor in self[:4])
        return MicroBatch(ids, positions, before, targets, self.turns)


class Places:
    """Where the tokens of each reply stand in an array of all, one reply after the other."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths, ends = lengths, list(accumulate(lengths, initial=0))
        self._starts, self.count = ends[:-1], ends[-1]

    def of(self, turns: Sequence[int]) -> Tensor:
        """Of some replies, int64."""
        parts = [torch.arange(self._lengths[turn]) + self._starts[turn] for turn in turns]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def fit(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of turns, row by row: each, longest first, into the first row of the longest's length with room."""
    width, rows, room = max(lengths, default=0), list[list[int]](), list[int]()
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        place = next((row for row, free in enumerate(room) if free >= lengths[number]), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(width)
        rows[place].append(number)
        room[place] -= lengths[number]
    return rows


def pack(examples: Sequence[Example], micro_batch_tokens: int) -> list[MicroBatch]:
    """All of them, in micro-batches of at most so many tokens, or of one row; long ones come first."""
    rows = fit([len(example) for example in examples])
    batches, group, width = list[MicroBatch](), list[list[int]](), 0
    for row in rows:
        wider = max(width, sum(len(examples[n]) for n in row))
        if group and wider * (len(group) + 1) > micro_batch_tokens:
            batches.append(_fill(examples, group))
            group, wider = [], sum(len(examples[n]) for n in row)
        group, width = [*group, row], wider
    return [*batches, _fill(examples, group)] if group else batches


def _fill(examples: Sequence[Example], rows: Sequence[Sequence[int]]) -> MicroBatch:
    width = max(sum(len(examples[number]) for number in row) for row in rows)
    ids, positions = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    before, targets = list[Tensor](), list[Tensor]()
    for index, row in enumerate(rows):
        start = 0
        for example in (examples[number] for number in row):
            end, said = start + len(example), len(example.prompt_ids)
            ids[index, start:end] = torch.tensor([*example.prompt_ids, *example.token_ids])
            positions[index, start:end] = torch.arange(len(example))
            before.append(torch.arange(start + said - 1, end - 1) + index * width)
            targets.append(ids[index, start + said : end])
            start = end
        positions[index, start:] = torch.arange(width - start)
    return MicroBatch(ids, positions, torch.cat(before), torch.cat(targets), tuple(n for row in rows for n in row))


def marks_of(batch: MicroBatch, at: Tensor) -> Tensor:
    """Bool [R, W]: these places of the flattened batch."""
    marks = torch.zeros(batch.ids.numel(), dtype=torch.bool, device=at.device)
    marks[at] = True
    return marks.view_as(batch.ids)


def label_rows(
    batch: MicroBatch, labels: Sequence[Tensor], lengths: Sequence[int]
) -> tuple[Tensor, dict[int, tuple[int, slice]]]:
    """Labels of the tokens of a batch, int32 [R, W] and -1 for none, so that turns in one row have none in common.

    Args:
        batch: Of some turns.
        labels: Of each turn, from 0, for its last tokens: those of the reply, or of prompt and reply.
        lengths: Tokens of each turn's reply; one without any has no labels.

    Returns:
        The labels, and of each turn its row and which labels of that row are its own.
    """
    (rows, width), before = batch.ids.shape, batch.before.cpu()
    found, used = torch.full((rows, width), -1, dtype=torch.int32), [0] * rows
    own, begin = dict[int, tuple[int, slice]](), 0
    for turn in batch.turns:
        if lengths[turn]:
            row, last = divmod(int(before[begin]), width)
            stop, size = last + 1 + lengths[turn], int(labels[turn].max()) + 1
            found[row, stop - len(labels[turn]) : stop] = labels[turn].int() + used[row]
            own[turn] = row, slice(used[row], used[row] + size)
            used[row] += size
        begin += lengths[turn]
    return found.to(batch.ids.device), own
