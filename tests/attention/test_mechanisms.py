"""Every registered mechanism: what its module computes is its paper's formula, and what it claims holds."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coterie import registry
from coterie.attention import mechanisms
from coterie.attention.data import Tokens
from coterie.attention.mechanisms.base import About, Context, Declaration, Heads, Mechanism

NAMES = registry.names("attention")
GROUPED, EQUAL = Heads(4, 2, 8, 10), Heads(4, 4, 8, 10)
BATCH = 2


@dataclass
class Case:
    """One mechanism with random parameters and inputs in float64."""

    mechanism: Any
    module: nn.Module
    inputs: list[Tensor]
    """q, k, v; or x of a mechanism of features."""
    context: Context

    @property
    def floats(self) -> list[Tensor]:
        """Everything that has a gradient."""
        context = [self.context.features] + [getattr(self.context.data, f.name) for f in fields(self.context.data)]
        given = [x for x in context if isinstance(x, Tensor) and x.is_floating_point()]
        return [*self.inputs, *given, *self.module.parameters()]

    def compute(self, *, naive: bool = False) -> Tensor:
        if naive:
            return self.mechanism.naive(self.module, *self.inputs, self.context)
        return self.module(*self.inputs, self.context)

    def put(self, inputs: list[Tensor] | None = None, **context: Any) -> Case:
        return replace(self, inputs=inputs or self.inputs, context=replace(self.context, **context))


def make(
    name: str, tokens: int = 35, *, causal: bool = False, dtype: torch.dtype = torch.float64, **options: Any
) -> Case:
    mechanism: Any = replace(registry.impl("attention", name).small(), **options)
    draw = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    torch.manual_seed(tokens)  # buffers
    try:
        heads, module = GROUPED, mechanism.module(GROUPED)
    except ValueError as refusal:
        assert "heads" in str(refusal)
        heads, module = EQUAL, mechanism.module(EQUAL)
    module = module.to(dtype).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * normal(*parameter.shape))
    context = replace(mechanism.context(tokens, draw, heads, BATCH), causal=causal).to(dtype=dtype)
    if isinstance(mechanism, Mechanism):
        inputs = [normal(BATCH, h, tokens, heads.width) for h in (heads.queries, heads.keys, heads.keys)]
    else:
        inputs = [normal(BATCH, tokens, heads.features)]
    return Case(mechanism, module, inputs, context)


@pytest.mark.parametrize("tokens", [1, 24, 35])
@pytest.mark.parametrize("name", NAMES)
def test_output_and_gradients_are_those_of_the_formula(name: str, tokens: int) -> None:
    case = make(name, tokens)
    check_gradients(case)


@pytest.mark.parametrize("name", NAMES)
def test_in_causal_order_it_is_the_formula_and_sees_nothing_later(name: str) -> None:
    case, cut = make(name, causal=True), 17
    try:
        before = case.compute().detach()
    except ValueError as refusal:
        assert name in str(refusal) and "causal" in str(refusal)
        return
    check_gradients(case)
    later = torch.arange(35) >= cut
    changed = case.put([x.masked_fill(later[:, None], 3.0) for x in case.inputs])
    if case.context.features is not None:
        changed = changed.put(features=case.context.features.masked_fill(later[:, None], -2.0))
    assert torch.equal(changed.compute()[..., :cut, :], before[..., :cut, :])


def check_gradients(case: Case) -> None:
    floats = [x.requires_grad_() for x in case.floats]
    ours, theirs = case.compute(), case.compute(naive=True)
    close(ours, theirs)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=ours.dtype)
    found, expected = (
        torch.autograd.grad(o, floats, upstream, allow_unused=True, materialize_grads=True) for o in (ours, theirs)
    )
    for mine, other in zip(found, expected, strict=True):
        close(mine, other)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_padding_may_hold_anything(name: str) -> None:
    case, kept = make(name), 30
    segment = (torch.arange(35) >= kept).long().neg()
    tokens = replace(case.context.data.queries, segment=segment)
    case = case.put(data=replace(case.context.data, queries=tokens))
    found, expected = (fill(case, segment < 0, anything).compute() for anything in (torch.nan, 0.0))
    if found.shape[-2] == 35:
        found, expected = found[..., :kept, :], expected[..., :kept, :]
    assert found.isfinite().all()
    close(found, expected)


def fill(case: Case, where: Tensor, value: float) -> Case:
    """With this value in some tokens, bool [N] or [B, N]."""
    inputs = [x.masked_fill(where.view(-1, *[1] * (x.dim() - 3), 35, 1), value) for x in case.inputs]
    if case.context.features is None:
        return case.put(inputs)
    return case.put(inputs, features=case.context.features.masked_fill(where[..., None], value))


COUNTING = (
    "dynamic_mask", "flow", "hierarchical_group", "hop_wise", "lama", "linear", "motionclr_replacement", "mqsa",
    "native_sparse", "pyramid_sparse", "routing", "token_aggregation",
)  # fmt: skip
"""What counts, sorts or sums tokens, without a grid."""


@pytest.mark.parametrize("options", [{}, {"size": None}, {"share_of": "importance", "alike": (-0.1, 0.0, 0.1)}])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", COUNTING)
def test_sequences_are_as_if_those_of_their_batch_were_of_one_length(
    name: str, causal: bool, options: dict[str, Any]
) -> None:
    if not options.keys() <= {f.name for f in fields(registry.impl("attention", name))}:
        return
    case, lengths = make(name, causal=causal, **options), torch.tensor([26, 35])
    if name == "motionclr_replacement":
        lengths[:] = 26
    is_padding = torch.arange(35) >= lengths[:, None]
    data = replace(case.context.data, queries=replace(case.context.data.queries, segment=7 - 8 * is_padding.long()))
    try:
        found = fill(case, is_padding, torch.nan).put(data=data).compute()
    except ValueError as refusal:
        assert causal and "causal" in str(refusal)
        return
    close(found[..., :26, :][:1] if found.shape[-2] == 35 else found[:1], alone(case, 26).compute()[:1])


def alone(case: Case, length: int) -> Case:
    """The batch, cut."""
    hops, group = case.context.data.hops, case.context.data.queries.group
    tokens = Tokens(group=None if group is None else group[:, :length])
    data = replace(case.context.data, queries=tokens, hops=None if hops is None else hops[:length, :length])
    features = None if case.context.features is None else case.context.features[:, :length]
    return case.put([x[..., :length, :] for x in case.inputs], data=data, features=features)


@pytest.mark.parametrize("name", NAMES)
def test_in_float32_it_is_as_exact_as_float32(name: str) -> None:
    single, double = make(name, dtype=torch.float32), make(name)
    found, expected = single.compute(), double.compute(naive=True)
    assert found.dtype == torch.float32
    assert (found.double() - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_no_fewer_than_are_computed_and_fewer_than_dense_where_the_cost_says_so(name: str) -> None:
    case = make(name)
    cost, long = case.mechanism.about.cost, 16384
    default = registry.impl("attention", name)()
    assert 0 < default.pairs(long) <= long**2 * (2 if "2 N^2" in cost else 1 if "N^2" in cost else 0.5)
    if isinstance(case.mechanism, Declaration):
        spec, data = case.mechanism.declare(*case.inputs[:2], case.context)
        allowed = spec.allowed(spec.read(*case.inputs[:2], data))
        if allowed is not None:
            assert allowed.double().expand(-1, -1, 35, 35).sum((2, 3)).mean() <= case.mechanism.pairs(35)


@pytest.mark.parametrize("name", NAMES)
def test_a_number_of_things_works_or_is_refused_by_name(name: str) -> None:
    for option in fields(small := registry.impl("attention", name).small()):
        if not re.match(r"int|tuple\[int", option.type):
            continue
        given = getattr(small, option.name)
        for number in (0, -1):
            value = tuple(number for _ in given) if isinstance(given, tuple) else number
            try:
                case = make(name, **{option.name: value})
            except ValueError as refusal:
                assert re.search(rf"\b{name}\b.*\b{option.name}\b", str(refusal))
            else:
                assert case.compute().isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_grid_of_another_size_is_refused(name: str) -> None:
    case = make(name)
    if case.context.grid is None:
        return
    with pytest.raises(ValueError, match=rf"{name} has 35 tokens, but its grid \(.*\) has 36 places"):
        case.put(grid=(6, 6)).compute()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_about_it(name: str) -> None:
    entry, about = registry.get("attention", name), registry.impl("attention", name).about
    assert (about.name, about.title) == (entry.name, entry.summary)
    assert about.formula and about.source and about.cost.startswith("O(")
    assert len(entry.summary) <= 90


def test_every_mechanism_is_registered() -> None:
    files = [
        importlib.import_module(f"{mechanisms.__name__}.{m.name}") for m in pkgutil.iter_modules(mechanisms.__path__)
    ]
    classes = [cls for file in files for cls in vars(file).values() if getattr(cls, "__module__", "") == file.__name__]
    assert {cls.about.name for cls in classes if isinstance(vars(cls).get("about"), About)} == set(NAMES)


@pytest.mark.parametrize("name", ["dgqa", "pgqa", "routing", "token_aggregation"])
def test_what_changes_from_call_to_call_is_not_checkpointed_in_training(name: str) -> None:
    """Gradients would silently be those of another output."""
    case = make(name, 24)
    module, context, inputs = case.module, case.context, [x.requires_grad_() for x in case.inputs]
    for is_training in (False, True):
        module.train(is_training)
        o = checkpoint(module, *inputs, context, use_reentrant=False)
        if is_training:
            with pytest.raises(ValueError, match=f"{name} .* do not checkpoint it"):
                o.sum().backward()
        else:
            expected = torch.autograd.grad(case.compute().square().sum(), inputs)
            for x, y in zip(torch.autograd.grad(o.square().sum(), inputs), expected, strict=True):
                torch.testing.assert_close(x, y)
