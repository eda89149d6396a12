"""Pooled sequences: parameters and limits that the papers name."""

import pytest
import torch
from torch import Tensor

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Features, Heads
from coterie.attention.mechanisms.pooling import EfficientProbing, GeneralisedMean, Lama

HEADS = Heads(4, 4, 16, 64)
POOLED = [Lama(4), EfficientProbing(8, 2), GeneralisedMean(4)]


def drawn(tokens: int = 9) -> Tensor:
    return torch.rand(2, tokens, 64, generator=torch.Generator().manual_seed(tokens))


@pytest.mark.parametrize(
    ("mechanism", "size", "shape"),
    [
        (Lama(8), 2 * 8 * 64 + 64, (2, 8, 64)),  # 2 d m, and the context
        (EfficientProbing(32), 32 * 64 + 64 * 64, (2, 64)),  # m C + C^2 / reduction
        (EfficientProbing(8, 4), 8 * 64 + 64 * 64 // 4, (2, 16)),
        (GeneralisedMean(16), 16, (2, 64)),  # one power for each group
    ],
)
def test_parameters_and_shapes_are_the_published_ones(mechanism: Features, size: int, shape: tuple[int, ...]) -> None:
    module = mechanism.module(HEADS)
    assert sum(p.numel() for p in module.parameters()) == size
    assert module(drawn(), Context()).shape == shape


def test_heads_of_lama_differ_by_the_sign_and_size_of_what_the_context_says() -> None:
    module, x = Lama(2).module(HEADS), drawn()
    with torch.no_grad():
        module.get_parameter("right").copy_(torch.ones(2, 64))
        module.get_parameter("left").copy_(torch.stack([torch.zeros(64), torch.ones(64)]))
        module.get_parameter("center").fill_(-1.0)
    # A head that the context says nothing of takes the mean; the other, by tanh(-64 * ...) = -1 everywhere, too.
    torch.testing.assert_close(module(x, Context()), x.mean(1, keepdim=True).expand(-1, 2, -1))


def test_probing_with_zero_queries_is_the_mean_of_the_values() -> None:
    module, x = EfficientProbing(4).module(HEADS), drawn()
    torch.nn.init.zeros_(module.get_parameter("queries"))
    torch.testing.assert_close(module(x, Context()), (x @ module.get_parameter("values.weight").T).mean(1))


def test_the_generalised_mean_lies_between_mean_and_maximum() -> None:
    x = drawn()
    means = [GeneralisedMean(4, power).module(HEADS)(x, Context()) for power in (1.0, 3.0, 300.0)]
    torch.testing.assert_close(means[0], x.mean(1))
    torch.testing.assert_close(means[2], x.amax(1), rtol=1e-2, atol=0)
    assert (means[0] <= means[1]).all() and (means[1] <= means[2]).all()


@pytest.mark.parametrize("mechanism", POOLED)
def test_padding_counts_for_nothing(mechanism: Features) -> None:
    module, x = mechanism.module(HEADS), drawn()
    segment = torch.tensor([[0] * 6 + [-1] * 3, [-1] * 9])
    padded = x.masked_fill((segment < 0)[..., None], torch.nan).requires_grad_()
    y = module(padded, Context(data=Data(Tokens(segment=segment))))
    torch.testing.assert_close(y[:1], module(x[:1, :6], Context()))
    assert not y[1].any()
    gradients = torch.autograd.grad(y.sum(), [padded, *module.parameters()])
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("mechanism", [EfficientProbing(7), GeneralisedMean(7)])
def test_features_that_do_not_divide_are_refused(mechanism: Features) -> None:
    with pytest.raises(ValueError, match="64 features"):
        mechanism.module(HEADS)
