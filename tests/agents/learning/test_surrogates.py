import math

import pytest
import torch

from coterie.agents.learning.surrogates import CISPOLoss, GSPOLoss, PPOLoss

ALONE = torch.arange(2)


def logs(*ratios):
    return torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()


def test_ppo_clips_above_and_below_with_a_bound_each():
    loss, ratios = PPOLoss(0.2, 0.28, None), logs(1.5, 0.5)
    terms = loss.terms(ratios, torch.tensor([2.0, -1.0]), ALONE)
    assert terms.tolist() == pytest.approx([-2 * 1.28, 0.8])
    terms.sum().backward()
    assert ratios.grad.tolist() == [0.0, 0.0]
    assert loss.clipped(ratios, torch.tensor([2.0, -1.0]), ALONE).tolist() == [True, True]


def test_ppo_does_not_clip_what_comes_back():
    loss, ratios = PPOLoss(0.2, 0.28, None), logs(1.5, 0.5)
    terms = loss.terms(ratios, torch.tensor([-1.0, 2.0]), ALONE)
    assert terms.tolist() == pytest.approx([1.5, -1.0])
    terms.sum().backward()
    assert ratios.grad.tolist() == pytest.approx([1.5, -1.0])
    assert not loss.clipped(ratios, torch.tensor([-1.0, 2.0]), ALONE).any()


def test_a_dual_clip_bounds_what_a_bad_token_adds():
    ratios = logs(5.0, 2.5)
    terms = PPOLoss(0.2, 0.28, 3.0).terms(ratios, torch.tensor([-0.5, -0.5]), ALONE)
    assert terms.tolist() == pytest.approx([1.5, 1.25])
    terms.sum().backward()
    assert ratios.grad.tolist() == pytest.approx([0.0, 1.25])
    assert PPOLoss().clipped(ratios, torch.tensor([-0.5, -0.5]), ALONE).tolist() == [True, False]


def test_gspo_gives_a_reply_one_ratio_and_its_tokens_equal_shares_of_the_gradient():
    ratios = torch.tensor([0.1, 0.3, -0.2], dtype=torch.float64, requires_grad=True)
    replies, advantage = torch.tensor([0, 0, 1]), torch.tensor([1.0, 1.0, 2.0])
    terms = GSPOLoss(0.5, 0.5).terms(ratios, advantage, replies)
    whole = math.exp(0.2)
    assert terms.tolist() == pytest.approx([-whole, -whole, -2 * math.exp(-0.2)])
    terms.sum().backward()
    assert ratios.grad.tolist() == pytest.approx([-whole, -whole, -2 * math.exp(-0.2)])


def test_gspo_clips_whole_replies():
    ratios, replies = torch.tensor([0.0, 0.002, 0.0]), torch.tensor([0, 0, 1])
    assert GSPOLoss().clipped(ratios, torch.ones(3), replies).tolist() == [True, True, False]
    assert GSPOLoss().terms(ratios, torch.ones(3), replies).tolist() == pytest.approx([-1.0004, -1.0004, -1.0])


def test_cispo_keeps_the_gradient_of_a_clipped_token():
    ratios = logs(20.0, 2.0)
    CISPOLoss(1.0, 4.0).terms(ratios, torch.tensor([1.0, -1.0]), ALONE).sum().backward()
    assert ratios.grad.tolist() == pytest.approx([-5.0, 2.0])
    assert CISPOLoss().clipped(ratios, torch.ones(2), ALONE).tolist() == [True, False]


@pytest.mark.parametrize("loss", [PPOLoss(), GSPOLoss(), CISPOLoss()])
def test_at_the_old_policy_every_loss_is_the_plain_policy_gradient(loss):
    ratios = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([1.5, 1.5, -0.5], dtype=torch.float64)
    loss.terms(ratios, advantage, torch.tensor([0, 0, 1])).sum().backward()
    assert ratios.grad.tolist() == pytest.approx((-advantage).tolist())


@pytest.mark.parametrize("loss", [PPOLoss(), GSPOLoss(), CISPOLoss()])
def test_no_loss_overflows(loss):
    ratios = torch.tensor([500.0, -500.0], requires_grad=True)
    terms = loss.terms(ratios, torch.tensor([-1.0, 1.0]), ALONE)
    terms.sum().backward()
    assert terms.isfinite().all() and ratios.grad.isfinite().all()
