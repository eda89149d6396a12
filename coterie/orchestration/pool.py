"""Which engine serves which policy, and how the rest of the package reaches it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from coterie import registry
from coterie.agents.engines.base import Engine, GroupDecoder, Publishable
from coterie.config.base import KindConfig
from coterie.config.schema import PolicyConfig
from coterie.errors import EngineError, EnvironmentMissing
from coterie.types import EncodedPrompt, Place, Prompt, Sample, Sampling, Sight


@runtime_checkable
class Patient(Protocol):
    """An engine that tries again by itself; it must have an answer or give up within `deadline` seconds of a call."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Learning:
    """What engines must know of a training: the rank of the LoRA adapters; None: full weights."""

    lora_rank: int | None = None


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything needed to build an engine, here or in another process. Policies with equal config share one."""

    id: str
    config: KindConfig
    model: str
    seed: int
    exact: bool
    is_own: bool = False
    """Its model's weights are those of one policy, which is trained."""

    def pack(self) -> dict[str, Any]:
        """The spec as plain data, for a process that has not imported the config's plugin yet; `unpack` reads it."""
        config = self.config.model_dump()
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"config": config}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> EngineSpec:
        """The spec that was packed."""
        data = packed["config"]
        config: KindConfig = registry.load(registry.get("engine", data["kind"]).config).model_validate(data)
        return cls(**{**packed, "config": config})

    def build(self, deadline: float) -> Engine:
        """The engine, not started. `deadline`: seconds after which the executor will wait for a call no longer."""
        engine: Engine = registry.impl("engine", self.config.kind)(self.config, self.model, self.seed, self.exact)
        if isinstance(engine, Patient):
            engine.deadline = deadline
        return engine


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What a worker needs to know of a policy."""

    name: str
    engine: str
    sampling: Sampling
    version: int = 0
    """How often its weights were replaced: part of every turn's key."""
    adapter: str = ""
    """The LoRA adapter of its engine that speaks for it; empty: the model itself."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the supervisor needs to know of a started engine."""

    max_batch: int
    is_continuous: bool
    replicas: int = 1


class EngineClient(Protocol):
    """An engine as a worker calls it, in this process or another."""

    async def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]: ...

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]: ...

    async def generate_together(
        self,
        groups: Sequence[Sequence[EncodedPrompt]],
        sampling: Sampling,
        keys: Sequence[Sequence[Place]],
        sight: Sight,
    ) -> list[Sample]: ...


class LocalClient:
    """An engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        return self.engine.encode(prompts, sampling)

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        return await self.engine.generate(prompts, sampling, keys)

    async def generate_together(
        self,
        groups: Sequence[Sequence[EncodedPrompt]],
        sampling: Sampling,
        keys: Sequence[Sequence[Place]],
        sight: Sight,
    ) -> list[Sample]:
        return await group_decoder(self.engine).generate_together(groups, sampling, keys, sight)


def plan(
    policies: Mapping[str, PolicyConfig], seed: int, exact: bool, base: Path, learning: Learning | None = None
) -> tuple[dict[str, EngineSpec], dict[str, PolicySpec]]:
    """Engines by id and policies by name, for the `policies:` section of an experiment.

    Policies whose engine and model are the same share an engine, each with its adapter if it has one. A policy whose
    full weights are trained has an engine of its own. `base` is where relative paths start.
    """
    engines: dict[str, EngineSpec] = {}
    specs: dict[str, PolicySpec] = {}
    for name, policy in policies.items():
        is_trained = learning is not None and not policy.frozen
        is_own = is_trained and learning is not None and learning.lora_rank is None
        shared = (e for e in engines.values() if (e.config, e.model) == (policy.engine, policy.model) and not e.is_own)
        known = None if is_own else next(shared, None)
        spec = known or EngineSpec(f"engine-{len(engines)}", policy.engine, policy.model, seed, exact, is_own)
        engines[spec.id] = spec
        adapter = name if policy.adapter or (is_trained and not is_own) else ""
        specs[name] = PolicySpec(name, spec.id, policy.sampling.build(), adapter=adapter)
    given = {name: adapter_rank(base / policy.adapter) for name, policy in policies.items() if policy.adapter}
    return {name: _fitted(spec, specs, given, learning) for name, spec in engines.items()}, specs


def _fitted(
    spec: EngineSpec, specs: Mapping[str, PolicySpec], given: Mapping[str, int], learning: Learning | None
) -> EngineSpec:
    """The engine with room for its adapters; those that are given have ranks of their own."""
    speaking = [one.name for one in specs.values() if one.engine == spec.id and one.adapter]
    if not speaking:
        return spec
    trained = learning.lora_rank if learning is not None and learning.lora_rank else 0
    room = {"adapters": len(speaking), "lora_rank": max(given.get(name, trained) for name in speaking)}
    return replace(spec, config=spec.config.model_copy(update=room))


def adapter_rank(folder: Path) -> int:
    """The rank of a LoRA adapter that peft wrote.

    Raises:
        EnvironmentMissing: there is none.
    """
    try:
        return int(json.loads((folder / "adapter_config.json").read_text("utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise EnvironmentMissing(
            f"there is no LoRA adapter: {cause}", where=str(folder), remedy="name a folder with adapter_config.json"
        ) from cause


def describe(engine: Engine) -> tuple[EngineInfo, dict[str, Any]]:
    """A started engine's numbers for the supervisor, and its facts for the record."""
    return EngineInfo(engine.max_batch, engine.is_continuous), engine.describe()


def group_decoder(engine: Engine) -> GroupDecoder:
    """The engine as one with a shared cache; `validate` has made sure that it is one."""
    if not isinstance(engine, GroupDecoder):
        raise EngineError("this engine cannot decode thinkers side by side", remedy="use engine: transformers")
    return engine


def publishable(engine: Engine) -> Publishable:
    """The engine as one whose weights can be replaced; `validate` has made sure that it is one."""
    if not isinstance(engine, Publishable):
        raise EngineError("the weights of this engine cannot be replaced", remedy="use engine: vllm or transformers")
    return engine
