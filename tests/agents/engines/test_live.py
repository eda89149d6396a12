import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from coterie.agents.engines.config import TransformersConfig
from coterie.agents.engines.transformers import TransformersEngine
from coterie.errors import EngineError
from coterie.types import Message, Place, Sample, Sampling, Weights

SAMPLING = Sampling(temperature=1.0, max_tokens=12)
CONFIG = TransformersConfig(dtype="float32", device="cpu", context=128, adapters=3, lora_rank=8)


@pytest.fixture
def engine(tiny_folder: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(CONFIG, str(tiny_folder), 5, exact=True)
    asyncio.run(engine.start())
    yield engine
    asyncio.run(engine.close())


def publish(engine: TransformersEngine, folder: Path, adapter: str = "", version: int = 1) -> None:
    asyncio.run(engine.publish(Weights(str(folder), adapter, version)))


def ask(engine: TransformersEngine, *adapters: str) -> list[Sample]:
    """One question for each adapter, always at the same place for the same position in the call."""
    prompts = engine.encode([(Message("user", f"what is {i} + 1?" * (i + 1)),) for i in range(len(adapters))], SAMPLING)
    named = [replace(prompt, adapter=adapter) for prompt, adapter in zip(prompts, adapters, strict=True)]
    return asyncio.run(engine.generate(named, SAMPLING, [Place(f"t{i}", 0, "a") for i in range(len(adapters))]))


def fresh(folder: Path) -> list[Sample]:
    engine = TransformersEngine(CONFIG, str(folder), 5, exact=True)
    asyncio.run(engine.start())
    try:
        return ask(engine, "", "")
    finally:
        asyncio.run(engine.close())


def check_equal(ours: list[Sample], theirs: list[Sample]) -> None:
    assert [sample.token_ids for sample in ours] == [sample.token_ids for sample in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_published_weights_speak_as_a_fresh_engine_with_them(tmp_path: Path, make_weights, tied: bool) -> None:
    first, second = (make_weights(seed, tie_word_embeddings=tied) for seed in (1, 2))
    engine = TransformersEngine(CONFIG, str(first), 5, exact=True)
    asyncio.run(engine.start())
    before = ask(engine, "", "")
    publish(engine, second)
    after = ask(engine, "", "")
    assert before == fresh(first) and after == fresh(second) and before != after
    asyncio.run(engine.close())


def test_adapters_in_one_batch_speak_as_each_alone(engine: TransformersEngine, make_adapter) -> None:
    for number, name in enumerate(["ann", "b.o.b", "cleo"]):
        publish(engine, make_adapter(number), name)
    mixed = ask(engine, "cleo", "", "ann", "b.o.b", "ann")
    for position, name in enumerate(["cleo", "", "ann", "b.o.b", "ann"]):
        alone = ask(engine, *([name] * (position + 1)))
        check_equal([mixed[position]], [alone[position]])
    others = [ask(engine, *([name] * 2))[1].logprobs for name in ("", "ann", "b.o.b", "cleo")]
    assert len(set(others)) == 4


def test_an_adapter_speaks_as_the_model_it_is_merged_into(
    engine: TransformersEngine, tiny_folder: Path, make_adapter, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = make_adapter(7, use_rslora=True)
    publish(engine, folder, "ann")
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), str(folder))
    tuned.merge_and_unload().save_pretrained(tmp_path)
    for file in tiny_folder.glob("token*"):
        shutil.copy(file, tmp_path)
    check_equal(ask(engine, "ann", "ann"), fresh(tmp_path))


def test_without_an_adapter_the_model_speaks_as_if_there_were_none(
    engine: TransformersEngine, tiny_folder: Path, make_adapter
) -> None:
    publish(engine, make_adapter(1), "ann")
    ask(engine, "ann")
    check_equal(ask(engine, "", ""), fresh(tiny_folder))


def test_full_weights_go_under_adapters_that_stay(engine: TransformersEngine, make_adapter, make_weights) -> None:
    adapter, other = make_adapter(1), make_weights(9)
    publish(engine, adapter, "ann")
    before = ask(engine, "ann", "ann")
    publish(engine, other)
    check_equal(ask(engine, "", ""), fresh(other))
    assert ask(engine, "ann", "ann") not in (before, ask(engine, "", ""))


@pytest.mark.parametrize("changes", [{}, {"r": 2}, {"target_modules": ["k_proj"]}, {"lora_alpha": 3}], ids=str)
def test_an_adapter_of_a_known_name_replaces_it(engine: TransformersEngine, make_adapter, changes: dict) -> None:
    second = make_adapter(2, **changes)
    publish(engine, make_adapter(1), "ann")
    before = ask(engine, "ann", "ann")
    publish(engine, second, "ann", version=2)
    after = ask(engine, "ann", "ann")
    publish(engine, second, "bob")
    assert after == ask(engine, "bob", "bob") != before


def test_after_a_restart_the_latest_of_each_is_there(engine: TransformersEngine, make_adapter, make_weights) -> None:
    for version in (1, 2):
        publish(engine, make_adapter(version), "ann", version)
        publish(engine, make_weights(version), "", version)
    before = ask(engine, "", "ann")
    asyncio.run(engine.close())
    asyncio.run(engine.start())
    assert ask(engine, "", "ann") == before
    assert engine.describe()["published"] == {"ann": 2, "": 2}


def test_an_engine_does_not_start_without_what_was_published(
    engine: TransformersEngine, make_weights, tmp_path: Path
) -> None:
    folder = shutil.copytree(make_weights(1), tmp_path / "gone")
    publish(engine, folder)
    shutil.rmtree(folder)
    with pytest.raises(EngineError, match="cannot be read"):
        asyncio.run(engine.start())
    with pytest.raises(EngineError, match="not running"):
        ask(engine, "")


def test_a_prompt_of_an_unknown_adapter_is_refused(engine: TransformersEngine, make_adapter) -> None:
    publish(engine, make_adapter(1), "ann")
    with pytest.raises(EngineError, match="no adapter 'bob'") as caught:
        ask(engine, "ann", "bob")
    assert "adapters: ann" in str(caught.value)


def test_one_adapter_too_many_is_refused(engine: TransformersEngine, make_adapter) -> None:
    folder = make_adapter(1)
    for name in "abc":
        publish(engine, folder, name)
    with pytest.raises(EngineError, match="no room for the adapter 'd': the engine was started for 3"):
        publish(engine, folder, "d")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 16}, "its rank is 16, and the engine was started for at most 8"),
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
    ids=str,
)
def test_an_adapter_of_another_kind_is_refused(
    engine: TransformersEngine, make_adapter, changes: dict, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        publish(engine, make_adapter(1, **changes), "ann")


def test_weights_of_another_model_are_refused_and_change_nothing(
    engine: TransformersEngine, make_weights, make_adapter
) -> None:
    before, wide = ask(engine, "", ""), make_weights(4, hidden_size=64)
    for folder, message in [
        (wide, r"is \d+x64 there and \d+x32 in the engine"),
        (make_weights(4, num_hidden_layers=1), "model.layers.1.* is missing there"),
        (wide.parent / "nowhere", "cannot be read"),
    ]:
        with pytest.raises(EngineError, match=message):
            publish(engine, folder)
    with pytest.raises(EngineError, match="do not fit the model"):
        publish(engine, make_adapter(1, base=wide), "ann")
    with pytest.raises(EngineError, match="no adapter 'ann'"):
        ask(engine, "ann")
    check_equal(ask(engine, "", ""), before)


def damage(monkeypatch: pytest.MonkeyPatch, engine: TransformersEngine, part: str) -> None:
    """Let the engine hold something else than what is copied into tensors whose name contains this."""
    from coterie.agents.engines.weights import Checkpoint

    read, asked = Checkpoint.read, set()

    def read_wrong(self: Checkpoint, name: str) -> torch.Tensor:
        tensor = read(self, name)
        if part in name and name not in asked:
            asked.add(name)
            tensor = tensor.clone()
            tensor.view(-1)[-1] += 1
        return tensor

    monkeypatch.setattr(Checkpoint, "read", read_wrong)


def test_an_engine_that_holds_something_else_says_so_and_is_silent_until_it_is_restarted(
    engine: TransformersEngine, make_weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_weights(1)
    publish(engine, first)
    with monkeypatch.context() as patch:
        damage(patch, engine, "embed_tokens")
        with pytest.raises(EngineError, match="model.embed_tokens.weight differs"):
            publish(engine, make_weights(2), version=2)
    with pytest.raises(EngineError, match="are broken: the publication of .* failed"):
        ask(engine, "")
    asyncio.run(engine.close())
    asyncio.run(engine.start())
    assert ask(engine, "", "") == fresh(first)


def test_an_adapter_that_arrives_otherwise_is_named_and_unknown_from_then_on(
    engine: TransformersEngine, make_adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        damage(patch, engine, "lora_")
        with pytest.raises(EngineError, match=r"lora_[AB].weight differs"):
            publish(engine, make_adapter(2), "ann")
    with pytest.raises(EngineError, match="no adapter 'ann'"):
        ask(engine, "ann")


def test_weights_are_cast_to_the_dtype_of_the_engine(tiny_folder: Path, make_weights, tmp_path: Path) -> None:
    folder = make_weights(3)
    tensors = {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}
    shutil.copy(folder / "config.json", tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    engine = TransformersEngine(CONFIG.model_copy(update={"dtype": "bfloat16"}), str(tiny_folder), 5, exact=True)
    asyncio.run(engine.start())
    publish(engine, tmp_path)
    wide = ask(engine, "", "")
    publish(engine, folder)
    assert ask(engine, "", "") == wide
    asyncio.run(engine.close())


def test_a_publication_waits_for_the_calls_before_it(
    engine: TransformersEngine, tiny_folder: Path, make_weights
) -> None:
    folder, before = make_weights(6), fresh(tiny_folder)[:1]

    async def overlap() -> list[Sample]:
        prompts = engine.encode([(Message("user", "what is 0 + 1?"),)], SAMPLING)
        call = asyncio.ensure_future(engine.generate(prompts, SAMPLING, [Place("t0", 0, "a")]))
        await asyncio.sleep(0)
        await engine.publish(Weights(str(folder), "", 1))
        return await call

    check_equal(asyncio.run(overlap()), before)
    check_equal(ask(engine, "", ""), fresh(folder))
