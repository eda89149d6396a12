"""Our formulas against those of TRL: the same loss and the same gradients, in float64."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from coterie.agents.learning import aggregation, correction, kl
from coterie.agents.learning.llm_settings import CorrectionSettings
from coterie.agents.learning.surrogates import CISPOLoss, GSPOLoss, PPOLoss

pytestmark = pytest.mark.slow

LENGTHS = torch.tensor([5, 2, 7])
MASK = torch.arange(7) < LENGTHS[:, None]
REPLIES = torch.arange(3).repeat_interleave(LENGTHS)
LONGEST = 10
PPO = PPOLoss(0.2, 0.28, None)


@pytest.fixture(scope="module")
def trainer():
    return pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is not installed").GRPOTrainer


@pytest.fixture
def numbers():
    """Log-probabilities before, now, of a reference and of an engine, for three replies side by side; advantages."""
    draw = torch.Generator().manual_seed(0)
    old = -torch.rand(3, 7, generator=draw, dtype=torch.float64) * 3
    now, reference, engine = (
        old + scale * torch.randn(3, 7, generator=draw, dtype=torch.float64) for scale in (0.4, 0.3, 0.5)
    )
    return old, now.requires_grad_(), reference, engine, torch.tensor([1.5, -0.7, -1.1], dtype=torch.float64)


def by_trl(trainer, numbers, weight=None, beta=0.0, **given):
    """TRL's loss of one batch in one process without accumulation, and its gradient."""
    old, now, reference, _, advantages = numbers
    settings = {"loss_type": "dapo", "importance_sampling_level": "token", "epsilon_low": 0.2, "epsilon_high": 0.28}
    one_process = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)
    itself = SimpleNamespace(
        **{**settings, **given}, beta=beta, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        aux_loss_enabled=False, use_vllm=weight is not None, vllm_importance_sampling_correction=True,
        model=SimpleNamespace(training=True), current_gradient_accumulation_steps=1, max_completion_length=LONGEST,
        _entropy_bonus_enabled=False, _metrics={"train": defaultdict(list)}, accelerator=one_process,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        _get_per_token_logps_and_entropies=lambda *a, **k: (now, torch.zeros_like(now), None),
    )  # fmt: skip
    ids = torch.zeros(3, 7, dtype=torch.long)
    loss = trainer._compute_loss(itself, None, {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": MASK.double(),
        "advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": reference,
        "num_items_in_batch": MASK.sum(), "importance_sampling_ratio": weight,
    })  # fmt: skip
    return loss.detach(), torch.autograd.grad(loss, now)[0][MASK]


def by_us(numbers, loss, mode, settings=None, beta=0.0):
    """The same; like TRL we count what a correction masks."""
    old, now, reference, engine, advantages = numbers
    log_prob, old = now[MASK], old[MASK]
    corrected = correction.correct(old, engine[MASK], REPLIES, settings)
    terms = loss.terms(log_prob - old, advantages[REPLIES], REPLIES) * corrected.weight
    if beta:
        terms = terms + beta * kl.estimate(log_prob, reference[MASK], "k3")
    counts = torch.ones_like(corrected.counts)
    total = (terms * aggregation.token_weights(REPLIES, REPLIES, counts, mode, LONGEST, False)).sum()
    return total.detach(), torch.autograd.grad(total, now)[0][MASK]


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("token_mean", "dapo"), ("token_mean", "bnpo"), ("seq_mean_token_mean", "grpo"),
        ("seq_mean_token_sum_norm", "dr_grpo"),
    ],
)  # fmt: skip
def test_clipped_losses_and_their_aggregation(trainer, numbers, mode, kind):
    assert_equal(by_us(numbers, PPO, mode), by_trl(trainer, numbers, loss_type=kind))


def test_gspo(trainer, numbers):
    given = {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.15}
    assert_equal(by_us(numbers, GSPOLoss(0.1, 0.15), "seq_mean_token_mean"), by_trl(trainer, numbers, **given))


def test_cispo_has_the_same_gradient(trainer, numbers):
    ours = by_us(numbers, CISPOLoss(1.0, 0.2), "token_mean")
    assert_equal(ours[1:], by_trl(trainer, numbers, loss_type="cispo", epsilon_high=1.2)[1:])


def test_k3(trainer, numbers):
    assert_equal(by_us(numbers, PPO, "token_mean", beta=0.3), by_trl(trainer, numbers, beta=0.3))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_corrections(trainer, numbers, kind, mask):
    """Their weights are made outside of their loss; here as their `*_truncate` and `*_mask` do."""
    old, _, _, engine, _ = numbers
    change = (old - engine) * MASK
    weight = (change.sum(-1, keepdim=True) if kind == "sequence" else change).exp()
    weight = weight.masked_fill((weight < 0.6) | (weight > 1.5), 0.0) if mask else weight.clamp(0.6, 1.5)
    settings = CorrectionSettings(kind=kind, low=0.6, high=1.5, mask=mask, veto=None)
    assert_equal(by_us(numbers, PPO, "token_mean", settings), by_trl(trainer, numbers, weight))
