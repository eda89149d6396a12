"""Linear attention by chunks: the definition in float64, gradients, odd sizes, segments, padding, states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from coterie.attention import scan as scan_module
from coterie.attention.kernels.scan_torch import chunked_scan
from coterie.attention.scan import scan

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
DECAY = torch.tensor([0.0, -0.05, -0.7, -30.0], dtype=torch.float64)


def inputs(tokens: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k and v of 2 sequences with 4 query heads and 2 key heads."""
    draw = torch.Generator().manual_seed(tokens)
    shapes = ((2, 4, tokens, 8), (2, 2, tokens, 8), (2, 2, tokens, 5))
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


def some_state() -> Tensor:
    return torch.randn(2, 4, 8, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def by_loops(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, segment: Tensor, state: Tensor, causal: bool
) -> tuple[Tensor, Tensor]:
    """The formula, a token after the other."""
    o, last = torch.zeros(2, 4, q.shape[2], 5, dtype=torch.float64), state.clone()
    for b in range(2):
        for h in range(4):
            fade, held = decay[h].exp(), state[b, h]
            for i in range(q.shape[2]):
                if i and segment[b, i] != segment[b, i - 1]:
                    held = torch.zeros_like(held)
                is_read = segment[b, i] >= 0
                held = fade * held + is_read * torch.outer(k[b, h // 2, i], v[b, h // 2, i])
                o[b, h, i] = is_read * (q[b, h, i] @ held)
                for j in range(i + 1, q.shape[2] if not causal and is_read else 0):
                    if segment[b, j] != segment[b, i]:
                        break
                    o[b, h, i] += fade ** (j - i) * (q[b, h, i] @ k[b, h // 2, j]) * v[b, h // 2, j]
            last[b, h] = held
    return o, last


def segments(tokens: int) -> Tensor:
    """Runs of a few tokens, the last of them padding; no number comes back."""
    draw = torch.Generator().manual_seed(3)
    segment = (torch.rand(2, tokens, generator=draw) < 0.15).long().cumsum(-1)
    segment[0, tokens - tokens // 4 :] = -1
    return segment


@pytest.fixture(params=["cpu", "naive"], name="_form")
def _in_each_form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_ATTENTION", request.param)
    monkeypatch.setattr(scan_module, "CPU_CHUNK", 8)


@pytest.mark.usefixtures("_form")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("tokens", [1, 8, 21])
def test_it_computes_the_formula(tokens: int, is_cut: bool, causal: bool) -> None:
    q, k, v = inputs(tokens)
    segment = segments(tokens) if is_cut else None
    state = some_state() if causal else None
    found = scan(q, k, v, log_decay=DECAY, causal=causal, segment=segment, state=state)
    given = torch.zeros(2, tokens) if segment is None else segment
    start = torch.zeros(2, 4, 8, 5, dtype=torch.float64) if state is None else state
    torch.testing.assert_close(found, by_loops(q, k, v, DECAY, given, start, causal), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_without_decay_it_is_the_product_without_softmax(causal: bool) -> None:
    q, k, v = inputs(70)
    keys, values = (x.repeat_interleave(2, 1) for x in (k, v))
    allowed = torch.ones(70, 70, dtype=torch.float64).tril(0 if causal else 70)
    torch.testing.assert_close(scan(q, k, v, causal=causal)[0], (q @ keys.mT * allowed) @ values)


@pytest.mark.usefixtures("_form")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("is_cut", [False, True])
def test_every_argument_has_its_gradient(is_cut: bool, causal: bool) -> None:
    given = [x.requires_grad_() for x in (*inputs(11), DECAY[[1, 2, 1, 2]].clone(), some_state())]
    segment = segments(11)[:1] if is_cut else None
    segment = segment if segment is None else segment.expand(2, -1)

    def output(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        return scan(q, k, v, log_decay=decay, causal=causal, segment=segment, state=state if causal else None)

    assert torch.autograd.gradcheck(output, given, fast_mode=True)


@pytest.mark.parametrize("chunk", [1, 7, 16, 100])
def test_the_size_of_chunks_changes_nothing(chunk: int) -> None:
    def computed(chunk: int) -> tuple[Tensor, ...]:
        q, k, v = (x.repeat_interleave(4 // x.shape[1], 1).requires_grad_() for x in inputs(33))
        decay, state = DECAY.clone().requires_grad_(), some_state().requires_grad_()
        o, last = chunked_scan(q, k, v, decay, torch.arange(33)[None] // 9, state, chunk)
        return o, last, *torch.autograd.grad((o.square().sum() + last.sum()), (q, k, v, decay, state))

    torch.testing.assert_close(computed(chunk), computed(33), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cut", [0, 13, 64, 100])
def test_a_sequence_in_two_calls_is_the_sequence(cut: int) -> None:
    q, k, v = inputs(100)
    o, last = scan(q, k, v, log_decay=DECAY)
    before, state = scan(*(x[:, :, :cut] for x in (q, k, v)), log_decay=DECAY)
    after, end = scan(*(x[:, :, cut:] for x in (q, k, v)), log_decay=DECAY, state=state)
    torch.testing.assert_close((torch.cat([before, after], 2), end), (o, last))


@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_not_read_and_gets_nothing(causal: bool) -> None:
    segment = torch.tensor([0] * 9 + [-1] * 4 + [1] * 7)

    def computed(padding: float) -> list[Tensor]:
        q, k, v = (x.masked_fill((segment < 0)[:, None], padding).requires_grad_() for x in inputs(20))
        o, last = scan(q, k, v, log_decay=DECAY, causal=causal, segment=segment)
        upstream = torch.ones_like(o).masked_fill((segment < 0)[:, None], padding)
        return [o, last, *torch.autograd.grad((o, last), (q, k, v), (upstream, torch.ones_like(last)))]

    found = computed(torch.nan)
    torch.testing.assert_close(found, computed(0.0), rtol=1e-12, atol=1e-12)
    assert not any(x[:, :, 9:13].any() for x in (found[0], *found[2:]))


@pytest.mark.parametrize("causal", [True, False])
def test_segments_are_sequences_of_their_own(causal: bool) -> None:
    q, k, v = inputs(100)
    segment = torch.arange(100).ge(37).long()
    apart = [scan(*(x[:, :, at] for x in (q, k, v)), log_decay=DECAY, causal=causal)[0]
             for at in (slice(0, 37), slice(37, None))]  # fmt: skip
    found, _ = scan(q, k, v, log_decay=DECAY, causal=causal, segment=segment)
    torch.testing.assert_close(found, torch.cat(apart, 2))


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("tokens", [1, 65, 300])
def test_low_precision_stays_within_limits_of_float64(tokens: int, dtype: torch.dtype) -> None:
    def computed(wide: Callable[[Tensor], Tensor]) -> list[Tensor]:
        given = [wide(x).requires_grad_() for x in inputs(tokens, dtype)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            o, _ = scan(*given, log_decay=DECAY)
        return [o, *torch.autograd.grad(o, given, torch.ones_like(o))]

    for found, expected in zip(computed(Tensor.detach), computed(Tensor.double), strict=True):
        assert found.dtype == dtype
        assert (found.double() - expected).norm() <= LIMITS[dtype] * expected.norm()


def test_no_tokens_leave_the_state_as_it_is() -> None:
    state = some_state().requires_grad_()
    o, last = scan(*inputs(0), log_decay=DECAY, state=state)
    assert o.shape == (2, 4, 0, 5) and torch.equal(last, state)
    assert torch.equal(torch.autograd.grad(last.sum(), state)[0], torch.ones_like(state))


def test_memory_of_a_training_step_is_linear_in_the_tokens() -> None:
    def saved(tokens: int) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (sizes.append(x.numel()), x)[1], lambda x: x):
            scan(*(x.requires_grad_() for x in inputs(tokens)))
        return sum(sizes)

    assert saved(1024) <= 4.1 * saved(256)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": torch.zeros(2, 3, 9, 8), "v": torch.zeros(2, 3, 9, 5)}, "q has 4 heads, which 3 heads of k"),
        ({"k": torch.zeros(2, 2, 8, 8)}, "k has shape"),
        ({"v": torch.zeros(2, 2, 9, 5).bfloat16()}, "v is bfloat16, expected float32"),
        ({"log_decay": torch.ones(4)}, "log_decay holds values above 0"),
        ({"log_decay": torch.full((4,), -torch.inf)}, "log_decay holds values above 0 or not finite"),
        ({"segment": torch.zeros(9)}, "segment is float32"),
        ({"segment": torch.zeros(8, dtype=torch.long)}, "segment has shape"),
        ({"state": torch.zeros(2, 4, 8, 8)}, "state has shape"),
        ({"state": torch.zeros(2, 4, 8, 5).double()}, "state is float64"),
        ({"state": torch.zeros(2, 4, 8, 5), "causal": False}, "only causal scans"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_named(changed: dict[str, Any], message: str) -> None:
    given = dict(zip("qkv", inputs(9, torch.float32), strict=True)) | changed
    with pytest.raises(ValueError, match=message):
        scan(**given)
