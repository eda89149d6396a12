"""Replies on their way: the next token of each is drawn, and each ends where it has to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor

from coterie.agents.engines import chat, sampling
from coterie.agents.engines.choosing import Choices
from coterie.types import EncodedPrompt, Place, Sample, Sampling, TokenIds


@dataclass
class Reply:
    """The reply to one prompt of token ids, as far as it goes."""

    prompt: TokenIds
    said: TokenIds
    adapter: str
    stream: sampling.UniformStream
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    text: str | None = None

    @classmethod
    def begin(cls, prompt: EncodedPrompt, key: Place, seed: int) -> Reply:
        """Nothing is said yet."""
        return cls(cast(TokenIds, prompt.prompt), prompt.said, prompt.adapter, sampling.UniformStream(seed, key))


class Writer:
    """Goes on with replies that are drawn alike.

    Args:
        wanted: How they are drawn, and where they end.
        stop_ids: The ids that end a reply.
        decode: Ids as text.
        spelt: If there are any, a reply is one of these.
    """

    def __init__(
        self, wanted: Sampling, stop_ids: Collection[int], decode: Callable[[Sequence[int]], str],
        spelt: Sequence[TokenIds] = (),
    ) -> None:  # fmt: skip
        self.wanted, self._stop_ids, self._decode = wanted, stop_ids, decode
        self._choices = Choices(spelt, stop_ids)
        self._settings: tuple[int, sampling.Rows] | None = None

    def go_on(self, replies: Sequence[Reply], logits: Tensor) -> Tensor:
        """Draw a token from logits [B, V] for each of B replies; what is drawn for one that is over is not kept.

        Returns:
            int64 [B].
        """
        logits = self._choices.mask(logits, [reply.ids for reply in replies])
        drawn = [reply.stream.at(len(reply.ids)) for reply in replies]
        uniforms = torch.tensor(drawn, dtype=torch.float64, device=logits.device)
        ids = sampling.sample(logits, self._rows(len(replies), logits.device), uniforms)
        logprobs = sampling.logprobs_of(logits, ids)
        for reply, token, logprob in zip(replies, ids.tolist(), logprobs.tolist(), strict=True):
            if not reply.finish:
                self._append(reply, token, logprob)
        return ids

    def _rows(self, count: int, device: torch.device) -> sampling.Rows:
        if self._settings is None or self._settings[0] != count:
            self._settings = count, sampling.Rows.build([self.wanted] * count, device)
        return self._settings[1]

    def _append(self, reply: Reply, token: int, logprob: float) -> None:
        reply.ids.append(token)
        reply.logprobs.append(logprob)
        if token in self._stop_ids or self._choices.is_over(reply.ids):
            reply.finish = "stop"
        elif self.wanted.stop:
            text, is_found = chat.read_on(self._decode, reply.said, reply.ids, self.wanted.stop)
            if is_found:
                reply.finish, reply.text = "stop", text
        if reply.finish is None and len(reply.ids) == self.wanted.max_tokens:
            reply.finish = "length"

    def sample(self, reply: Reply, num_cached: int = 0) -> Sample:
        """The reply as engines give it; so many tokens of its prompt were computed for another."""
        return Sample(
            text=chat.read_on(self._decode, reply.said, reply.ids)[0] if reply.text is None else reply.text,
            finish=reply.finish or "length",
            num_prompt_tokens=len(reply.prompt),
            num_tokens=len(reply.ids),
            prompt_ids=reply.prompt,
            token_ids=tuple(reply.ids),
            logprobs=tuple(reply.logprobs),
            num_cached_tokens=num_cached,
        )
