"""Any server that speaks the OpenAI chat API, through the `openai` client."""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from coterie import rng
from coterie.agents.engines import chat
from coterie.agents.engines.base import Capability
from coterie.agents.engines.config import OpenAIConfig
from coterie.agents.engines.weights import refuse_adapters
from coterie.config import references
from coterie.errors import CoterieError, EngineError, EngineTimeout, EnvironmentMissing
from coterie.types import EncodedPrompt, Message, Messages, Place, Prompt, Sample, Sampling

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_MESSAGE_OVERHEAD = 8
_PROBE = Sampling(temperature=0, max_tokens=1)
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
# Of the deadline, so that what the server said last comes before the executor's word that nobody answered.
_SHARE = 0.9


class OpenAIEngine:
    """A client of a chat server.

    It has no tokenizer: a prompt counts one token per UTF-8 byte and eight per message, an upper bound, and is cut by
    characters.

    Rate limits, server errors, lost connections and timeouts are tried again after the server's `Retry-After`, else
    after an exponential wait with counted jitter, as often as the config says and as the deadline of the call leaves
    room for. The key appears in no message and no record.
    """

    capabilities: frozenset[Capability] = frozenset()
    is_continuous = True

    def __init__(self, config: OpenAIConfig, model: str, seed: int, exact: bool) -> None:
        self.config, self.model, self.seed, self.exact = config, model, seed, exact
        self.max_batch = config.concurrency
        self.deadline = 600.0
        """Seconds for one call, all its tries and waits together; an executor sets its own (`pool.Patient`)."""
        self._client: AsyncOpenAI | None = None
        self._slots = asyncio.Semaphore(config.concurrency)
        self._key = ""
        self._limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    async def start(self) -> None:
        """Ask the server for one token.

        Raises:
            EnvironmentMissing: no key, wrong key, no such model, or no server.
        """
        from openai import AsyncOpenAI, OpenAIError

        await self.close()
        self._slots = asyncio.Semaphore(self.config.concurrency)
        self._key = references.resolve_secret(self.config.api_key)
        try:
            self._client = AsyncOpenAI(
                api_key=self._key or None,
                base_url=references.resolve_secret(self.config.base_url) or None,
                max_retries=0,
                timeout=self.config.timeout,
            )
        except OpenAIError as cause:
            raise EnvironmentMissing(
                f"no key for the server: {self._scrub(str(cause))}",
                remedy="set OPENAI_API_KEY, or api_key: ${secret:NAME} (any word will do for a server without keys)",
            ) from None
        await self._probe()

    async def _probe(self) -> None:
        place, end = Place("probe", 0, "probe"), self._end()
        hello = (Message("user", "Hello"),)
        try:
            try:
                await self._ask(hello, _PROBE, place, end)
            except EngineError as refused:
                if "max_completion_tokens" not in refused.what:
                    raise
                self._limit_field = "max_completion_tokens"
                await self._ask(hello, _PROBE, place, end)
        except CoterieError as cause:
            await self.close()
            raise EnvironmentMissing(cause.what, where=self._where(), remedy=cause.remedy) from None

    def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        """As `base.Engine.encode`."""
        room = chat.room_for(sampling, self.config.context)
        fitted = (chat.fit(chat.as_messages(prompt), room, _BYTES) for prompt in prompts)
        return [EncodedPrompt(*found) for found in fitted]

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        """As `base.Engine.generate`."""
        if sampling.choices:
            raise EngineError("this engine cannot constrain replies to choices", remedy="use engine: vllm")
        refuse_adapters(prompts)
        end = self._end()
        asked = [self._ask(cast(Messages, p.prompt), sampling, key, end) for p, key in zip(prompts, keys, strict=True)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one) for one in asked]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    def _end(self) -> float:
        return asyncio.get_running_loop().time() + _SHARE * self.deadline

    async def _ask(self, messages: Messages, sampling: Sampling, key: Place, end: float) -> Sample:
        failure: EngineError = self._timeout(_SHARE * self.deadline)
        try:
            async with asyncio.timeout_at(end), self._slots:
                for attempt in itertools.count():
                    try:
                        return await self._ask_once(messages, sampling)
                    except _Again as again:
                        failure, wait = again.error, self._backoff(again.after, key, attempt)
                    if attempt == self.config.retries or asyncio.get_running_loop().time() + wait >= end:
                        break
                    await asyncio.sleep(wait)
        except TimeoutError:
            pass
        raise failure

    def _backoff(self, after: float | None, key: Place, attempt: int) -> float:
        if after is not None:
            return min(after, _LONGEST_WAIT)
        jitter = float(rng.uniforms(self.seed, "backoff", str(key), attempt, count=1)[0])
        longest: float = min(_FIRST_WAIT * 2.0**attempt, _LONGEST_WAIT)
        return longest * (0.5 + jitter / 2)

    async def _ask_once(self, messages: Messages, sampling: Sampling) -> Sample:
        import openai

        if self._client is None:
            raise EngineError("the engine is not running", where="OpenAIEngine", remedy="await start() first")
        try:
            async with asyncio.timeout(self.config.timeout):
                reply = await self._client.chat.completions.create(**self._request(messages, sampling))
        except (TimeoutError, openai.APITimeoutError):
            raise _Again(self._timeout(self.config.timeout)) from None
        except openai.APIStatusError as cause:
            raise self._judge(cause) from None
        except openai.APIConnectionError as cause:
            reason = self._scrub(str(cause.__cause__ or cause))
            error = EngineError(
                f"the server cannot be reached: {reason}", where=self._where(), remedy="check base_url and the network"
            )
            raise _Again(error) from None
        except (openai.OpenAIError, ValueError) as cause:
            what = f"the server's answer cannot be read: {self._scrub(str(cause))}"
            raise _Again(EngineError(what, where=self._where())) from None
        return self._sample(reply)

    def _request(self, messages: Messages, sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._limit_field: sampling.max_tokens,
        }
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if sampling.top_k:
            request["extra_body"] = {"top_k": sampling.top_k}
        return request

    def _sample(self, reply: Any) -> Sample:
        if not getattr(reply, "choices", None) or reply.usage is None:
            remedy = "check base_url (it usually ends in /v1)"
            what = "the server answered with something that is no chat completion with usage"
            raise _Again(EngineError(what, where=self._where(), remedy=remedy))
        choice, usage = reply.choices[0], reply.usage
        details = getattr(usage, "prompt_tokens_details", None)
        return Sample(
            text=choice.message.content or "",
            finish="length" if choice.finish_reason == "length" else "stop",
            num_prompt_tokens=usage.prompt_tokens,
            num_tokens=usage.completion_tokens,
            num_cached_tokens=getattr(details, "cached_tokens", None) or 0,
        )

    def _judge(self, cause: Any) -> Exception:
        """What an HTTP status means: an error for good, or one to try again."""
        status, reason = cause.status_code, self._scrub(str(cause.message))[:300]
        if status in (408, 409, 429) or status >= 500:
            error = EngineError(f"the server answered {status}: {reason}", where=self._where(), remedy="try later")
            return _Again(error, _seconds(cause.response.headers.get("retry-after")))
        remedy = {
            401: "check the key: OPENAI_API_KEY, or api_key: ${secret:NAME}",
            403: "check what the key is allowed to do",
            404: f"check base_url, and that the server has the model {self.model!r}",
        }.get(status, "check the model and the sampling settings")
        return EngineError(f"the server answered {status}: {reason}", where=self._where(), remedy=remedy)

    def _timeout(self, seconds: float) -> EngineTimeout:
        what = f"the server did not answer in {seconds:g} seconds"
        return EngineTimeout(what, where=self._where(), remedy="raise the engine's timeout, or ask for fewer tokens")

    def _where(self) -> str:
        # As written, where it is written: a secret in it stays a reference.
        return self._scrub(self.config.base_url or (str(self._client.base_url) if self._client else ""))

    def _scrub(self, text: str) -> str:
        for key in (self._key, os.environ.get("OPENAI_API_KEY", "")):
            text = text.replace(key, "***") if key else text
        return references.redact(text)

    async def close(self) -> None:
        """Free everything. Safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def describe(self) -> dict[str, Any]:
        """As `base.Engine.describe`."""
        return {
            "engine": "openai",
            "version": f"openai {importlib.metadata.version('openai')}",
            "model": self.model,
            "server": self._where(),
            "context": self.config.context,
            "concurrency": self.config.concurrency,
        }


class _Again(Exception):
    """A failure worth another try, `after` seconds if the server said so; `error` is what to raise in the end."""

    def __init__(self, error: EngineError, after: float | None = None) -> None:
        super().__init__(error.what)
        self.error, self.after = error, after


def _seconds(header: str | None) -> float | None:
    # The other form of Retry-After, a date, is rare on such servers; the exponential wait serves it.
    try:
        return max(float(header), 0.0) if header else None
    except ValueError:
        return None


_BYTES = chat.Codec(
    measure=lambda messages: sum(len(m.content.encode(errors="replace")) + _MESSAGE_OVERHEAD for m in messages) + 8,
    split=lambda text: text,
    join="".join,
)
