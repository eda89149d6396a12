"""Specs as values, as pictures, and as dense masks and biases."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Causal, Roles, Segments, Window
from coterie.attention.spec import EdgeBias, Spec


def test_specs_with_the_same_terms_are_one_key() -> None:
    specs = {Spec(Causal() & Segments(), rank=2, edge_bias=EdgeBias()): 1}
    assert specs[Spec(Segments() & Causal(), rank=2, edge_bias=EdgeBias())] == 1
    assert Spec(Causal(), rank=3) not in specs


def test_a_mask_is_shown_as_text() -> None:
    assert Spec(Causal() & Window(1)).show(3) == "#..\n##.\n.##"


def test_masks_that_differ_by_head_or_sequence_are_shown_one_by_one() -> None:
    data = Data(Tokens(segment=torch.tensor([[0, 0], [0, -1]])))
    assert Spec(Segments()).show(2, data, batch=2) == "batch 0, head 0\n##\n##\n\nbatch 1, head 0\n#.\n.."
    assert Spec(Window((0, 1), 0)).show(2, heads=2) == "batch 0, head 0\n#.\n.#\n\nbatch 0, head 1\n#.\n##"


def test_no_mask_shows_everything_allowed() -> None:
    assert Spec().show(2) == "##\n##"


def test_biases_add_up_term_by_term(make_case: Callable[..., Any]) -> None:
    case = make_case("everything", 4)
    d, spec = case.data, case.spec
    bias = spec.bias(spec.read(case.q, case.k, d)).expand(2, 4, 4, 4)
    for b, h, i, j in torch.cartesian_prod(*(torch.arange(size) for size in (2, 4, 4, 4))).tolist():
        expected = float(d.query_factors[b, h, i] @ d.key_factors[j] + d.key_bias[b, 0, j])
        for slot, neighbor in enumerate(d.neighbors[b, i].tolist()):
            if neighbor == j:
                expected -= float(d.slope[h] * d.distance[b, i, slot])
        assert float(bias[b, h, i, j]) == pytest.approx(expected, abs=1e-12)


def test_biases_may_be_shared_by_all_tokens(make_case: Callable[..., Any]) -> None:
    case = make_case("dense", 4)
    shared = Data(query_factors=torch.tensor([1.0, 2.0]), key_factors=torch.tensor([3.0, 4.0]), key_bias=torch.ones(()))
    spec = Spec(rank=2, key_bias=True)
    assert (spec.bias(spec.read(case.q, case.k, shared)) == 12).all()


def test_alibi_factors_keep_positions_apart_at_65536_tokens_beside_bfloat16_queries() -> None:
    tokens, last = 65_536, torch.tensor([65_535, 40_001, 3])
    slopes = torch.tensor([0.5, 2.0**-8, 0.7])
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 3, n, 8, generator=draw).bfloat16() for n in (3, tokens, tokens))
    u = torch.stack([-slopes[:, None] * last, slopes[:, None].expand(3, 3)], -1)
    places = torch.arange(tokens)
    data = Data(
        Tokens(position=last), Tokens(position=places),
        query_factors=u, key_factors=torch.stack([torch.ones(tokens), places.float()], -1),
    )  # fmt: skip
    spec = Spec(Causal(), rank=2)
    exact = slopes.double()[:, None, None] * (places - last[:, None])
    error = (spec.bias(spec.read(q, k, data)) - exact)[0].abs().amax((1, 2))
    # 0.7 is no binary number: u itself is rounded, by at most 2^-9 at 45 874, and so is the sum.
    assert error[:2].tolist() == [0, 0] and error[2] < 0.01
    logits = (q.double() @ k.double().mT) / 8**0.5 + exact
    logits = logits.masked_fill(places > last[:, None], -torch.inf)
    expected = logits.softmax(-1) @ v.double()
    assert (attend(q, k, v, spec, data).double() - expected).norm() < 1e-2 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_factors_in_half_precision_are_refused(make_case: Callable[..., Any], dtype: torch.dtype) -> None:
    case = make_case("low rank")
    case = case.put(query_factors=case.data.query_factors.to(dtype))
    with pytest.raises(ValueError, match="query_factors is b?float16, expected float32 or float64"):
        attend(case.q, case.k, case.v, case.spec, case.data)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"scale": float("nan")}, "Spec.scale is nan"), ({"rank": -1}, "Spec.rank is -1")]
)
def test_a_wrong_number_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spec(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask": Causal}, "Spec.mask is the class Causal"),
        ({"mask": "causal"}, "Spec.mask is a str"),
        ({"head_map": [0, 0]}, "Spec.head_map is a list"),
        ({"edge_bias": "linear"}, "Spec.edge_bias is a str"),
    ],
)
def test_a_term_of_another_type_is_refused_when_the_spec_is_made(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spec(**wrong)


def test_a_shape_of_an_edge_bias_that_is_none_is_not_taken_for_linear() -> None:
    with pytest.raises(ValueError, match="EdgeBias.shape is 'cubic', expected one of linear"):
        EdgeBias("cubic")  # type: ignore[arg-type]


def test_what_is_no_tensor_and_no_spec_is_named() -> None:
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="k is a ndarray, expected a torch tensor"):
        attend(q, q.numpy(), q)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="spec is a dict, expected a Spec"):
        attend(q, q, q, {"mask": Causal()})  # type: ignore[call-overload]


def test_a_role_outside_of_the_table_is_refused() -> None:
    data = Data(Tokens(role=torch.tensor([0, 2])))
    with pytest.raises(ValueError, match=r"queries.role holds 2, expected 0 <= value < 2"):
        Spec(Roles((("always", "never"), ("never", "always")))).show(2, data)


def test_the_examples_of_the_page_on_attention_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "attention.md").read_text("utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        names: dict[str, Any] = {}
        exec(block, names)  # noqa: S102
        assert torch.isfinite(names["o"]).all()


def test_the_core_imports_nothing_that_a_bare_gpu_box_lacks() -> None:
    code = (
        "import sys, coterie.attention.attend, coterie.attention.flex; "
        "print([m for m in ('pydantic', 'ruamel', 'ray', 'vllm', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
