import platform

import pytest

from coterie import registry
from coterie.agents.engines import auto, vllm
from coterie.agents.engines.config import AutoConfig
from coterie.agents.engines.transformers import TransformersEngine


def test_auto_takes_vllm_where_it_is_installed_and_says_so() -> None:
    if not vllm.version() or platform.system() != "Linux":
        pytest.skip("vLLM is not installed here")
    engine = auto.build(AutoConfig(), "smollm2-135m", 0, exact=False)
    assert isinstance(engine, vllm.VllmEngine)
    assert "is installed" in engine.describe()["auto"]


def test_auto_takes_transformers_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    engine = auto.build(AutoConfig(), "smollm2-135m", 0, exact=False)
    assert isinstance(engine, TransformersEngine)
    assert engine.describe()["auto"] == "transformers, because vLLM does not run on Darwin"


def test_auto_hands_on_what_was_set_and_leaves_the_rest_to_the_engine() -> None:
    engine = auto.build(AutoConfig(context=512), "smollm2-135m", 0, exact=True)
    assert (engine.config.context, engine.max_batch) == (512, type(engine.config)().max_batch)


@pytest.mark.parametrize("name", ["vllm", "transformers", "auto", "openai", "scripted"])
def test_every_registered_engine_can_be_built_without_a_model(name: str) -> None:
    config = registry.load(registry.get("engine", name).config)()
    engine = registry.impl("engine", name)(config, "smollm2-135m", 0, True)
    assert engine.max_batch >= 1 and engine.describe()["engine"]
