"""Tokens per second of vLLM on a CPU when four LoRA adapters speak in one batch.

Three forms take turns in one engine: nobody has an adapter; four adapters, computed together as
`JoinedAdapters` does; four adapters by vLLM's own kernels for CPUs, the rival. They are compared round by round, since
the machine's speed drifts.

Correct first: in float32 both kernels give the same tokens for the same counted draws, and without an adapter the rival
would take that of the last slot (the round with nobody is never run on it).

    python benchmarks/adapters.py [--prompts 64] [--tokens 16] [--rounds 3] [--dtype auto]
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
from _weights import MODEL, make_adapter
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from coterie.agents.engines.config import VllmConfig
from coterie.agents.engines.vllm import VllmEngine
from coterie.agents.engines.vllm_adapters import JoinedAdapters
from coterie.types import Message, Place, Sample, Sampling, Weights

FORMS = ("nobody", "joined", "vLLM's own")
NAMES = ("ann", "bob", "cleo", "dan")


def use(kernels: type) -> Any:
    """Work for the engine's thread: let adapters be computed so from now on."""

    def swap(worker: Any) -> None:
        manager = worker.model_runner.lora_manager._adapter_manager
        for wrapper in manager.punica_wrapper_mapping.values():
            wrapper.__class__ = kernels
        manager._last_mapping = None

    return lambda engine: engine.collective_rpc(swap)


async def work(engine: VllmEngine, form: str, count: int, sampling: Sampling) -> tuple[float, list[Sample]]:
    assert engine._loop is not None
    await engine._loop.run(use(PunicaWrapperCPU if form == FORMS[2] else JoinedAdapters), 60.0)
    system = Message("system", "You solve small sums. Reason in one or two short sentences, then give the answer.")
    asked = engine.encode(
        [(system, Message("user", f"What is {n} + {7 * n % 90 + 3}?")) for n in range(count)], sampling
    )
    spoken = [replace(one, adapter="" if form == FORMS[0] else NAMES[n % 4]) for n, one in enumerate(asked)]
    start = time.perf_counter()
    samples = await engine.generate(spoken, sampling, [Place(f"t{n}", 0, "a") for n in range(count)])
    return time.perf_counter() - start, samples


async def measure(folders: list[Path], count: int, tokens: int, rounds: int, dtype: Any) -> dict[str, Any]:
    engine = VllmEngine(VllmConfig(memory=1.0, adapters=4, lora_rank=8, dtype=dtype), MODEL, 0, True)
    await engine.start()
    for name, folder in zip(NAMES, folders, strict=True):
        await engine.publish(Weights(str(folder), name, 1))
    rates: dict[str, list[float]] = {form: [] for form in FORMS}
    for number in range(rounds + 1):
        said = {}
        for form in FORMS:
            seconds, samples = await work(engine, form, count, Sampling(0.0, max_tokens=tokens))
            said[form] = [sample.token_ids for sample in samples]
            rate = sum(sample.num_tokens for sample in samples) / seconds
            print(f"round {number}, {form}: {rate:.1f} tokens/s, {seconds:.1f} s", file=sys.stderr, flush=True)
            if number:
                rates[form].append(rate)
        same = sum(one == two for one, two in zip(said[FORMS[1]], said[FORMS[2]], strict=True))
        assert same == count or engine.describe()["dtype"] != "float32", f"{count - same} replies differ"
    await engine.close()
    return {
        "tokens/s": {form: spread(rate) for form, rate in rates.items()},
        "joined / nobody": spread([a / b for a, b in zip(rates[FORMS[1]], rates[FORMS[0]], strict=True)]),
        "ratio": spread([a / b for a, b in zip(rates[FORMS[1]], rates[FORMS[2]], strict=True)]),
    }


def main(count: int, tokens: int, rounds: int, dtype: str) -> None:
    scratch = Path(tempfile.mkdtemp())
    try:
        folders = [make_adapter(scratch / name, seed) for seed, name in enumerate(NAMES)]
        rows = asyncio.run(measure(folders, count, tokens, rounds, dtype))
    finally:
        shutil.rmtree(scratch)
    save("adapters", {"rival": FORMS[2], "model": MODEL, "prompts": count, "tokens each": tokens, **rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    main(options.prompts, options.tokens, options.rounds, options.dtype)
