"""vLLM's engine, stepped by one thread of ours: requests go in from the event loop, finished calls come back to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.v1.engine.llm_engine import LLMEngine

from coterie.errors import EngineError, EngineTimeout
from coterie.types import TokenIds

T = TypeVar("T")
_POLL_SECONDS = 5.0
_CLOSE_SECONDS = 30.0


@dataclass(eq=False)
class _Call:
    prompts: Sequence[TokenIds]
    params: Sequence[SamplingParams]
    adapters: Sequence[str]
    alone: bool
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[list[RequestOutput]]
    outputs: dict[int, RequestOutput] = field(default_factory=dict)
    is_cancelled: bool = False

    def settle(self, error: Exception | None = None) -> None:
        """Hand the outputs or the error to the event loop, if anybody still waits there."""
        outputs = [] if error else [self.outputs[i] for i in range(len(self.prompts))]
        _tell(self.loop, self.done, error, outputs)


@dataclass(eq=False)
class _Work:
    """What is to be done between two steps, when no request is open."""

    do: Callable[[LLMEngine], None]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    alone: bool = True
    is_cancelled: bool = False

    def settle(self, error: Exception | None = None) -> None:
        _tell(self.loop, self.done, error, None)


class StepLoop:
    """One thread that builds, steps and closes an `LLMEngine` (its OpenMP team belongs to the thread that made it).

    Args:
        build: Makes the engine; called in the thread.
        find_adapter: What a request of an adapter carries, by its name; called in the thread. Raises EngineError.
    """

    def __init__(self, build: Callable[[], LLMEngine], find_adapter: Callable[[str], LoRARequest | None]) -> None:
        self._build, self._find_adapter = build, find_adapter
        self._inbox: queue.SimpleQueue[_Call | _Work | None] = queue.SimpleQueue()
        self._open: dict[str, tuple[_Call, int]] = {}
        self._waiting: list[_Call | _Work] = []
        self._names = itertools.count()
        self._beat = time.monotonic()
        self._dead: Exception | None = None
        self._closing = self._runs_alone = False
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Build the engine. Raises what `build` raises."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, ready), name="coterie-vllm", daemon=True)
        self._thread.start()
        await ready

    async def generate(
        self,
        prompts: Sequence[TokenIds],
        params: Sequence[SamplingParams],
        adapters: Sequence[str],
        stall: float,
        alone: bool,
    ) -> list[RequestOutput]:
        """Outputs in the order of `prompts`. A cancelled caller takes its requests out of the engine.

        Args:
            prompts: Token ids.
            params: One per prompt.
            adapters: Who speaks, per prompt; empty: the model itself.
            stall: Seconds without a finished step after which the engine counts as hung.
            alone: Run as one batch by itself, all requests before the first step, on an empty prefix cache. Else the
                requests join the running batch.

        Raises:
            EngineTimeout: no step was finished for `stall` seconds.
            EngineError: the engine died, or there is no such adapter.
        """
        if not prompts:
            return []
        loop = asyncio.get_running_loop()
        call = _Call(prompts, params, adapters, alone, loop, loop.create_future())
        await self._wait(call, stall)
        return call.done.result()

    async def run(self, work: Callable[[LLMEngine], None], stall: float) -> None:
        """Do something with the engine between two steps, after the calls that came before and before those after.

        Raises:
            EngineTimeout: it took longer than `stall` seconds, or a step before it did.
            EngineError: raised by `work`, after which the engine goes on, or the engine died.
        """
        loop = asyncio.get_running_loop()
        asked = _Work(work, loop, loop.create_future())
        await self._wait(asked, stall)
        asked.done.result()

    async def _wait(self, call: _Call | _Work, stall: float) -> None:
        if self._dead is not None or self._thread is None or self._closing:
            raise _died(self._dead)
        self._beat = time.monotonic()
        self._inbox.put(call)
        try:
            while not (await asyncio.wait([call.done], timeout=min(stall, _POLL_SECONDS)))[0]:
                if time.monotonic() - self._beat > stall:
                    raise EngineTimeout(
                        f"vLLM finished no step in {stall:.0f} seconds",
                        remedy="free the machine, or raise the engine's stall",
                    )
        finally:
            call.is_cancelled = not call.done.done()

    async def close(self) -> None:
        """End the thread and free the engine; open calls fail."""
        self._closing = True
        self._inbox.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _CLOSE_SECONDS)
        self._thread = None

    def _run(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        try:
            engine = self._build()
        except BaseException as cause:
            _tell(loop, ready, cause, None)
            return
        _tell(loop, ready, None, None)
        try:
            while not self._closing:
                self._take_in(engine)
                self._advance(engine)
        except Exception as cause:
            self._dead = cause
        self._fail_open()
        _shut(engine)

    def _take_in(self, engine: LLMEngine) -> None:
        while not self._inbox.empty() or not (self._open or self._waiting):
            call = self._inbox.get()
            if call is None:
                return
            self._waiting.append(call)
        self._drop_cancelled(engine)
        while self._waiting and not (self._open and (self._waiting[0].alone or self._runs_alone)):
            self._add(engine, self._waiting.pop(0))

    def _drop_cancelled(self, engine: LLMEngine) -> None:
        self._waiting = [call for call in self._waiting if not call.is_cancelled]
        gone = [name for name, (call, _) in self._open.items() if call.is_cancelled]
        if gone:
            engine.abort_request(gone)
            for name in gone:
                del self._open[name]

    def _do(self, engine: LLMEngine, work: _Work) -> None:
        try:
            work.do(engine)
        except EngineError as error:
            work.settle(error)
        except Exception as cause:
            work.settle(_died(cause))
            raise
        else:
            work.settle()
        self._beat = time.monotonic()

    def _add(self, engine: LLMEngine, call: _Call | _Work) -> None:
        if isinstance(call, _Work):
            return self._do(engine, call)
        self._runs_alone = call.alone
        if call.alone:
            engine.reset_prefix_cache()
        try:
            speakers = [self._find_adapter(adapter) for adapter in call.adapters]
            for index, (ids, params, speaker) in enumerate(zip(call.prompts, call.params, speakers, strict=True)):
                name = str(next(self._names))
                engine.add_request(name, {"prompt_token_ids": list(ids)}, params, lora_request=speaker)
                self._open[name] = (call, index)
        except EngineError as error:
            call.settle(error)
        except Exception as cause:
            # A request that vLLM refuses is the caller's trouble, not the engine's end.
            call.is_cancelled = True
            self._drop_cancelled(engine)
            call.settle(EngineError(f"vLLM refused a request: {cause}", remedy="check the sampling settings"))

    def _advance(self, engine: LLMEngine) -> None:
        if not self._open:
            return
        for output in engine.step():
            self._collect(output)
        self._beat = time.monotonic()

    def _collect(self, output: Any) -> None:
        if not output.finished:
            return
        call, index = self._open.pop(output.request_id)
        call.outputs[index] = output
        if len(call.outputs) == len(call.prompts):
            call.settle()

    def _fail_open(self) -> None:
        while not self._inbox.empty():
            call = self._inbox.get()
            if call is not None:
                self._waiting.append(call)
        for call in {*self._waiting, *(call for call, _ in self._open.values())}:
            call.settle(_died(self._dead))
        self._waiting, self._open = [], {}


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Future[T], error: BaseException | None, result: T) -> None:
    def finish() -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    with contextlib.suppress(RuntimeError):
        # RuntimeError: the event loop was closed, so nobody waits.
        loop.call_soon_threadsafe(finish)


def _died(cause: Exception | None) -> EngineError:
    what = f"the vLLM engine died: {type(cause).__name__}: {cause}" if cause else "the vLLM engine is not running"
    return EngineError(what, remedy="start it again; if it dies again, lower max_batch, context or memory")


def _shut(engine: LLMEngine) -> None:
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()
