"""Whether engines and learners of a training fit into memory together, asked and told before they are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from coterie.agents.engines import models
from coterie.agents.engines.config import AutoConfig, VllmConfig
from coterie.agents.learning.llm_config import PolicyGradientConfig
from coterie.agents.learning.llm_settings import LLMSettings
from coterie.config.schema import ExperimentConfig
from coterie.errors import EnvironmentMissing
from coterie.experiments.checks import available_memory
from coterie.orchestration.memory_plan import GIB, PHASES, MemoryPlan, ModelSize, plan_engine, plan_learner, tell
from coterie.orchestration.pool import EngineSpec


def plan_memory(
    config: ExperimentConfig, engines: Mapping[str, EngineSpec], device: str
) -> list[tuple[str, int, MemoryPlan]]:
    """What is held at a time: its name, how many of it there are, and the bytes of one.

    On GPUs it is what the first one holds, on which everything has a part.
    Engines that ask a server hold nothing here; nor is anything said of models that cannot be sized, such as a hub id
    that was not loaded yet.
    """
    found = [_engine(spec, device) for spec in engines.values() if spec.model and hasattr(spec.config, "dtype")]
    learning = cast(PolicyGradientConfig, config.learning)
    settings = learning.build()
    for (model, together, parts), count in _learners(config, settings).items():
        size = _size(model, settings.lora.targets if settings.lora is not None else ())
        if size is not None:
            name = f"learner of {model}" + (f", a part of {parts}" if parts > 1 else "")
            plan = plan_learner(size, settings, _precision(settings, device), together, parts)
            found.append((name, count if device == "cuda" else count * parts, plan))
    return [one for one in found if one is not None]


def check_plan(planned: list[tuple[str, int, MemoryPlan]], device: str) -> str:
    """The plan in a few lines, for the phase that takes the most.

    Raises:
        EnvironmentMissing: it is larger than the memory that is free.
    """
    total = max(sum(count * plan.during(phase) for _, count, plan in planned) for phase in PHASES)
    free = _free(device)
    room = f" of {tell(free)} that are free" if free is not None else ""
    lines = [f"memory on {device}: about {tell(total)}{room}"]
    lines += [f"  {f'{count} x ' if count > 1 else ''}{name} {plan}" for name, count, plan in planned]
    if free is not None and total > free:
        raise EnvironmentMissing(
            "engines and learners do not fit into memory together:\n    " + "\n    ".join(lines),
            where=f"device {device}",
            remedy="train adapters (learning.lora), set a smaller learning.micro_batch_tokens or engine memory "
            "(gpu_memory_utilization), on a GPU let the engine `sleep` meanwhile, or take a smaller model",
        )  # fmt: skip
    return "\n".join(lines)


def _learners(config: ExperimentConfig, settings: LLMSettings) -> Counter[tuple[str, int, int]]:
    """How many learners there are of a model, for so many policies, of so many processes."""
    trained: dict[str, list[str]] = {}
    for name, policy in config.policies.items():
        if not policy.frozen:
            trained.setdefault(policy.model, []).append(name)
    shared = settings.lora is not None
    groups = [
        (model, group)
        for model, names in trained.items()
        for group in ([names] if shared else [[name] for name in names])
    ]
    return Counter((model, len(group), settings.num_ranks(group)) for model, group in groups)


def _engine(spec: EngineSpec, device: str) -> tuple[str, int, MemoryPlan] | None:
    from coterie.agents.engines.auto import resolve

    size = _size(spec.model)
    if size is None:
        return None
    config: Any = resolve(spec.config) if isinstance(spec.config, AutoConfig) else spec.config
    dtype, adapters = _dtype(config.dtype, device), {"rank": config.lora_rank, "adapters": config.adapters}
    if not isinstance(config, VllmConfig):
        cache = config.max_batch * config.context * size.cached * (4 if dtype == "float32" else 2)
        plan = plan_engine(size, dtype, cache, **adapters)
    elif device == "cuda":
        # It takes its share of the card whole: what weights and adapters leave of that is for keys and values.
        share, parts = int(config.gpu_memory_utilization * _gpu()[1]), config.tensor_parallel
        least = plan_engine(size, dtype, 0, **adapters, parts=parts).total
        plan = plan_engine(size, dtype, max(share - least, 0), **adapters, parts=parts, sleeps=config.sleep)
    else:
        plan = plan_engine(size, dtype, int(config.memory * GIB), **adapters)
    return f"engine of {spec.model}", 1, plan


def _size(model: str, targets: Any = ()) -> ModelSize | None:
    try:
        return ModelSize.of(models.resolve(model), targets)
    except (OSError, ValueError, AttributeError):
        return None


def _dtype(wanted: str, device: str) -> str:
    found = wanted if device == "cuda" else models.cpu_dtype(wanted)
    return "bfloat16" if found == "auto" else found  # what models are published in


def _precision(settings: LLMSettings, device: str) -> str:
    import torch

    from coterie.agents.learning import bases

    return str(bases.pick_precision(settings, torch.device(device))).removeprefix("torch.")


def _gpu() -> tuple[int, int]:
    """Bytes of the first GPU that are free, and all of its bytes."""
    import torch

    return torch.cuda.mem_get_info(0)


def _free(device: str) -> int | None:
    if device == "cuda":
        return _gpu()[0]
    free = available_memory()
    return None if free is None else int(free * GIB)
