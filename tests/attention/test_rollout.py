from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from coterie.attention import rollout as module
from coterie.attention.rollout import rollout

SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "window": (MistralForCausalLM, MistralConfig, {"sliding_window": 5}),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    kind, config, options = MODELS[request.param]
    model = kind(config(**SIZES, num_key_value_heads=2, num_hidden_layers=3, **options)).eval()
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data *= 30
    return model


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(61, (2, 19), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def dense(model: Any, ids: Tensor, residual: float) -> Tensor:
    """The rollout as a product of maps, [B, T, T]."""
    model.set_attn_implementation("eager")
    maps = model(ids, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    product = torch.eye(ids.shape[1]).expand(len(ids), -1, -1)
    for a in maps:
        product = ((1 - residual) * a.mean(1) + residual * torch.eye(ids.shape[1])) @ product
    return product


@pytest.mark.parametrize(("position", "residual"), [(-1, 0.5), (7, 0.5), (0, 0.5), (-1, 0.0), (-1, 1.0)])
def test_a_rollout_is_a_row_of_the_product_of_maps(model: Any, ids: Tensor, position: int, residual: float) -> None:
    found = rollout(model, ids, position=position, residual=residual)
    torch.testing.assert_close(found, dense(model, ids, residual)[:, position], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(2))


def test_a_position_that_is_not_there_is_named(model: Any, ids: Tensor) -> None:
    with pytest.raises(ValueError, match="position is 19, expected one of the 19 tokens"):
        rollout(model, ids, position=19)


def test_queries_and_keys_alone_are_kept_until_the_pass_ends(
    model: Any, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr(module, "columns", lambda layer, row: kept.append(layer.output.numel()) or row)
    rollout(model, ids)
    assert kept == [0, 0, 0]


def test_blocks_of_rows_change_nothing(model: Any, ids: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rollout(model, ids)
    monkeypatch.setattr(module, "_CHUNK_NUMBERS", 2 * 4 * 19 * 3)
    torch.testing.assert_close(rollout(model, ids), whole)
