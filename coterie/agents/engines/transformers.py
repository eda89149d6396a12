"""transformers in this process: left-padded batches, one token loop of our own, counted sampling.

Also a Scorer, and a GroupDecoder.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from coterie.agents.engines import models, process
from coterie.agents.engines.base import Capability, Signal
from coterie.agents.engines.config import TransformersConfig
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.agents.engines.weights import publish_again
from coterie.errors import EngineError, EngineTimeout, EnvironmentMissing
from coterie.types import EncodedPrompt, Place, Prompt, Sample, Sampling, Sight, TokenIds, Weights

if TYPE_CHECKING:
    from coterie.agents.engines.decoding import CausalModel

T = TypeVar("T")
_POLL_SECONDS = 5.0


class TransformersEngine:
    """One model in this process. Calls run one after the other in a thread of their own, so the event loop lives."""

    capabilities: frozenset[Capability] = frozenset(
        {"tokens", "logprobs", "seeded", "choices", "weights", "lora", "shared_cache"}
    )
    is_continuous = False

    def __init__(self, config: TransformersConfig, model: str, seed: int, exact: bool) -> None:
        self.config, self.model, self.seed, self.exact = config, model, seed, exact
        self.max_batch = config.max_batch
        self.why = ""
        """Set by `auto`: why this engine was chosen."""
        self._folder = ""
        self._tokenizer: ChatTokenizer | None = None
        self._model: CausalModel | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._published: dict[str, Weights] = {}
        self._beat = 0.0

    async def start(self) -> None:
        """Load the model, and what was published to it before.

        Raises:
            EnvironmentMissing: it cannot be found, or does not fit.
            EngineError: what was published cannot be read any more.
        """
        await self.close()
        process.prepare()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="coterie-transformers")
        self._folder = models.resolve(self.model)
        self._tokenizer = ChatTokenizer.load(self._folder, self.config.context)
        self._model = await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        await publish_again(self, self._published)

    def _load(self) -> CausalModel:
        from coterie.agents.engines.decoding import CausalModel

        config = self.config
        try:
            return CausalModel.load(self._folder, config.device, config.dtype, config.adapters, config.lora_rank)
        except (MemoryError, RuntimeError) as cause:
            raise EnvironmentMissing(
                f"the model {self.model} does not fit or does not run here: {str(cause)[:300]}",
                where=f"device {self.config.device}",
                remedy="use a smaller model, another `device` or another `dtype`",
            ) from cause
        except (OSError, ValueError) as cause:
            raise models.missing(self.model, cause) from cause

    def _ready(self) -> tuple[CausalModel, ChatTokenizer]:
        if self._model is None or self._tokenizer is None:
            raise EngineError("the engine is not running", where="TransformersEngine", remedy="await start() first")
        return self._model, self._tokenizer

    def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        """As `base.Engine.encode`."""
        return self._ready()[1].encode(prompts, sampling)

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        """As `base.Engine.generate`."""
        model, tokenizer = self._ready()
        if not prompts:
            return []
        spelt = [tokenizer.spell(choice) for choice in sampling.choices]
        return await self._beating(
            lambda beat: model.generate(
                prompts, sampling, keys, self.seed, tokenizer.decode, tokenizer.pad_id, beat, spelt
            )
        )

    async def generate_together(
        self,
        groups: Sequence[Sequence[EncodedPrompt]],
        sampling: Sampling,
        keys: Sequence[Sequence[Place]],
        sight: Sight,
    ) -> list[Sample]:
        """As `base.GroupDecoder.generate_together`."""
        from coterie.agents.engines.shared_cache import begin

        model, tokenizer = self._ready()
        if not groups:
            return []
        spelt = [tokenizer.spell(choice) for choice in sampling.choices]
        thinking = begin(groups, keys, self.seed, sight, sampling.max_tokens)
        return await self._beating(
            lambda beat: model.generate_together(thinking, sampling, tokenizer.decode, tokenizer.pad_id, beat, spelt)
        )

    async def _beating(self, work: Callable[[Callable[[], bool]], T]) -> T:
        """What the thread does, which calls `beat` at every step and ends where that is true."""
        stopped = threading.Event()

        def beat() -> bool:
            self._beat = time.monotonic()
            return stopped.is_set()

        try:
            return await self._in_thread(lambda: work(beat))
        finally:
            stopped.set()

    async def publish(self, weights: Weights) -> None:
        """As `base.Publishable.publish`; waits for the calls that came before."""
        model, _ = self._ready()

        def work() -> None:
            model.weights.publish(weights)
            self._published[weights.adapter] = weights

        await self._in_thread(work)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        self._beat = time.monotonic()
        done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        while not (await asyncio.wait([done], timeout=min(_POLL_SECONDS, self.config.stall)))[0]:
            if time.monotonic() - self._beat > self.config.stall:
                raise EngineTimeout(
                    f"the model finished no step in {self.config.stall:.0f} seconds",
                    remedy="free the machine, or raise the engine's stall",
                )
        try:
            return done.result()
        except (RuntimeError, MemoryError) as cause:
            raise EngineError(f"the model failed: {str(cause)[:300]}", remedy="lower max_batch or context") from cause

    def score(self, ids: Sequence[TokenIds], signals: Sequence[str]) -> list[dict[str, Any]]:
        """As `base.Scorer.score`; blocks, first until the engine's thread has ended what it does."""
        model, _ = self._ready()
        if unknown := set(signals) - set(get_args(Signal)):
            known = ", ".join(get_args(Signal))
            raise EngineError(f"no such signal: {', '.join(sorted(unknown))}", remedy=f"use some of {known}")
        assert self._thread is not None
        try:
            # Scoring changes the model for a moment; nobody may generate with it meanwhile.
            return self._thread.submit(model.score, ids, signals).result()
        except ValueError as cause:
            what = f"the model's attention cannot be read: {cause}"
            raise EngineError(what, where=self.model, remedy="ask for logprobs and entropy alone") from cause

    async def close(self) -> None:
        """Free everything. Safe to call twice."""
        thread, self._thread, self._model = self._thread, None, None
        if thread is not None:
            await asyncio.to_thread(thread.shutdown, wait=False, cancel_futures=True)

    def describe(self) -> dict[str, Any]:
        """As `base.Engine.describe`."""
        return {
            "engine": "transformers",
            "version": f"transformers {importlib.metadata.version('transformers')}",
            "model": self.model,
            "weights": models.fingerprint(self._folder),
            "dtype": self._model.dtype if self._model else self.config.dtype,
            "device": self._model.device if self._model else self.config.device,
            "context": self._tokenizer.context if self._tokenizer else self.config.context,
            "max_batch": self.max_batch,
            "sampling": "counted",
            "published": {name: weights.version for name, weights in self._published.items()},
            **({"auto": self.why} if self.why else {}),
        }
