"""A society's tokens per second against the raw vLLM engine on the very same prompts, in the same process.

Rival: one flat batch of every prompt that the society asked, added to the same `LLMEngine` at once and stepped in a
bare loop, with a cold prefix cache and the same limits. The society starts with a cold cache too. The bare loop runs in
the thread that built the engine, as the society's does: another thread has another OpenMP team, without vLLM's binding
to cores. Both are repeated in turn and compared pair by pair, since the machine's speed drifts; the first pair of each
size warms both up, as kernels are prepared for every new size of a batch, and is not counted. Where other work runs on
the same cores, the ratio by the process's CPU time says more than that by the clock.

Correct first: the society's journal verifies, every episode ended, and the flat batch answered every prompt.

With `--adapters` the society is that of CoMAS, where each of four agents has a LoRA adapter; so have the prompts of the
flat batch.

    python benchmarks/society_throughput.py [--adapters] [--tasks 48 8] [--pairs 3] [--tokens 32]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from _common import Stage, save, spread
from _weights import make_adapter

from coterie.orchestration.pool import Learning
from coterie.types import Weights

TARGETS = {False: 0.9, True: 0.85}
"""Least ratio, without and with adapters."""
RANK = 8
_LONGEST = 3600.0
"""Seconds for a flat batch."""
AGENTS = ("ann", "bob", "cleo", "dan")


def config(num_tasks: int, max_tokens: int, adapters: bool) -> dict[str, Any]:
    policy = {"engine": "vllm", "sampling": {"temperature": 1.0, "max_tokens": max_tokens}}
    society: dict[str, Any] = {
        "policies": {"default": policy}, "seats": "S3",
        "protocol": {"kind": "machinesom", "strategy": ["debate", "reflect", "debate"]},
    }  # fmt: skip
    if adapters:
        society = {
            "policies": {name: policy for name in AGENTS},
            "seats": [{"name": name, "policy": name} for name in AGENTS],
            "protocol": {"kind": "comas", "preset": "improved", "rounds": 1, "verdict": "free"},
        }  # fmt: skip
    return {
        "name": "throughput",
        **society,
        "baselines": [],
        "benchmark": {
            "kind": "reasoning_gym", "task": "chain_sum", "limit": num_tasks,
            "params": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        },
    }  # fmt: skip


Prompt = tuple[list[int], str]
"""Token ids, and whose adapter speaks."""


class Rates(NamedTuple):
    """Generated tokens per second of the clock, and per second of this process on a CPU."""

    by_clock: float
    by_cpu: float


class Bench(Stage):
    """A started society, and the same prompts as one flat batch.

    Args:
        adapters: Folders of the agents' adapters, if they have any.
    """

    def __init__(self, config: dict[str, Any], adapters: dict[str, Path]) -> None:
        super().__init__(config, Learning(RANK) if adapters else None)
        self.adapters = adapters

    async def start(self) -> None:
        from coterie.agents.engines.vllm import VllmEngine

        build, found = VllmEngine._build, []

        def keep(engine: VllmEngine) -> Any:
            found.append((engine, build(engine)))
            return found[0][1]

        VllmEngine._build = keep  # type: ignore[method-assign]
        await super().start()
        self.owner, self.engine = found[0]
        assert self.owner._loop is not None
        self.loop = self.owner._loop
        if self.adapters:
            weights = [(self.policies[n].engine, Weights(str(path), n)) for n, path in self.adapters.items()]
            await self.executor.publish(self.policies, weights)

    async def society(self, num_tasks: int, max_tokens: int, folder: Path) -> tuple[Rates, list[Prompt]]:
        """How fast it was, and the prompts that were asked."""
        self.engine.reset_prefix_cache()
        begun = time.process_time()
        seconds, turns = await self.work(config(num_tasks, max_tokens, bool(self.adapters)), folder)
        used, tokens = time.process_time() - begun, sum(t["num_tokens"] for t in turns)
        asked = [(t["prompt_ids"], t["policy"] if self.adapters else "") for t in turns]
        return Rates(tokens / seconds, tokens / used), asked

    async def flat(self, prompts: list[Prompt], max_tokens: int) -> Rates:
        """How fast one flat batch was."""
        found: list[Rates] = []
        await self.loop.run(lambda engine: found.append(self._step(engine, prompts, max_tokens)), _LONGEST)
        return found[0]

    def _step(self, engine: Any, prompts: list[Prompt], max_tokens: int) -> Rates:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=1.0, max_tokens=max_tokens, logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY
        )
        engine.reset_prefix_cache()
        start, begun = time.perf_counter(), time.process_time()
        for number, (ids, adapter) in enumerate(prompts):
            speaks = self.owner._publisher.request(adapter)
            key = f"flat-{time.monotonic_ns()}-{number}"
            engine.add_request(key, {"prompt_token_ids": ids}, params, lora_request=speaks)
        done, tokens = 0, 0
        while engine.has_unfinished_requests():
            for output in engine.step():
                done += output.finished
                tokens += len(output.outputs[0].token_ids) if output.finished else 0
        seconds, used = time.perf_counter() - start, time.process_time() - begun
        assert done == len(prompts)
        return Rates(tokens / seconds, tokens / used)


async def measure(sizes: list[int], pairs: int, max_tokens: int, adapters: dict[str, Path]) -> dict[str, Any]:
    bench = Bench(config(max(sizes), max_tokens, bool(adapters)), adapters)
    await bench.start()
    target = TARGETS[bool(adapters)]
    result: dict[str, Any] = {"rival": "raw vLLM LLMEngine, one flat batch of the same prompts", "target": target}
    names = [f"{size} tasks x {len(AGENTS) if adapters else 3} agents" for size in sizes]
    with tempfile.TemporaryDirectory() as scratch:
        for name, size in zip(names, sizes, strict=True):
            ours, theirs = list[Rates](), list[Rates]()
            for pair in range(pairs + 1):
                (folder := Path(scratch) / f"{size}-{pair}").mkdir()
                mine, prompts = await bench.society(size, max_tokens, folder)
                flat = await bench.flat(prompts, max_tokens)
                print(f"{size} tasks, pair {pair}: {mine}, flat {flat}", file=sys.stderr, flush=True)
                if pair:
                    ours.append(mine)
                    theirs.append(flat)
            pairs_of = list(zip(ours, theirs, strict=True))
            result[name] = {
                "prompts": len(prompts),
                "society tokens/s": spread([one.by_clock for one in ours]),
                "flat tokens/s": spread([one.by_clock for one in theirs]),
                "ratio": spread([one.by_clock / flat.by_clock for one, flat in pairs_of]),
                "ratio by CPU time": spread([one.by_cpu / flat.by_cpu for one, flat in pairs_of]),
            }  # fmt: skip
    await bench.executor.close()
    return result | {"reached": result[names[sizes.index(max(sizes))]]["ratio"]["median"] >= target}


def main(sizes: list[int], pairs: int, tokens: int, with_adapters: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        names = AGENTS if with_adapters else ()
        adapters = {name: make_adapter(Path(scratch) / name, seed, RANK) for seed, name in enumerate(names)}
        result = asyncio.run(measure(sizes, pairs, tokens, adapters))
    save("society_throughput_adapters" if with_adapters else "society_throughput", result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", action="store_true")
    parser.add_argument("--tasks", type=int, nargs="+", default=[48, 8])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    main(options.tasks, options.pairs, options.tokens, options.adapters)
