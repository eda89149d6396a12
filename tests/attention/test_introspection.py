from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from coterie.attention.interception import NAME, Attended, full_layers, listen
from coterie.attention.introspection import collect, middle_layers
from coterie.attention.statistics_request import StatisticsRequest
from coterie.attention.stats import AttentionStatistics

ALL = StatisticsRequest(span=True, entropy=True, sink=1, waad=4, received=True, fai=(2, 9))
SIZES = {"vocab_size": 61, "hidden_size": 64, "intermediate_size": 48, "num_attention_heads": 8}


def make_model(layers: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, num_hidden_layers=layers, **options)).eval()
    # Untrained weights attend to everything alike; these do not.
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data *= 30
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(61, (2, 37), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def eager_maps(model: Any, ids: Tensor, **inputs: Tensor) -> tuple[Tensor, ...]:
    """The maps [B, H, T, T] of each layer, by the library's own eager attention."""
    model.set_attn_implementation("eager")
    try:
        maps: tuple[Tensor, ...] = model(ids, output_attentions=True, use_cache=False, **inputs).attentions
        return maps
    finally:
        model.set_attn_implementation("sdpa")


def by_definition(a: Tensor) -> dict[str, Tensor]:
    """The statistics of `ALL` from a map [.., T, T] of one sequence."""
    length = a.shape[-1]
    at = torch.arange(length)
    behind = at[:, None] - at
    in_horizon = (behind >= 2) & (behind <= 9)
    return {
        "span": (a * behind).sum(-1),
        "entropy": torch.special.entr(a).sum(-1),
        "sink": a[..., 0],
        "waad": (a * behind.clamp(max=4)).sum(-1),
        "received": a.sum(-2) / (length - at),
        "fai": (a * in_horizon).sum(-2) / in_horizon.sum(0).clamp(min=1),
    }


def check(found: AttentionStatistics, a: Tensor, rows: slice = slice(None)) -> None:
    for name, expected in by_definition(a).items():
        torch.testing.assert_close(getattr(found, name)[..., rows], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_collected_statistics_are_those_of_the_eager_maps(model: Any, ids: Tensor) -> None:
    with torch.no_grad(), collect(model, ALL, [0, 1, 2]) as found:
        model(ids)
    for layer, a in enumerate(eager_maps(model, ids)):
        check(found[layer], a)


def test_collected_statistics_of_the_built_in_model_are_those_of_its_eager_maps(smol_model: Any) -> None:
    ids = torch.randint(1000, 9000, (1, 96), generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), collect(smol_model, ALL) as found:
        smol_model(ids)
    maps = eager_maps(smol_model, ids)
    assert sorted(found) == [10, 12, 15, 18, 20]
    for layer, statistics in found.items():
        check(statistics, maps[layer])


def test_collecting_changes_no_logit(model: Any, ids: Tensor) -> None:
    with torch.no_grad():
        before = model(ids).logits
        with collect(model, ALL):
            during = model(ids).logits
    assert torch.equal(before, during)


def test_padding_on_the_left_is_left_out(model: Any, ids: Tensor) -> None:
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    with torch.no_grad(), collect(model, ALL, [1]) as found:
        model(ids, attention_mask=mask)
    with torch.no_grad(), collect(model, ALL, [1]) as alone:
        model(ids[:1, 5:])
    for name in by_definition(torch.eye(2)):
        padded, plain = getattr(found[1], name)[0], getattr(alone[1], name)[0]
        torch.testing.assert_close(padded[..., 5:], plain, rtol=1e-4, atol=1e-5, msg=name)
        assert not padded[..., :5].any(), name


def test_padding_on_the_right_is_left_out(model: Any, ids: Tensor) -> None:
    mask = torch.ones_like(ids)
    mask[1, 30:] = 0
    with torch.no_grad(), collect(model, ALL, [1]) as found:
        model(ids, attention_mask=mask)
    a = eager_maps(model, ids[1:, :30])[1]
    for name, expected in by_definition(a).items():
        torch.testing.assert_close(getattr(found[1], name)[1:, :, :30], expected, rtol=1e-4, atol=1e-5, msg=name)
        assert not getattr(found[1], name)[1, :, 30:].any(), name


def test_packed_sequences_are_seen_one_by_one(model: Any, ids: Tensor) -> None:
    places = torch.cat([torch.arange(17), torch.arange(20)]).expand(2, -1)
    with torch.no_grad(), collect(model, ALL, [2]) as found:
        model(ids, position_ids=places, use_cache=False)
    for rows in (slice(0, 17), slice(17, 37)):
        check(found[2], eager_maps(model, ids[:, rows])[2], rows)


def test_chosen_heads_are_those_of_all_heads(model: Any, ids: Tensor) -> None:
    with torch.no_grad(), collect(model, ALL, [0, 1]) as everything:
        model(ids)
    with torch.no_grad(), collect(model, ALL, {1: [6, 0]}) as found:
        model(ids)
    assert list(found) == [1]
    for name in by_definition(torch.eye(2)):
        torch.testing.assert_close(getattr(found[1], name), getattr(everything[1], name)[:, [0, 6]], msg=name)


def test_only_the_wanted_queries_count(model: Any, ids: Tensor) -> None:
    is_reply = torch.zeros_like(ids, dtype=torch.bool)
    is_reply[:, 20:] = True
    with torch.no_grad(), collect(model, ALL, [1], queries=is_reply) as found:
        model(ids)
    assert not found[1].span[:, :, :20].any()
    a = eager_maps(model, ids)[1]
    torch.testing.assert_close(found[1].span[:, :, 20:], by_definition(a)["span"][:, :, 20:], rtol=1e-4, atol=1e-5)


def test_training_goes_on_through_a_collected_pass(ids: Tensor) -> None:
    gradients = []
    for which in (None, ALL):
        model = make_model()
        if which is None:
            model(ids, labels=ids).loss.backward()
        else:
            with collect(model, which):
                model(ids, labels=ids).loss.backward()
        gradients.append(model.model.layers[1].self_attn.k_proj.weight.grad)
    torch.testing.assert_close(*gradients)


def test_a_model_is_left_as_it_was(model: Any, ids: Tensor) -> None:
    config, hooks = model.config.to_dict(), [len(m._forward_hooks) for m in model.modules()]
    with collect(model, ALL):
        assert model.config._attn_implementation == NAME
        with collect(model, StatisticsRequest(span=True)) as inner, torch.no_grad():
            model(ids)
        assert model.config._attn_implementation == NAME and inner
    assert model.config._attn_implementation == "sdpa"
    assert model.config.to_dict() == config
    assert [len(m._forward_hooks) for m in model.modules()] == hooks


def test_a_model_is_left_as_it_was_after_an_exception(model: Any, ids: Tensor) -> None:
    with pytest.raises(RuntimeError, match="stop"), collect(model, ALL) as found:
        raise RuntimeError("stop")
    with torch.no_grad():
        model(ids)
    assert model.config._attn_implementation == "sdpa" and not found


def test_listeners_may_leave_in_any_order(model: Any, ids: Tensor) -> None:
    first, second = collect(model, ALL), collect(model, ALL)
    first.__enter__()
    found = second.__enter__()
    first.__exit__(None, None, None)
    with torch.no_grad():
        model(ids)
    second.__exit__(None, None, None)
    assert found and model.config._attn_implementation == "sdpa"


def test_an_eager_model_is_eager_again(ids: Tensor) -> None:
    model = make_model(attn_implementation="eager")
    with torch.no_grad(), collect(model, ALL) as found:
        model(ids)
    assert found and model.config._attn_implementation == "eager"


def test_another_model_hears_nothing(model: Any, ids: Tensor) -> None:
    other = make_model()
    with torch.no_grad(), collect(model, ALL) as found:
        other(ids)
    assert not found


def test_models_that_share_a_config_are_told_apart(model: Any, ids: Tensor) -> None:
    other = LlamaForCausalLM(model.config).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = other(ids).logits
        with collect(model, ALL) as found:
            assert torch.equal(other(ids).logits, expected)
    assert not found


def test_a_layer_that_sees_a_window_is_refused_where_it_matters(ids: Tensor) -> None:
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, num_key_value_heads=2, num_hidden_layers=2, sliding_window=20)
    model = MistralForCausalLM(config).eval()
    with torch.no_grad(), collect(model, ALL, [0]) as found:
        model(ids[:, :20])
    assert found
    with torch.no_grad(), pytest.raises(ValueError, match="layer 0 sees 20 tokens"), collect(model, ALL, [0]):
        model(ids)


def test_a_filled_cache_is_refused(model: Any, ids: Tensor) -> None:
    with torch.no_grad(), pytest.raises(ValueError, match="empty cache"), collect(model, ALL):
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, pad_token_id=0)


