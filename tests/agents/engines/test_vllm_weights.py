"""What is looked at of published weights, where tensor-parallel ranks hold parts of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from coterie.agents.engines.weights import Adapter, Checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def looks() -> Any:
    pytest.importorskip("vllm")
    from coterie.agents.engines import vllm_weights

    return vllm_weights


def worker_of(folder: Path, split: str) -> Any:
    """A worker with what a folder holds; of modules whose name has `split` in it two ranks hold a part each."""
    found, modules = Checkpoint(str(folder)), dict[str, Any]()
    for name in found.shapes:
        path = name.removesuffix(".weight")
        modules[path] = SimpleNamespace(weight=found.read(name), tp_size=2 if split in path else 1)
    config = SimpleNamespace(tie_word_embeddings=False)
    model = SimpleNamespace(config=config, packed_modules_mapping={}, named_modules=lambda **_: modules.items())
    return SimpleNamespace(model_runner=SimpleNamespace(get_model=lambda: model, dtype=torch.float32))


def test_what_every_rank_holds_a_part_of_is_found_and_not_looked_at(looks, tiny_folder, make_weights) -> None:
    names, other = sorted(Checkpoint(str(tiny_folder)).shapes), str(make_weights(5))
    assert looks.find_wrong(worker_of(tiny_folder, split=""), other, names, 1) == (len(names), "")
    assert looks.find_wrong(worker_of(tiny_folder, split="none"), str(tiny_folder), names, 1) == (len(names), "")
    wrong = looks.find_wrong(worker_of(tiny_folder, split="proj"), other, names, 1)
    assert wrong == (0, "model.embed_tokens.weight")


def test_what_the_engine_has_not_is_not_found(looks, tiny_folder) -> None:
    worker = worker_of(tiny_folder, split="")
    assert looks.find_wrong(worker, str(tiny_folder), ["model.layers.9.mlp.up_proj.weight"], 1) == (0, "")


def test_an_adapter_of_split_layers_is_found_too(looks, make_adapter) -> None:
    folder = str(make_adapter(1))
    names = sorted(Adapter(folder, 8).shapes)
    modules = {Adapter.layer_of(name)[0]: SimpleNamespace(tp_size=2) for name in names[:4]}
    manager = SimpleNamespace(modules=modules, packed_modules_mapping={}, lora_index_to_id=[7])
    worker = SimpleNamespace(model_runner=SimpleNamespace(lora_manager=SimpleNamespace(_adapter_manager=manager)))
    assert looks.find_wrong_in_adapter(worker, folder, 8, names, 7) == (4, "")
