import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coterie.agents.engines import models, weights
from coterie.agents.engines.weights import Adapter, Checkpoint
from coterie.errors import EngineError
from coterie.types import EncodedPrompt

NAMES = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(40)] + ["model.embed_tokens.weight", "lm_head.weight"]


def test_the_same_tensors_are_looked_at_for_the_same_version_and_others_for_another() -> None:
    assert weights.choose(NAMES, 1) == weights.choose(reversed(NAMES), 1) != weights.choose(NAMES, 2)
    assert 12 <= len(weights.choose(NAMES, 1)) <= 14


def test_in_time_every_tensor_is_looked_at_and_the_ends_always() -> None:
    looks = [set(weights.choose(NAMES, version)) for version in range(60)]
    assert set.union(*looks) == {*NAMES}
    assert all({"model.embed_tokens.weight", "lm_head.weight"} <= look for look in looks)


def test_a_folder_may_hold_the_head_of_a_model_that_ties_it(tiny_folder: Path, tmp_path: Path) -> None:
    held = Checkpoint(str(tiny_folder)).shapes
    tensors = load_file(tiny_folder / "model.safetensors")
    save_file(
        {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, tmp_path / "model.safetensors"
    )
    shutil.copy(tiny_folder / "config.json", tmp_path)
    Checkpoint(str(tmp_path)).check_fit(held)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(EngineError, match="lm_head.weight is .* there and missing in the engine"):
        Checkpoint(str(tmp_path)).check_fit(held)


def test_weights_in_several_files_are_one_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for number in range(2):
        path = tmp_path / f"model-0000{number + 1}-of-00002.safetensors"
        save_file({f"layer{number}": torch.full((2, 3), float(number))}, path)
    found = Checkpoint(str(tmp_path))
    assert found.shapes == {"layer0": (2, 3), "layer1": (2, 3)}
    assert found.read("layer1").tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("damage", ["config", "tensors", "none"])
def test_what_cannot_be_read_is_one_error(tiny_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "damaged")
    if damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "tensors":
        (folder / "model.safetensors").write_bytes(b"no tensors")
    else:
        (folder / "model.safetensors").unlink()
    with pytest.raises(EngineError, match="the weights cannot be read"):
        Checkpoint(str(folder))


def test_an_adapter_says_what_scales_it(make_adapter) -> None:
    assert Adapter(str(make_adapter(1)), 8).scaling == 3.0
    assert Adapter(str(make_adapter(1, use_rslora=True)), 8).scaling == 6.0
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert Adapter.layer_of(name) == ("model.layers.0.self_attn.q_proj", "lora_A")


def test_an_adapter_of_half_a_layer_is_refused(make_adapter, tmp_path: Path) -> None:
    folder = shutil.copytree(make_adapter(1), tmp_path / "half")
    tensors = load_file(folder / "adapter_model.safetensors")
    del tensors[max(tensors)]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(EngineError, match="of model.layers.1.self_attn.v_proj lora_B is missing"):
        Adapter(str(folder), 8)


def test_engines_without_adapters_refuse_prompts_that_name_one() -> None:
    weights.refuse_adapters([EncodedPrompt((1,), 1)])
    with pytest.raises(EngineError, match="no adapter 'ann'"):
        weights.refuse_adapters([EncodedPrompt((1,), 1), EncodedPrompt((1,), 1, adapter="ann")])


def test_the_files_of_a_folder_are_found_and_of_an_unknown_hub_id_none(tiny_folder: Path, tmp_path: Path) -> None:
    assert models.files_of(str(tiny_folder)) == tiny_folder
    assert models.files_of(str(tmp_path)) is models.files_of("no-org/no-model") is models.files_of("a/b/c") is None
