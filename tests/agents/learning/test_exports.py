import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coterie.agents.learning import exports
from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_settings import LLMSettings, LoraSettings

FULL = LLMSettings(learning_rate=1e-2, updates=1)
LORA = replace(FULL, lora=LoraSettings(rank=4, alpha=8))


@pytest.fixture
def trained(tiny, turns):
    def train(settings):
        learner = LanguageLearner(tiny, ("solver",), settings, "cpu", 3)
        learner.update("solver", turns(8), iteration=0)
        return learner

    return train


def logits(model):
    with torch.no_grad():
        return model(torch.arange(8)[None]).logits.numpy()


def test_transformers_loads_an_exported_model(trained, tmp_path):
    from transformers import AutoModelForCausalLM

    learner = trained(FULL)
    learner.export("solver", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    np.testing.assert_array_equal(logits(model), logits(learner._base.teacher.model))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}


def test_peft_loads_an_exported_adapter(trained, tiny, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    learner = trained(LORA)
    learner.export("solver", tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    before = logits(plain)
    model = PeftModel.from_pretrained(plain, tmp_path / "out")
    np.testing.assert_array_equal(logits(model), logits(learner._base.teacher.model))
    assert not np.allclose(before, logits(model), atol=1e-3)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny and config["r"] == 4
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_equal_adapters_are_equal_files(trained, tmp_path):
    for name in ("one", "other"):
        trained(LORA).export("solver", tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_an_exported_model_keeps_tokenizer_and_precision_of_its_source(tiny, tmp_path):
    import shutil

    source = tmp_path / "source"
    shutil.copytree(tiny, source)
    (source / "tokenizer.json").write_text("{}")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    LanguageLearner(str(source), ("solver",), FULL, "cpu", 0).export("solver", tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_export_that_fails_leaves_the_folder_as_it_was(tmp_path):
    folder = tmp_path / "out"
    with exports.replaced(folder) as place:
        (place / "file").write_text("old")
    with pytest.raises(RuntimeError), exports.replaced(folder) as place:
        (place / "file").write_text("new")
        raise RuntimeError
    assert (folder / "file").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["out"]
    with exports.replaced(folder) as place:
        (place / "file").write_text("new")
    assert (folder / "file").read_text() == "new" and [p.name for p in Path(tmp_path).iterdir()] == ["out"]
