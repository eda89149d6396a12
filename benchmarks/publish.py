"""Seconds to publish weights to an engine that runs: full weights of the built-in model, and a LoRA adapter of rank 8.

The rival is what one would do without: a fresh start of the engine with the new weights. The ratio is its seconds
against those of a publication (of an adapter: the start is the same, as it would be merged).

Correct first: each publication compares a random subset of the engine's tensors with the folder's and fails otherwise;
and replies are those of the version that was published last.

    python benchmarks/publish.py [--engine vllm transformers] [--times 5]
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import save, spread
from _weights import MODEL, make_adapter, make_weights

from coterie.agents.engines.config import TransformersConfig, VllmConfig
from coterie.agents.engines.transformers import TransformersEngine
from coterie.agents.engines.vllm import VllmEngine
from coterie.types import Message, Place, Sampling, Weights

SAMPLING = Sampling(0.0, max_tokens=4)


def build(kind: str) -> VllmEngine | TransformersEngine:
    if kind == "vllm":
        return VllmEngine(VllmConfig(memory=0.5, adapters=2, lora_rank=8), MODEL, 0, True)
    return TransformersEngine(TransformersConfig(adapters=2, lora_rank=8), MODEL, 0, True)


async def ask(engine: VllmEngine | TransformersEngine, adapter: str) -> Any:
    prompts = engine.encode([(Message("user", "What is 4 + 3?"),)], SAMPLING)
    named = [replace(prompt, adapter=adapter) for prompt in prompts]
    sample = (await engine.generate(named, SAMPLING, [Place("t", 0, "a")]))[0]
    return sample.token_ids, [round(value, 2) for value in sample.logprobs or ()]


async def measure(kind: str, folders: dict[str, list[Path]], times: int) -> dict[str, Any]:
    engine, starts = build(kind), []
    for _ in range(1 if kind == "vllm" else times):
        start = time.perf_counter()
        await engine.start()
        starts.append(time.perf_counter() - start)
    rows: dict[str, Any] = {"start, s": spread(starts)}
    for form, two in folders.items():
        adapter, seconds, said = "ann" if form == "adapter" else "", [], []
        for version in range(times):
            start = time.perf_counter()
            await engine.publish(Weights(str(two[version % 2]), adapter, version))
            seconds.append(time.perf_counter() - start)
            said.append(await ask(engine, adapter))
        assert said[0] != said[1], "two versions say the same"
        assert all(one == said[number % 2] for number, one in enumerate(said)), "a version is not what it was"
        ratios = [min(starts) / one for one in seconds]
        rows[form] = {"first, s": round(seconds[0], 3), "s": spread(seconds[1:]), "ratio": spread(ratios[1:])}
    await engine.close()
    return rows


def main(engines: list[str], times: int) -> None:
    scratch = Path(tempfile.mkdtemp())
    try:
        folders = {
            "full weights": [make_weights(scratch / f"full{seed}", seed) for seed in range(2)],
            "adapter": [make_adapter(scratch / f"adapter{seed}", seed) for seed in range(2)],
        }
        rows = {kind: asyncio.run(measure(kind, folders, times)) for kind in engines}
    finally:
        shutil.rmtree(scratch)
    save("publish", {"model": MODEL, "rival": "a fresh start of the engine", "publications": times, **rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", nargs="+", choices=["vllm", "transformers"], default=["transformers", "vllm"])
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    main(options.engine, options.times)
