"""What every engine owes its users. Plugin authors run `check_engine` on theirs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from coterie.agents.engines.base import Capability, Engine, GroupDecoder, Publishable
from coterie.errors import EngineError
from coterie.types import EncodedPrompt, Message, Place, Sample, Sampling

_SAMPLING = Sampling(max_tokens=12)
_LONGEST_PROMPT = 1 << 20


async def check_engine(engine: Engine) -> None:
    """Start an engine, ask it for a few dozen tokens, close it.

    Raises:
        AssertionError: naming the property that fails.
    """
    _check_declaration(engine)
    await engine.start()
    try:
        await check_started(engine)
    finally:
        await engine.close()
        await engine.close()


async def check_started(engine: Engine) -> None:
    """The checks of `check_engine` on an engine that runs already, and goes on running."""
    json.dumps(engine.describe())
    assert engine.describe().get("engine"), "describe() does not name the engine"
    _check_encoding(engine)
    await _check_samples(engine)
    await _check_seeded(engine)
    await _check_stop(engine)
    await _check_choices(engine)
    await _check_adapters(engine)
    await _check_groups(engine)
    await _check_cancelling(engine)
    await _check_concurrency(engine)


def _check_declaration(engine: Engine) -> None:
    assert isinstance(engine, Engine), "the class does not have all members of base.Engine"
    unknown = engine.capabilities - set(get_args(Capability))
    assert not unknown, f"unknown capabilities: {sorted(unknown)}"
    assert "tokens" in engine.capabilities or "logprobs" not in engine.capabilities, "logprobs need tokens"
    assert engine.max_batch >= 1, "max_batch is below 1"


def _prompt(question: str) -> tuple[Message, ...]:
    return (Message("system", "You answer in short."), Message("user", question))


def _places(count: int) -> list[Place]:
    return [Place(f"check-{i}", 0, "checker") for i in range(count)]


def _encode(engine: Engine, count: int, sampling: Sampling = _SAMPLING) -> list[EncodedPrompt]:
    return engine.encode([_prompt(f"What is {i} + 3?") for i in range(count)], sampling)


def _check_encoding(engine: Engine) -> None:
    short, again = _encode(engine, 1), _encode(engine, 1)
    assert short == again, "encode is not deterministic"
    assert short[0].dropped == 0, "a short prompt was cut"
    # Prompts of an engine without a model may cost nothing.
    assert short[0].length > 0 or "tokens" not in engine.capabilities, "a prompt has no length"
    size, cut = 1 << 12, short[0]
    while not cut.dropped and size <= _LONGEST_PROMPT:
        cut = engine.encode([_prompt("one two " * (size // 8))], _SAMPLING)[0]
        size *= 2
    shorter = engine.encode([_prompt("one two " * (size // 4))], Sampling(max_tokens=_SAMPLING.max_tokens + 1))[0]
    assert not cut.dropped or shorter.length <= cut.length, "a longer reply did not leave less room for the prompt"


async def _check_samples(engine: Engine) -> None:
    count = min(3, engine.max_batch)
    prompts = _encode(engine, count)
    samples = await engine.generate(prompts, _SAMPLING, _places(count))
    assert len(samples) == count, f"{count} prompts gave {len(samples)} samples"
    for prompt, sample in zip(prompts, samples, strict=True):
        _check_sample(engine, prompt, sample)
    assert await engine.generate([], _SAMPLING, []) == [], "no prompts did not give no samples"


def _check_sample(engine: Engine, prompt: EncodedPrompt, sample: Sample) -> None:
    assert isinstance(sample.text, str), "a sample has no text"
    assert sample.finish in ("stop", "length"), f"finish is {sample.finish!r}"
    assert 0 <= sample.num_tokens <= _SAMPLING.max_tokens, f"{sample.num_tokens} tokens, asked for at most 12"
    assert sample.num_prompt_tokens <= prompt.length, "a prompt is longer than encode said"
    assert sample.num_prompt_tokens > 0 or prompt.length == sample.num_tokens == 0, "a prompt cost nothing"
    assert sample.num_cached_tokens <= sample.num_prompt_tokens, "more cached tokens than the prompt has"
    if "tokens" in engine.capabilities:
        assert len(sample.token_ids or ()) == sample.num_tokens, "num_tokens is not the number of token ids"
        assert len(sample.prompt_ids or ()) == sample.num_prompt_tokens, "num_prompt_tokens is not that of prompt ids"
    if "logprobs" in engine.capabilities:
        assert len(sample.logprobs or ()) == sample.num_tokens, "not one logprob per token"
        assert all(value <= 1e-6 for value in sample.logprobs or ()), "a logprob is above zero"


async def _check_seeded(engine: Engine) -> None:
    if "seeded" not in engine.capabilities or engine.is_continuous:
        return
    prompts, keys = _encode(engine, 2), _places(2)
    first = await engine.generate(prompts, _SAMPLING, keys)
    assert _ids(first) == _ids(await engine.generate(prompts, _SAMPLING, keys)), "the same call gave other tokens"


def _ids(samples: Sequence[Sample]) -> list[tuple[int, ...] | None]:
    return [sample.token_ids for sample in samples]


async def _check_stop(engine: Engine) -> None:
    sampling = Sampling(max_tokens=12, stop=("e", " "))
    for sample in await engine.generate(_encode(engine, 1, sampling), sampling, _places(1)):
        assert not {"e", " "} & set(sample.text), f"{sample.text!r} goes on after a stop string"


async def _check_choices(engine: Engine) -> None:
    if "choices" not in engine.capabilities:
        return
    sampling = Sampling(max_tokens=12, choices=("yes", "no"))
    for sample in await engine.generate(_encode(engine, 2, sampling), sampling, _places(2)):
        assert sample.text in sampling.choices, f"{sample.text!r} is none of the choices"


async def _check_adapters(engine: Engine) -> None:
    assert ("weights" in engine.capabilities) == isinstance(engine, Publishable), "`weights` and `publish` go together"
    nobody = [replace(prompt, adapter="nobody") for prompt in _encode(engine, 1)]
    try:
        await engine.generate(nobody, _SAMPLING, _places(1))
    except EngineError:
        return
    raise AssertionError("a prompt of an adapter that was not published was answered")


async def _check_groups(engine: Engine) -> None:
    is_able = isinstance(engine, GroupDecoder)
    assert ("shared_cache" in engine.capabilities) == is_able, "`shared_cache` and `generate_together` go together"
    if not isinstance(engine, GroupDecoder):
        return
    sampling, keys = Sampling(max_tokens=4), _places(2)
    prompts = _encode(engine, 2, sampling)
    alone = await engine.generate(prompts, sampling, keys)
    assert await engine.generate_together([], sampling, [], "all") == [], "no groups did not give no samples"
    ones = await engine.generate_together([[p] for p in prompts], sampling, [[key] for key in keys], "all")
    blind = await engine.generate_together([prompts], sampling, [keys], "own")
    assert _ids(ones) == _ids(alone), "a group of one does not say what one says alone"
    assert _ids(blind) == _ids(alone), "thinkers that do not see each other do not say what they say alone"
    for prompt, sample in zip(prompts, await engine.generate_together([prompts], sampling, [keys], "all"), strict=True):
        _check_sample(engine, prompt, sample)


async def _check_cancelling(engine: Engine) -> None:
    task = asyncio.ensure_future(engine.generate(_encode(engine, 1), _SAMPLING, _places(1)))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    samples = await engine.generate(_encode(engine, 1), _SAMPLING, _places(1))
    assert len(samples) == 1, "after a cancelled call the engine does not answer"


async def _check_concurrency(engine: Engine) -> None:
    calls = [engine.generate(_encode(engine, 1), _SAMPLING, [place]) for place in _places(3)]
    answers = await asyncio.gather(*calls)
    assert [len(samples) for samples in answers] == [1, 1, 1], "concurrent calls lost samples"
