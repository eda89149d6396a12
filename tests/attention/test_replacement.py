"""A language model whose attention is a mechanism of the literature."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from coterie.attention.mechanisms.base import Options
from coterie.attention.mechanisms.gate import Gated
from coterie.attention.mechanisms.groups import BatchGroup
from coterie.attention.mechanisms.head_maps import Dynamic
from coterie.attention.mechanisms.head_windows import HiLo, LongShort
from coterie.attention.mechanisms.isolation import Composite
from coterie.attention.mechanisms.pooling import GeneralisedMean
from coterie.attention.mechanisms.scores import Collapsed
from coterie.attention.mechanisms.windows import GeneralizedNeighborhood
from coterie.attention.replacement import replace_attention

IDS = torch.arange(2, 34).view(2, 16)


def make_model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("plain", [Dynamic(), LongShort(window=99)])
def test_a_mechanism_that_is_softmax_attention_changes_nothing(plain: Options) -> None:
    model = make_model()
    before = logits(model)
    replace_attention(model, plain)
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-6)


def test_a_gate_reads_the_layer_s_own_hidden_states() -> None:
    model = make_model()
    replace_attention(model, Gated())
    layer, heard = model.model.layers[1].self_attn, []
    layer.mechanism.gate.register_forward_pre_hook(lambda module, given: heard.append(given[0]))
    layer.q_proj.register_forward_pre_hook(lambda module, given: heard.append(given[0]))
    logits(model)
    assert torch.equal(heard[0], heard[1])


def test_no_hidden_states_are_kept_when_a_pass_is_over() -> None:
    model, states = make_model(), []
    replace_attention(model, Gated())
    for layer in model.model.layers:
        layer.self_attn.q_proj.register_forward_pre_hook(lambda module, given: states.append(weakref.ref(given[0])))
    logits(model)
    assert [state() for state in states] == [None, None]


@pytest.mark.parametrize("mechanism", [Gated(), Collapsed(), LongShort(window=3), GeneralizedNeighborhood((5,))])
def test_no_token_sees_what_follows_and_everything_that_is_read_learns(mechanism: Options) -> None:
    model = make_model()
    replace_attention(model, mechanism, seed=3)
    changed = IDS.clone()
    changed[:, 10:] = 1
    torch.testing.assert_close(logits(model, changed)[:, :10], logits(model)[:, :10])
    logits(model).logsumexp(-1).sum().backward()
    own = [p for name, p in model.named_parameters() if "mechanism" in name]
    assert all(p.grad is not None and p.grad.any() for p in own)


def test_the_seed_decides_the_weights_and_nobody_else_s_draws_change() -> None:
    one, two, other = make_model(), make_model(), make_model()
    state = torch.random.get_rng_state()
    for model, seed in ((one, 1), (two, 1), (other, 2)):
        replace_attention(model, Gated(), seed)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(logits(one), logits(two)) and not torch.equal(logits(one), logits(other))


@pytest.mark.parametrize(
    ("mechanism", "why"),
    [
        (HiLo(), "hilo has no causal form"), (GeneralizedNeighborhood(), "needs a grid"),
        (GeneralisedMean(), "it pools or weighs features"), (BatchGroup(), "depends on the other sequences"),
        (Composite(), "needs roles"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_the_model_stays_as_it_was(mechanism: Options, why: str) -> None:
    model = make_model()
    before = logits(model)
    with pytest.raises(ValueError, match=f"{mechanism.about.name} does not fit a language model: .*{why}"):
        replace_attention(model, mechanism)
    assert torch.equal(logits(model), before)


def test_a_model_that_projects_queries_and_keys_at_once_is_refused_and_stays_as_it_was() -> None:
    config = Phi3Config(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0
    )
    model = Phi3ForCausalLM(config).eval()
    before = logits(model)
    with pytest.raises(ValueError, match="Phi3ForCausalLM has no attention layer"):
        replace_attention(model, Gated())
    assert torch.equal(logits(model), before)


def test_a_state_dict_goes_into_a_model_whose_attention_was_replaced_alike() -> None:
    one, two = make_model(), make_model()
    replace_attention(one, Gated(), seed=1)
    replace_attention(two, Gated(), seed=2)
    assert not torch.equal(logits(one), logits(two))
    two.load_state_dict(one.state_dict())
    assert torch.equal(logits(one), logits(two))


def test_a_cache_or_a_mask_is_refused() -> None:
    model = make_model()
    replace_attention(model, Gated())
    with pytest.raises(ValueError, match="whole sequences"):
        model.generate(IDS[:, :4], max_new_tokens=2, do_sample=False, pad_token_id=0)
    mask = torch.ones_like(IDS)
    mask[0, :3] = 0
    with pytest.raises(ValueError, match="without attention_mask"):
        model(input_ids=IDS, attention_mask=mask, use_cache=False)
