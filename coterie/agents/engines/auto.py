"""Chooses the engine for this machine."""

from __future__ import annotations

import platform

from coterie.agents.engines import vllm
from coterie.agents.engines.config import AutoConfig, TransformersConfig, VllmConfig
from coterie.agents.engines.transformers import TransformersEngine


def build(config: AutoConfig, model: str, seed: int, exact: bool) -> vllm.VllmEngine | TransformersEngine:
    """Choose vLLM on Linux where it is installed, else transformers. The engine's `describe()` says why.

    Fields that the config does not set have the defaults of the chosen engine.
    """
    fields = config.model_dump(exclude_unset=True, exclude={"kind"})
    version, system = vllm.version(), platform.system()
    if version and system == "Linux":
        engine: vllm.VllmEngine | TransformersEngine = vllm.VllmEngine(VllmConfig(**fields), model, seed, exact)
        engine.why = f"vllm, because {version} is installed"
    else:
        engine = TransformersEngine(TransformersConfig(**fields), model, seed, exact)
        reason = f"vLLM does not run on {system}" if system != "Linux" else "vLLM is not installed"
        engine.why = f"transformers, because {reason}"
    return engine
