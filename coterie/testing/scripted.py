"""An engine without a model: replies by rule, tokens are bytes, faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from coterie import rng
from coterie.agents.engines import chat
from coterie.agents.engines.base import Capability
from coterie.agents.engines.weights import refuse_adapters
from coterie.errors import EngineError
from coterie.testing import replies
from coterie.testing.config import ScriptedConfig
from coterie.types import EncodedPrompt, Message, Messages, Place, Prompt, Sample, Sampling, TokenIds

_HANG_SECONDS = 3600.0
_BREAKING = ("hang", "crash", "wrong_length", "lie")


class ScriptedEngine:
    """Answers by rule (`replies.compose`); the token ids of a text are its UTF-8 bytes.

    The same seed, prompt and place give the same sample in every process, whatever the batch.
    """

    capabilities: frozenset[Capability] = frozenset({"tokens", "logprobs", "seeded", "choices"})

    def __init__(self, config: ScriptedConfig, model: str, seed: int, exact: bool) -> None:
        self.config, self.model, self.seed, self.exact = config, model, seed, exact
        self.max_batch, self.is_continuous = config.max_batch, config.continuous
        self.num_calls = 0
        """How often `generate` was called."""
        self._attempts: Counter[Place] = Counter()
        self._turn: asyncio.Lock | None = None

    async def start(self) -> None:
        """Be ready to answer."""
        self._turn = None if self.is_continuous else asyncio.Lock()

    async def close(self) -> None:
        """Free everything. Safe to call twice."""
        self._turn = None

    def describe(self) -> dict[str, Any]:
        """As `base.Engine.describe`."""
        return {"engine": "scripted", "model": self.model, "config": self.config.model_dump()}

    def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        """As `base.Engine.encode`."""
        room = chat.room_for(sampling, self.config.context)
        return [self._encode(prompt, room) for prompt in prompts]

    def _encode(self, prompt: Prompt, room: int) -> EncodedPrompt:
        if chat.is_ids(prompt):
            return chat.encode_ids(cast(TokenIds, prompt), room)
        messages, length, dropped = chat.fit(chat.as_messages(prompt), room, _BYTES)
        return EncodedPrompt(messages, length, dropped)

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        """As `base.Engine.generate`."""
        refuse_adapters(prompts)
        self.num_calls += 1
        async with self._turn or contextlib.nullcontext():
            await asyncio.sleep(self.config.delay)
            broken = self._draw_breaks(keys)
            if "hang" in broken:
                await asyncio.sleep(_HANG_SECONDS)
            if "crash" in broken:
                where = str(keys[broken["crash"]])
                raise EngineError("the scripted engine crashed, as told", where=where, remedy="ask again")
        samples = [self._sample(p, sampling, key) for p, key in zip(prompts, keys, strict=True)]
        if (liar := broken.get("lie")) is not None:
            samples[liar] = replace(samples[liar], num_tokens=samples[liar].num_tokens + 1)
        return samples[:-1] if "wrong_length" in broken else samples

    def _draw_breaks(self, keys: Sequence[Place]) -> dict[str, int]:
        """Which faults strike this call, and which of its prompts first."""
        drawn: dict[str, int] = {}
        for index, key in enumerate(keys):
            attempt, self._attempts[key] = self._attempts[key], self._attempts[key] + 1
            drawn = {name: index for name in _BREAKING if self._strikes(name, key, attempt)} | drawn
        return drawn

    def _say(self, prompt: EncodedPrompt, sampling: Sampling, key: Place) -> tuple[str, float | None]:
        """The reply, and its probability where it had to be one of the choices."""
        if sampling.choices:
            return _choose(sampling.choices, self.seed, key)
        text = replies.compose(_messages(prompt.prompt), self.config, self.seed, key)
        return _until_stop(text, sampling.stop), None

    def _strikes(self, fault: str, key: Place, attempt: int = 0) -> bool:
        chance: float = getattr(self.config.faults, fault)
        return chance > 0 and rng.uniforms(self.seed, "fault", fault, str(key), attempt, count=1)[0] < chance

    def _sample(self, prompt: EncodedPrompt, sampling: Sampling, key: Place) -> Sample:
        text, chance = self._say(prompt, sampling, key)
        data = text.encode(errors="replace")[len(prompt.said) :]
        finish: Literal["stop", "length"] = "stop"
        limit = sampling.max_tokens
        if self._strikes("empty", key):
            data = b""
        elif self._strikes("cut", key):
            limit = min(limit, len(data) // 2)
        if len(data) > limit:
            data, finish = data[:limit], "length"
        if chance is None:
            logprobs = tuple(float(-u) for u in rng.uniforms(self.seed, "logprob", str(key), count=len(data)))
        else:
            logprobs = (math.log(chance), *[0.0] * len(data))[: len(data)]
        text, _ = chat.read_on(_decode, prompt.said, data)
        ids = _ids(prompt.prompt) if chat.is_ids(prompt.prompt) else _ids(prompt.prompt) + prompt.said
        return Sample(text, finish, prompt.length, len(data), ids, tuple(data), logprobs)


def _choose(choices: Sequence[str], seed: int, key: Place) -> tuple[str, float]:
    """One of them and its probability, both drawn for the place."""
    weights = rng.uniforms(seed, "choices", str(key), count=len(choices)) + 1e-3
    chances = weights / weights.sum()
    index = int(rng.stream(seed, "choice", str(key)).choice(len(choices), p=chances))
    return choices[index], float(chances[index])


def _decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


def _until_stop(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0]
    return text


def _ids(prompt: Prompt) -> TokenIds:
    if chat.is_ids(prompt):
        return cast(TokenIds, prompt)
    return tuple(chat.as_text(cast(Messages, prompt)).encode(errors="replace"))


def _messages(prompt: Prompt) -> Messages:
    if chat.is_ids(prompt):
        text = bytes(i % 256 for i in cast(TokenIds, prompt)).decode(errors="replace")
        return (Message("user", text),)
    return cast(Messages, prompt)


_BYTES = chat.Codec(
    measure=lambda messages: len(_ids(messages)),
    split=lambda text: text.encode(errors="replace"),
    join=lambda pieces: bytes(pieces).decode(errors="ignore"),
)
