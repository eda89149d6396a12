import subprocess
import sys

import pytest
import torch

# In a process of its own: the engine that the other tests share has no room for adapters.
RUN = """
import asyncio, sys
from dataclasses import replace
import numpy as np
from coterie.agents.engines.config import TransformersConfig, VllmConfig
from coterie.agents.engines.transformers import TransformersEngine
from coterie.agents.engines.vllm import VllmEngine
from coterie.errors import EngineError
from coterie.types import Message, Place, Sampling, Weights

model, *folders = sys.argv[1:]
GREEDY = Sampling(0.0, max_tokens=6)
NAMES = ["ann", "", "b.o.b", "cleo", "ann", "", "cleo"]

async def ask(engine, names, folders=()):
    prompts = engine.encode([(Message("user", f"What is {i} + 3?"),) for i in range(len(names))], GREEDY)
    named = [replace(prompt, adapter=name) for prompt, name in zip(prompts, names)]
    samples = await engine.generate(named, GREEDY, [Place(f"t{i}", 0, "a") for i in range(len(names))])
    return [sample.token_ids for sample in samples], np.concatenate([sample.logprobs for sample in samples])

def check_equal(one, two):
    assert one[0] == two[0], (one, two)
    np.testing.assert_allclose(one[1], two[1], atol=2e-3)

async def main():
    ours = VllmEngine(VllmConfig(memory=0.5, dtype="float32", adapters=3, lora_rank=5), model, 3, exact=True)
    theirs = TransformersEngine(TransformersConfig(dtype="float32", device="cpu", adapters=3), model, 3, exact=True)
    for engine in (ours, theirs):
        await engine.start()
    without = await ask(ours, [""] * 7)
    check_equal(without, await ask(theirs, [""] * 7))
    for name, folder in zip(("ann", "b.o.b", "cleo"), folders):
        for engine in (ours, theirs):
            await engine.publish(Weights(folder, name, 1))
    mixed = await ask(ours, NAMES)
    check_equal(mixed, await ask(theirs, NAMES))
    check_equal(await ask(ours, [""] * 7), without)
    for name in set(NAMES):
        alone = (await ask(ours, [name] * 7))[0]
        assert [ids for ids, other in zip(mixed[0], NAMES) if other == name] == [
            ids for ids, other in zip(alone, NAMES) if other == name
        ]
    await ours.publish(Weights(folders[1], "ann", 2))
    replaced = await ask(ours, NAMES)
    assert replaced[0] != mixed[0] and replaced[0][0] == (await ask(ours, ["b.o.b"] * 7))[0][0]
    await ours.publish(Weights(model, "", 2))
    check_equal(await ask(ours, NAMES), replaced)
    for weights, what in [(Weights(folders[0], "dan"), "no room"), (Weights(folders[3], "ann"), "rank is 8")]:
        try:
            await ours.publish(weights)
        except EngineError as error:
            assert what in str(error), error
        else:
            raise AssertionError(what)
    check_equal(await ask(ours, NAMES), replaced)
    await ours.start()
    check_equal(await ask(ours, NAMES), replaced)
    assert ours.describe()["published"] == {"ann": 2, "b.o.b": 1, "cleo": 1, "": 2}
    for engine in (ours, theirs):
        await engine.close()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_adapters_of_vllm_speak_as_those_of_transformers(smollm: str, make_adapter) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folders = [make_adapter(seed, base=smollm, spread=0.05) for seed in range(3)] + [make_adapter(3, base=smollm, r=8)]
    command = [sys.executable, "-c", RUN, smollm, *map(str, folders)]
    run = subprocess.run(command, check=False, timeout=580, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]


def test_each_row_gets_what_its_own_adapter_makes_of_it() -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from coterie.agents.engines.vllm_adapters import JoinedAdapters, _read

    generator = torch.Generator().manual_seed(0)
    first = tuple(torch.randn(3, 1, 4, 8, generator=generator) for _ in range(2))
    second = tuple(torch.randn(3, 1, size, 4, generator=generator) for size in (6, 2))
    slots, x = torch.tensor([2, 2, -1, 0, 2, -1]), torch.randn(6, 8, generator=generator)
    wrapper = JoinedAdapters(16, 4, "cpu")
    wrapper._spoken, wrapper._factors = _read(slots, 3), {}
    y = torch.ones(6, 8)
    wrapper.add_lora_linear(y, x, first, second, 1.0, (6, 2))
    for row, slot in enumerate(slots.tolist()):
        parts = [b[slot, 0] @ (a[slot, 0] @ x[row]) for a, b in zip(first, second, strict=True)]
        wanted = 1.0 if slot < 0 else 1.0 + torch.cat(parts)
        assert torch.allclose(y[row], torch.ones(8) * wanted, atol=1e-5)