def test_a_mask_of_another_kind_is_refused(model: Any, ids: Tensor) -> None:
    mask = torch.ones(2, 1, 37, 37, dtype=torch.bool).tril()
    mask[0, 0, 30, 3] = False
    with torch.no_grad(), pytest.raises(ValueError, match="attention_mask"), collect(model, ALL):
        model(ids, attention_mask=mask)


def wrong_layer(model: Any) -> None:
    with collect(model, ALL, [3]):
        pass


def wrong_head(model: Any) -> None:
    with collect(model, ALL, {1: [8]}):
        pass


def no_statistic(model: Any) -> None:
    with collect(model, StatisticsRequest(), [1]):
        pass


def no_layer(model: Any) -> None:
    with collect(model, ALL, []):
        pass


def no_head(model: Any) -> None:
    with collect(model, ALL, {0: [1], 1: []}):
        pass


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (wrong_layer, "layers holds 3"),
        (wrong_head, r"heads holds \(1, 8\)"),
        (no_statistic, "asks for no statistic"),
        (no_layer, "layers is empty"),
        (no_head, "layers holds no head of layer 1"),
    ],
)
def test_what_is_not_there_is_named(model: Any, call: Callable[[Any], None], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(model)
    assert model.config._attn_implementation == "sdpa"


def test_another_implementation_is_not_replaced_in_silence() -> None:
    model = make_model()
    model.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match="flex_attention"), listen(model, lambda _: None):
        pass


