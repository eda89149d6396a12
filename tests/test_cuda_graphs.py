import pytest
import torch

from coterie.cuda_graphs import Recorded

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def test_on_a_cpu_nothing_is_recorded():
    calls = []
    double = Recorded(lambda x: calls.append(x) or (2 * x,))
    for number in (1.0, 2.0, 3.0):
        (doubled,) = double(torch.tensor(number))
        assert float(doubled) == 2 * number
    assert len(calls) == 3


@on_gpu
def test_what_is_replayed_is_what_was_computed():
    calls, factor = [], torch.tensor(2.0, device="cuda")
    scale = Recorded(lambda x: calls.append(x) or (factor * x,))
    for number in range(5):
        given = torch.full((3,), float(number), device="cuda")
        (scaled,) = scale(given)
        assert torch.equal(scaled, 2 * given)
    factor.fill_(5.0)
    assert float(scale(torch.ones(3, device="cuda"))[0][0]) == 5
    assert len(calls) == 2  # once to compute, once to record


@on_gpu
def test_shapes_beyond_the_most_are_computed_each_time():
    calls = []
    double = Recorded(lambda x: calls.append(x) or (2 * x,), most=1)
    for size in (3, 4, 3, 4, 3, 4):
        assert torch.equal(double(torch.ones(size, device="cuda"))[0], torch.full((size,), 2.0, device="cuda"))
    assert len(calls) == 2 + 3
