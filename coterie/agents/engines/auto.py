"""Chooses the engine for this machine."""

from __future__ import annotations

import platform

from coterie.agents.engines import vllm
from coterie.agents.engines.config import AutoConfig, TransformersConfig, VllmConfig
from coterie.agents.engines.transformers import TransformersEngine


def resolve(config: AutoConfig) -> VllmConfig | TransformersConfig:
    """The config of vLLM on Linux where it is installed, else of transformers.

    Fields that the config does not set have the defaults of the chosen engine.
    """
    fields = config.model_dump(exclude_unset=True, exclude={"kind"})
    return VllmConfig(**fields) if vllm.version() and platform.system() == "Linux" else TransformersConfig(**fields)


def build(config: AutoConfig, model: str, seed: int, exact: bool) -> vllm.VllmEngine | TransformersEngine:
    """What `resolve` chooses. The engine's `describe()` says why."""
    chosen, system = resolve(config), platform.system()
    if isinstance(chosen, VllmConfig):
        engine: vllm.VllmEngine | TransformersEngine = vllm.VllmEngine(chosen, model, seed, exact)
        engine.why = f"vllm, because {vllm.version()} is installed"
    else:
        engine = TransformersEngine(chosen, model, seed, exact)
        reason = f"vLLM does not run on {system}" if system != "Linux" else "vLLM is not installed"
        engine.why = f"transformers, because {reason}"
    return engine