def test_a_listener_hears_queries_keys_and_outputs(model: Any, ids: Tensor) -> None:
    heard: list[Attended] = []
    with torch.no_grad(), listen(model, heard.append, [1], with_lse=True):
        model(ids)
    [attended] = heard
    assert attended.query.shape == (2, 8, 37, 8) and attended.key.shape == (2, 2, 37, 8)
    assert attended.output.shape == (2, 37, 8, 8)
    scores = attended.query @ attended.key.repeat_interleave(4, 1).mT * attended.scale
    lse = scores.masked_fill(torch.ones(37, 37).triu(1).bool(), -torch.inf).logsumexp(-1)
    torch.testing.assert_close(attended.lse, lse)


@pytest.mark.parametrize(("count", "layers"), [(1, [0]), (2, [0, 1]), (3, [1, 2]), (30, [10, 12, 15, 18, 20])])
def test_middle_layers_are_spread_over_the_middle_third(count: int, layers: list[int]) -> None:
    model = LlamaForCausalLM.__new__(LlamaForCausalLM)
    torch.nn.Module.__init__(model)
    model.config = LlamaConfig(num_hidden_layers=count)
    assert middle_layers(model) == layers


def test_layers_with_a_window_are_not_among_the_full_ones() -> None:
    model = torch.nn.Module()
    model.config = LlamaConfig(num_hidden_layers=4)  # type: ignore[assignment]
    model.config.layer_types = ["sliding_attention", "full_attention"] * 2  # type: ignore[union-attr]
    assert full_layers(model) == [1, 3]
