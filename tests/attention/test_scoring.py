from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CohereConfig, CohereForCausalLM, LlamaConfig, LlamaForCausalLM

from coterie.attention import scoring
from coterie.attention.head_roles import HeadRoles
from coterie.attention.scoring import SIGNALS, score

SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def model() -> Any:
    """Six layers, of which the middle third are 2, 3 and 4."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, num_hidden_layers=6)).eval()
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data *= 100
    return model


@pytest.fixture(scope="module")
def sequences() -> list[list[int]]:
    draw = torch.Generator().manual_seed(2)
    return [torch.randint(61, (length,), generator=draw).tolist() for length in (90, 40, 1)]


@torch.no_grad()
def plain_logprobs(model: Any, ids: list[int]) -> Tensor:
    tokens = torch.tensor([ids])
    table = model(tokens).logits[0, :-1].log_softmax(-1)
    found: Tensor = table.gather(1, tokens[0, 1:, None]).squeeze(1)
    return found


@pytest.mark.parametrize("name", ["model", "smol_model"])
def test_log_probabilities_are_the_same_with_and_without_signals(
    name: str, sequences: list[list[int]], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    sequences = [ids[:40] for ids in sequences]
    alone = score(model, sequences, ["logprobs"])
    together = score(model, sequences, SIGNALS)
    for one, two, ids in zip(alone, together, sequences, strict=True):
        np.testing.assert_array_equal(one["logprobs"], two["logprobs"])
        assert {name: (a.shape, a.dtype) for name, a in two.items()} == dict.fromkeys(
            SIGNALS, ((len(ids) - 1,), np.dtype(np.float32))
        )


def test_log_probabilities_are_the_models(model: Any, sequences: list[list[int]]) -> None:
    found = score(model, sequences[:1], ["logprobs", "entropy"])[0]
    np.testing.assert_allclose(found["logprobs"], plain_logprobs(model, sequences[0]), rtol=1e-4, atol=1e-4)
    assert (found["entropy"] >= 0).all()


def test_signals_are_means_over_the_maps_of_local_and_global_heads(model: Any, sequences: list[list[int]]) -> None:
    ids = sequences[0]
    found = score(model, [ids], ["waad", "fai"])[0]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(torch.tensor([ids]), output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    at = torch.arange(len(ids))
    behind = at[:, None] - at
    chosen = torch.cat([maps[layer][0] for layer in (2, 3, 4)])
    order = (chosen * behind).sum(-1).mean(-1).argsort()
    local, distant = chosen[order[:4]].mean(0), chosen[order[-4:]].mean(0)
    in_horizon = (behind >= 10) & (behind <= 100)
    fai = (distant * in_horizon).sum(0) / in_horizon.sum(0).clamp(min=1)
    np.testing.assert_allclose(found["waad"], (local * behind.clamp(max=10)).sum(-1)[1:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["fai"], fai[1:], rtol=1e-3, atol=1e-6)


def test_given_roles_make_a_sequence_independent_of_the_others(model: Any, sequences: list[list[int]]) -> None:
    roles = HeadRoles(local=((0, 0), (4, 1)), distant=((5, 3),), receiver=(), sink=())
    together = score(model, sequences[:2], ["waad", "fai"], roles)
    alone = score(model, sequences[1:2], ["waad", "fai"], roles)
    for name in ("waad", "fai"):
        np.testing.assert_array_equal(together[1][name], alone[0][name])


def test_a_model_that_scales_its_logits_is_scored_with_them() -> None:
    torch.manual_seed(0)
    config = CohereConfig(**SIZES, num_key_value_heads=2, num_hidden_layers=2, logit_scale=3.0, pad_token_id=0)
    model = CohereForCausalLM(config).eval()
    ids = list(range(20))
    found = score(model, [ids], ["logprobs"])[0]["logprobs"]
    np.testing.assert_allclose(found, plain_logprobs(model, ids), rtol=1e-4, atol=1e-5)
    assert "forward" not in model.base_model.__dict__


def test_chunks_of_logits_change_nothing(model: Any, monkeypatch: pytest.MonkeyPatch, sequences: Any) -> None:
    whole = score(model, sequences[1:2], ["logprobs", "entropy"])[0]
    monkeypatch.setattr(scoring, "_MAX_CHUNK", 7)
    parts = score(model, sequences[1:2], ["logprobs", "entropy"])[0]
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-4, atol=1e-4)


def test_an_unknown_signal_is_named() -> None:
    with pytest.raises(ValueError, match="signals holds surprise, expected some of logprobs"):
        score(None, [[1, 2]], ["surprise"])


def test_a_token_that_the_model_does_not_have_is_named(model: Any) -> None:
    with pytest.raises(ValueError, match="sequence 1 has token 61, the model 0 to 60"):
        score(model, [[1, 60], [2, 61]], ["logprobs"])


def test_a_tiny_model_has_at_least_one_head_of_each_role() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=4, num_hidden_layers=1)).eval()
    found = score(model, [list(range(30))], ["waad", "fai"])[0]
    assert (found["waad"] > 0).all() and (found["fai"][:19] > 0).all() and not found["fai"][20:].any()
