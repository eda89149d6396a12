"""Exports to FlexAttention, run eagerly on the CPU, against the oracle."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from coterie.attention.attend import attend
from coterie.attention.flex import mask_mod, score_mod
from coterie.attention.naive import share_heads


def test_flex_attention_agrees_on_every_mask_and_bias(make_case: Callable[..., Any], feature: str) -> None:
    case = make_case(feature, 7)
    spec, data = case.spec, case.data
    allows, changes = mask_mod(case.q, case.k, spec, data), score_mod(case.q, case.k, spec, data)
    blocks = create_block_mask(allows, 2, 4, 7, 7, device="cpu") if allows else None
    k, v = (share_heads(x, 4, spec.head_map) for x in (case.k, case.v))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that eager mode is slow
        o, aux = flex_attention(
            case.q, k, v, score_mod=changes, block_mask=blocks, scale=spec.scale, return_aux=AuxRequest(lse=True)
        )
    o = o if data.sink is None else o * torch.sigmoid(aux.lse - data.sink[:, None])[..., None]
    o = o if data.gate is None else o * data.gate
    expected = attend(case.q, case.k, case.v, spec, data)
    torch.testing.assert_close(o, expected.to(o.dtype), atol=1e-6, rtol=1e-6)


def test_a_spec_without_terms_needs_no_functions(make_case: Callable[..., Any]) -> None:
    case = make_case("dense")
    assert mask_mod(case.q, case.k, case.spec, case.data) is None
    assert score_mod(case.q, case.k, case.spec, case.data) is None
