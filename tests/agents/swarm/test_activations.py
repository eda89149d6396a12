import torch

from coterie.agents.swarm.activations import activate


def test_tanh_is_within_4e_7_of_tanh():
    x = torch.cat([torch.linspace(-12, 12, 200_001), torch.randn(1000) * 1e-3])
    exact = torch.tanh(x.double())
    assert (activate(x, "tanh") - exact).abs().max() < 4e-7
    assert activate(x, "tanh").abs().max() <= 1


def test_gradients_of_tanh_are_those_of_tanh():
    x = torch.linspace(-9, 9, 1001, requires_grad=True)
    (gradient,) = torch.autograd.grad(activate(x, "tanh").sum(), x)
    torch.testing.assert_close(gradient, 1 - torch.tanh(x).square(), rtol=0, atol=2e-6)


def test_infinities_are_limited_and_nan_stays_nan():
    said = activate(torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0]), "tanh")
    torch.testing.assert_close(said, torch.tensor([1.0, -1.0, torch.nan, 0.0]), equal_nan=True)


def test_views_keep_their_shape():
    x = torch.randn(4, 6)[:, ::2].t()
    torch.testing.assert_close(activate(x, "tanh"), torch.tanh(x))


def test_relu_is_relu():
    assert activate(torch.tensor([-1.0, 2.0]), "relu").tolist() == [0.0, 2.0]
