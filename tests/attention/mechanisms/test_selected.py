"""Native Sparse Attention: which blocks are seen, and what it becomes when all are."""

import pytest
import torch
from torch import Tensor

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.selected import NativeSparse, _NativeSparse
from coterie.attention.naive import naive_attention

HEADS, N = Heads(4, 2, 8, 6), 53


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Context]:
    draw = torch.Generator().manual_seed(seed)
    q, k, v, x = (torch.randn(*s, generator=draw, dtype=torch.float64)
                  for s in ((2, 4, N, 8), (2, 2, N, 8), (2, 2, N, 8), (2, N, 6)))  # fmt: skip
    return q, k, v, Context(causal=True, features=x)


def make(mechanism: NativeSparse) -> _NativeSparse:
    module = mechanism.module(HEADS).double()
    assert isinstance(module, _NativeSparse)
    return module


def open_gate(module: _NativeSparse, branch: int, context: Context) -> Context:
    """Weights and hidden states with which one gate is 1 and the others are 0."""
    with torch.no_grad():
        module.gate.weight.fill_(-100.0)
        module.gate.weight[branch] = 100.0
    return Context(causal=context.causal, features=torch.ones_like(context.features))


def blocks_of(module: _NativeSparse, q: Tensor, k: Tensor) -> Tensor:
    return module._pick(q, module._compress(k, "key"), True, None)


def test_the_published_defaults() -> None:
    default = NativeSparse()
    assert (default.length, default.stride, default.block, default.top, default.window) == (32, 16, 64, 16, 512)
    assert (default.first, default.local) == (1, 2)
    # 65536 keys: 4096 compressed, 1024 selected and 512 in the window.
    assert default.pairs(65536) == 65536 * (4096 + 1024 + 512)


def test_the_first_and_the_local_blocks_are_always_seen_and_later_ones_never() -> None:
    mechanism = NativeSparse(4, 2, 4, top=4, first=1, local=2, window=5)
    q, k, _, _ = inputs()
    picked = blocks_of(make(mechanism), q, k)
    for i in range(N):
        own = i // 4
        for row in picked[:, :, i].flatten(0, 1).tolist():
            there = [b for b in row if b >= 0]
            assert {0, own, max(own - 1, 0)} <= set(there)
            assert len(there) == min(4, own + 1) == len(set(there)) and max(there) == own


def test_the_rest_are_the_blocks_with_most_compressed_attention() -> None:
    mechanism = NativeSparse(4, 4, 4, top=3, first=1, local=1, window=5, compression="mean")
    q, k, _, _ = inputs()
    # With stride = length = block a compressed key is a block, and its importance is the attention on it.
    means = k[:, :, : N // 4 * 4].unflatten(2, (-1, 4)).mean(3).repeat_interleave(2, 1)
    i = 50
    chances = (q[:, :, i : i + 1] @ means.mT / 8**0.5).softmax(-1).unflatten(1, (2, 2)).sum((2, 3))
    best = chances[..., 1:12].argmax(-1) + 1
    assert torch.equal(blocks_of(make(mechanism), q, k)[:, :, i].sort(-1).values[..., 1], best)


def test_with_all_blocks_and_its_gate_alone_it_is_dense() -> None:
    mechanism = NativeSparse(4, 2, 4, top=14, window=5)
    q, k, v, context = inputs()
    module = make(mechanism)
    dense, _ = naive_attention(q, k, v, allowed=torch.ones(N, N, dtype=torch.bool).tril())
    torch.testing.assert_close(module(q, k, v, open_gate(module, 1, context)), dense)


def test_each_gate_opens_one_branch() -> None:
    mechanism = NativeSparse(4, 2, 4, top=4, local=1, window=5)
    q, k, v, context = inputs()
    module, at = make(mechanism), torch.arange(N)
    near = (at <= at[:, None]) & (at > at[:, None] - 5)
    window, _ = naive_attention(q, k, v, allowed=near)
    torch.testing.assert_close(module(q, k, v, open_gate(module, 2, context)), window)
    overview = module(q, k, v, open_gate(module, 0, context))
    # No compressed key ends at or before the first three tokens.
    is_there = overview.abs().amax((0, 1, 3)) > 1e-9
    assert is_there.tolist() == [False] * 3 + [True] * (N - 3)


@pytest.mark.parametrize("compression", ["linear", "mean", "weighted"])
def test_every_compression_has_its_formula_and_gradients(compression: str) -> None:
    mechanism = NativeSparse(4, 2, 4, top=4, local=1, window=5, compression=compression)  # type: ignore[arg-type]
    q, k, v, context = inputs()
    module = make(mechanism)
    torch.testing.assert_close(module(q, k, v, context), mechanism.naive(module, q, k, v, context))
    module(q, k, v, context).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_picking_blocks_has_no_gradient() -> None:
    mechanism = NativeSparse(4, 2, 4, top=4, local=1, window=5)
    q, k, v, context = inputs()
    module = make(mechanism)
    context = open_gate(module, 1, context)
    module(q.requires_grad_(), k, v, context).sum().backward()
    # The compressed branch is shut: keys reach the output as picked blocks alone, their compression not at all.
    assert module.key_map.grad.abs().max() < 1e-30 and q.grad.abs().max() > 0


def test_blocks_count_from_the_first_token_so_padding_must_not_stand_before_it() -> None:
    q, k, v, context = inputs()
    before = Context(features=context.features, data=Data(Tokens(segment=(torch.arange(N) < 3).long().neg())))
    with pytest.raises(ValueError, match="native_sparse counts blocks .* put the padding behind"):
        make(NativeSparse.small())(q, k, v, before)


@pytest.mark.parametrize(("options", "named"), [({"length": 24}, "multiples"), ({"top": 2}, "fewer than the 1 first")])
def test_sizes_that_do_not_fit_are_named(options: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        NativeSparse(**options)  # type: ignore[arg-type]
