"""Configs of the engines. Imports nothing heavy."""

from __future__ import annotations

import re
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from coterie.config.base import KindConfig, Secret


class EngineConfig(KindConfig):
    """Base of engine configs. It says what the engine will be able to do, so that `validate` needs not start it."""

    capabilities: ClassVar[frozenset[str]] = frozenset()
    """See `engines.base.Capability`."""


class LocalModelConfig(EngineConfig):
    """What engines that load weights themselves have in common."""

    capabilities = frozenset({"tokens", "logprobs", "seeded", "choices", "weights", "lora"})

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is the model's own (float32 where a CPU has no bfloat16); `determinism: exact` across executors needs
    float32."""
    context: int = Field(2048, ge=32)
    """The longest prompt plus reply, in tokens (never more than the model's own limit)."""
    max_batch: int = Field(64, ge=1)
    """The largest number of prompts in one batch."""
    stall: float = Field(300.0, gt=0)
    """Seconds without one finished step after which the engine counts as hung."""
    adapters: int = Field(0, ge=0, le=256)
    """How many LoRA adapters it can hold at a time; 0: none."""
    lora_rank: int = Field(16, ge=1, le=512)
    """The highest rank of an adapter."""


class VllmConfig(LocalModelConfig):
    """vLLM: continuous batching and prefix caching."""

    kind: Literal["vllm"] = "vllm"
    max_batch: int = Field(256, ge=1)
    memory: float = Field(2.0, gt=0)
    """CPU: GiB for the KV cache."""
    gpu_memory_utilization: float = Field(0.85, gt=0, lt=1)
    tensor_parallel: int = Field(1, ge=1)
    sleep: bool = False
    """On a GPU that engine and learner share: hold no memory there while policies learn."""
    eager: bool = True
    """Skip graph capture and compilation: starts sooner, runs a little slower on a GPU."""


class TransformersConfig(LocalModelConfig):
    """Hugging Face transformers in this process, left-padded batches."""

    capabilities = LocalModelConfig.capabilities | {"shared_cache"}

    kind: Literal["transformers"] = "transformers"
    device: str = "auto"
    """`cuda`, `mps`, `cpu`, or any other device of torch; `auto` takes the first of these there is."""
    max_batch: int = Field(32, ge=1)


class AutoConfig(LocalModelConfig):
    """vLLM where it is installed, else transformers; says which."""

    kind: Literal["auto"] = "auto"


class OpenAIConfig(EngineConfig):
    """Any server that speaks the OpenAI chat API."""

    kind: Literal["openai"] = "openai"
    base_url: Secret = ""
    """Empty: the client's default (OPENAI_BASE_URL, else OpenAI)."""
    api_key: Secret = Field("", repr=False)
    """Write `${secret:NAME}`; empty: OPENAI_API_KEY."""
    concurrency: int = Field(32, ge=1)
    timeout: float = Field(120.0, gt=0)
    """Seconds for one request."""
    retries: int = Field(5, ge=0)
    """Further tries after a rate limit, a server error, a lost connection or a timeout, as far as nine tenths of
    `executor.deadline` leave room."""
    context: int = Field(8192, ge=32)
    """The longest prompt plus reply. Without the server's tokenizer a prompt counts one token per byte, its upper
    bound."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        # What a secret stands for is not known yet. The message does not show the value: it may hold a password.
        if value and "${secret:" not in value and not _is_address(value):
            raise ValueError("expected an address such as http://localhost:8000/v1")
        return value

    @field_validator("api_key")
    @classmethod
    def _is_a_reference(cls, value: str) -> str:
        # The message must not show the value: it may be a key.
        if value and not re.fullmatch(r"\$\{secret:[A-Za-z_][A-Za-z0-9_]*\}", value):
            raise ValueError("write ${secret:NAME}, and put the key into the environment variable NAME")
        return value


class PythonConfig(EngineConfig):
    """Runs the Python code that the last message holds, in a sandbox; the reply is what it printed. Takes no model."""

    kind: Literal["python"] = "python"
    seconds: float = Field(10.0, gt=0)
    """The longest that one reply's code may run."""
    memory: int = Field(512, ge=64)
    """MiB."""
    longest: int = Field(2_000, ge=1)
    """Characters of output that are kept."""
    max_batch: int = Field(4, ge=1)
    """How many sandboxes run side by side."""


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_port = parts.port != 0  # raises for what is no port
    except ValueError:
        return False
    return is_port and parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", text)
