"""Several thinkers in one cache: where each token stands, when it was emitted, and who may attend to it.

Source: Group Think (arXiv 2505.11107), by which a thinker's next token depends on the prompt and on all that every
thinker has emitted so far. Its thinkers own ranges of positions, so that a position tells who speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.agents.engines.replies import Reply, Writer
from coterie.attention.data import Data, Fields, Sizes, Tokens
from coterie.attention.masks import Emitted, Roles
from coterie.attention.spec import Spec
from coterie.types import EncodedPrompt, Place, Sample, Sight

_PUBLIC, _PRIVATE = 0, 1
_NEVER = 1 << 40

SHARED = Spec(mask=Emitted() & Roles((("always", "equal"), ("always", "equal"))))
"""What was emitted before is attended to: by everybody if it is public, else by the thinker whose it is."""


class Cell(NamedTuple):
    """One token in the cache."""

    token: int
    position: int
    time: int
    """When it was emitted; prompts were before all replies, token by token."""
    role: int
    thinker: int
    """Whose it is; -1: it belongs to all."""


class Group:
    """Thinkers whose replies grow by one token each at a time.

    What their prompts begin with alike is in the cache once, for all; what follows in each is its thinker's alone. With
    sight of `all`, token k of thinker n stands at position P + n * L + k, where P is the longest prompt and L the
    longest reply; else where it would without the others.

    Args:
        replies: Of each thinker, with nothing said.
        sight: What thinkers see of each other.
        longest: L, in tokens.
    """

    def __init__(self, replies: Sequence[Reply], sight: Sight, longest: int) -> None:
        self.replies, prompts = tuple(replies), [reply.prompt for reply in replies]
        self._start = max(map(len, prompts))
        is_open = sight == "all"
        self._role = _PUBLIC if is_open else _PRIVATE
        self._slots = [self._start + n * longest if is_open else len(prompt) for n, prompt in enumerate(prompts)]
        # Each keeps its last token to itself: the first token of its reply is drawn there.
        same = [len(set(column)) == 1 for column in zip(*(prompt[:-1] for prompt in prompts), strict=False)]
        self._num_common = [*same, False].index(False)

    @property
    def is_over(self) -> bool:
        """All replies have ended."""
        return all(reply.finish for reply in self.replies)

    def samples(self, writer: Writer) -> list[Sample]:
        """The replies as engines give them; what all prompts begin with was computed for the first thinker."""
        return [writer.sample(reply, self._num_common if n else 0) for n, reply in enumerate(self.replies)]

    def opening(self) -> list[Cell]:
        """The prompts, but for the last token of each."""
        num = self._num_common
        common = [Cell(token, p, p, _PUBLIC, -1) for p, token in enumerate(self.replies[0].prompt[:num])]
        own = [
            Cell(token, p, p, _PRIVATE, thinker)
            for thinker, reply in enumerate(self.replies)
            for p, token in enumerate(reply.prompt[num:-1], num)
        ]
        return common + own

    def newest(self, step: int, pad: int) -> list[Cell]:
        """Of each thinker the token that it emitted at this step, or before the first (-1) its prompt's last one."""
        return [self._newest(thinker, step, pad) for thinker in range(len(self.replies))]

    def _newest(self, thinker: int, step: int, pad: int) -> Cell:
        reply = self.replies[thinker]
        if step < 0:
            last = len(reply.prompt) - 1
            return Cell(reply.prompt[last], last, last, _PRIVATE, thinker)
        if step >= len(reply.ids):
            return padding(pad)
        return Cell(reply.ids[step], self._slots[thinker] + step, self._start + step, self._role, thinker)


def begin(
    groups: Sequence[Sequence[EncodedPrompt]], keys: Sequence[Sequence[Place]], seed: int, sight: Sight, longest: int
) -> list[Group]:
    """Groups with nothing said."""
    return [
        Group([Reply.begin(*asked, seed) for asked in zip(prompts, places, strict=True)], sight, longest)
        for prompts, places in zip(groups, keys, strict=True)
    ]


def padding(pad: int) -> Cell:
    """A token that is never emitted."""
    return Cell(pad, 0, _NEVER, _PRIVATE, -1)


def tabulate(rows: Sequence[Sequence[Cell]], pad: int, device: torch.device | str) -> Tensor:
    """Cells as int64 [B, width, 5], padded at their ends to one width."""
    width = max(map(len, rows))
    cells = [[*row, *[padding(pad)] * (width - len(row))] for row in rows]
    return torch.tensor(cells, dtype=torch.int64, device=device).view(len(rows), width, len(Cell._fields))


def go_on(groups: Sequence[Group], logits: Tensor, writer: Writer) -> None:
    """Every reply that is not over gets a token, drawn from logits [B, thinkers, V]."""
    cells = [(b, n) for b, group in enumerate(groups) for n, reply in enumerate(group.replies) if not reply.finish]
    writer.go_on([groups[b].replies[n] for b, n in cells], logits[tuple(zip(*cells, strict=True))])


def attended(queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Which cells [B, N, 5] attend to which [B, M, 5], as what is added to logits: [B, 1, N, M].

    A query stands for the token that is drawn there, half a step after the one that is read: it attends to what was
    emitted up to then, by anybody.
    """
    sizes = Sizes(queries.shape[0], 1, queries.shape[1], keys.shape[1])
    sides = Data(_describe(queries, half=1), _describe(keys, half=0))
    allowed = SHARED.allowed(Fields(sides, sizes, queries.device))
    assert allowed is not None, "the spec has a mask"
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def _describe(cells: Tensor, half: int) -> Tokens:
    time, role, thinker = (cells[..., Cell._fields.index(name)] for name in ("time", "role", "thinker"))
    return Tokens(time=2 * time + half, role=role, group=thinker, agent=thinker)
