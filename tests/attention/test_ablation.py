from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from coterie.attention.ablation import ablate, mean_outputs

HEADS = [(0, 1), (2, 3), (2, 0)]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(61, (2, 19), generator=torch.Generator().manual_seed(1))


@contextmanager
def changed_inputs(model: Any, change: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Meanwhile the output projection of each layer gets what `change` made of its input [B, T, H, D]."""

    def hook(layer: int) -> Callable[..., tuple[Tensor]]:
        def before(_: Any, arguments: tuple[Tensor]) -> tuple[Tensor]:
            heads = arguments[0].clone().unflatten(-1, (4, 8))
            change(layer, heads)
            return (heads.flatten(-2),)

        return before

    layers = enumerate(model.model.layers)
    hooks = [layer.self_attn.o_proj.register_forward_pre_hook(hook(index)) for index, layer in layers]
    yield
    for each in hooks:
        each.remove()


@torch.no_grad()
def run(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(ids).logits
    return logits


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.3])
def test_scaled_heads_are_those_whose_part_of_the_projection_is_scaled(model: Any, ids: Tensor, scale: float) -> None:
    def change(layer: int, heads: Tensor) -> None:
        for head in [h for of, h in HEADS if of == layer]:
            heads[:, :, head] *= scale

    with changed_inputs(model, change):
        expected = run(model, ids)
    with ablate(model, HEADS, scale=scale):
        found = run(model, ids)
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, run(model, ids))


def test_mean_ablation_puts_the_mean_over_reference_tokens_everywhere(model: Any, ids: Tensor) -> None:
    outputs: list[Tensor] = []
    with changed_inputs(model, lambda layer, heads: outputs.append(heads.clone())):
        run(model, ids)
    means = mean_outputs(model, ids.tolist())
    torch.testing.assert_close(means[0], outputs[0].mean((0, 1)))

    def change(layer: int, heads: Tensor) -> None:
        if layer == 1:
            heads[:, :, 2] = means[1][2]

    with changed_inputs(model, change):
        expected = run(model, ids)
    with ablate(model, [(1, 2)], means=means):
        torch.testing.assert_close(run(model, ids), expected)


def test_a_model_without_any_head_of_a_layer_does_not_attend_there(model: Any, ids: Tensor) -> None:
    everything = [(layer, head) for layer in range(3) for head in range(4)]
    shuffled = ids[:, [3, 0, 2, 1, *range(4, 19)]]
    with ablate(model, everything):
        torch.testing.assert_close(run(model, ids)[:, 4:], run(model, shuffled)[:, 4:])


def test_heads_stay_ablated_while_text_is_generated(model: Any, ids: Tensor) -> None:
    with ablate(model, HEADS):
        text = model.generate(ids[:1], max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert run(model, text)[0, -2].argmax() == text[0, -1]


def test_ablations_add_up(model: Any, ids: Tensor) -> None:
    with ablate(model, HEADS):
        expected = run(model, ids)
    with ablate(model, HEADS[:1]), ablate(model, HEADS[1:]):
        torch.testing.assert_close(run(model, ids), expected)


def test_a_model_is_whole_again_afterwards(model: Any, ids: Tensor) -> None:
    before = run(model, ids)
    with pytest.raises(RuntimeError, match="stop"), ablate(model, HEADS):
        raise RuntimeError("stop")
    assert torch.equal(run(model, ids), before)


def test_what_cannot_be_ablated_is_named(model: Any) -> None:
    with (
        pytest.raises(ValueError, match=r"heads holds \(3, 0\), expected layer < 3 and head < 4"),
        ablate(model, [(3, 0)]),
    ):
        pass
    with pytest.raises(ValueError, match="means lacks layer 2"), ablate(model, HEADS, means={0: torch.zeros(4, 8)}):
        pass
    with pytest.raises(ValueError, match="sequences is empty"):
        mean_outputs(model, [])
