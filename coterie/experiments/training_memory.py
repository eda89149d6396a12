"""Whether engines and learners of a training fit into memory together, asked and told before they are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from coterie.agents.engines import models
from coterie.agents.learning.llm_config import PolicyGradientConfig
from coterie.config.schema import ExperimentConfig
from coterie.errors import EnvironmentMissing
from coterie.experiments.checks import available_memory
from coterie.orchestration.memory_plan import GIB, MemoryPlan, ModelSize, plan_engine, plan_learner, tell
from coterie.orchestration.pool import EngineSpec


def plan_memory(
    config: ExperimentConfig, engines: Mapping[str, EngineSpec], device: str
) -> list[tuple[str, int, MemoryPlan]]:
    """What is held at a time: its name, how many of it there are, and the bytes of one.

    Engines that ask a server hold nothing here; nor is anything said of models that cannot be sized, such as a hub id
    that was not loaded yet.
    """
    found = [_engine(spec, device) for spec in engines.values() if spec.model and hasattr(spec.config, "dtype")]
    learning = cast(PolicyGradientConfig, config.learning)
    settings = learning.build()
    dtype = _precision(settings.precision, device)
    trained = Counter(policy.model for policy in config.policies.values() if not policy.frozen)
    for model, count in trained.items():
        size = _size(model, settings.lora.targets if settings.lora is not None else ())
        if size is not None:
            together = count if settings.lora is not None else 1
            found.append((f"learner of {model}", count // together, plan_learner(size, settings, dtype, together)))
    return [one for one in found if one is not None]


def check_plan(planned: list[tuple[str, int, MemoryPlan]], device: str) -> str:
    """The plan in a few lines.

    Raises:
        EnvironmentMissing: it is larger than the memory that is free.
    """
    total, free = sum(count * plan.total for _, count, plan in planned), _free(device)
    room = f" of {tell(free)} that are free" if free is not None else ""
    lines = [f"memory on {device}: about {tell(total)}{room}"]
    lines += [f"  {f'{count} x ' if count > 1 else ''}{name} {plan}" for name, count, plan in planned]
    if free is not None and total > free:
        raise EnvironmentMissing(
            "engines and learners do not fit into memory together:\n    " + "\n    ".join(lines),
            where=f"device {device}",
            remedy="train adapters (learning.lora), set a smaller learning.micro_tokens or engine memory, or a smaller "
            "model",
        )  # fmt: skip
    return "\n".join(lines)


def _engine(spec: EngineSpec, device: str) -> tuple[str, int, MemoryPlan] | None:
    config, size = cast(Any, spec.config), _size(spec.model)
    if size is None:
        return None
    dtype = _dtype(config.dtype, device)
    cache = int(config.memory * GIB) if hasattr(config, "memory") else 0
    if not cache:
        cache = config.max_batch * config.context * size.cached * (4 if dtype == "float32" else 2)
    plan = plan_engine(size, dtype, cache, rank=config.lora_rank, adapters=config.adapters)
    return f"engine of {spec.model}", 1, plan


def _size(model: str, targets: Any = ()) -> ModelSize | None:
    try:
        return ModelSize.of(models.resolve(model), targets)
    except (OSError, ValueError, AttributeError):
        return None


def _dtype(wanted: str, device: str) -> str:
    if wanted != "auto":
        return wanted
    return "bfloat16" if device == "cuda" or models.cpu_dtype("auto") == "auto" else "float32"


def _precision(wanted: str, device: str) -> str:
    return ("bfloat16" if device == "cuda" else "float32") if wanted == "auto" else wanted


def _free(device: str) -> int | None:
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    free = available_memory()
    return None if free is None else int(free * GIB)
