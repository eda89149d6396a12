"""What expensive tests share: one model on disk and one vLLM engine for the whole run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

# Before any test imports a library that reads it: no test may reach for a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nor may threads of torch spin for long while other processes want the cores (see agents/engines/process.py).
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


@pytest.fixture(scope="session")
def smollm() -> str:
    """The folder of the built-in model."""
    from coterie.agents.engines import models

    return models.resolve("smollm2-135m")


@pytest.fixture(scope="session")
def vllm_engine(smollm: str) -> Iterator[object]:
    """The one vLLM engine of a test run: smollm2-135m in float32, seed 3, exact. Set `exact` back if you change it."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from coterie.agents.engines.config import VllmConfig
    from coterie.agents.engines.vllm import VllmEngine

    engine = VllmEngine(VllmConfig(memory=0.5, dtype="float32"), "smollm2-135m", 3, exact=True)
    asyncio.run(engine.start())
    yield engine
    asyncio.run(engine.close())
