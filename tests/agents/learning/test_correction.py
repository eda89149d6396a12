import math

import pytest
import torch

from coterie.agents.learning import correction
from coterie.agents.learning.llm_settings import CorrectionSettings

REPLIES = torch.tensor([0, 0, 1])


def correct(weights, **settings):
    """Weights of tokens, and which count, where learner and engine differ by `weights`."""
    engine = torch.tensor([-1.0, -2.0, -0.5])
    old = engine + torch.tensor(weights).log()
    found = correction.correct(old, engine, REPLIES, CorrectionSettings(**settings))
    return found.weight.tolist(), found.counts.tolist()


def test_token_weights_are_truncated():
    assert correct([3.0, 0.5, 1.0])[0] == pytest.approx([2.0, 0.5, 1.0])
    assert correct([3.0, 0.5, 1.0], low=0.8)[0] == pytest.approx([2.0, 0.8, 1.0])


def test_token_weights_outside_are_masked():
    weights, counts = correct([3.0, 0.6, 1.0], low=0.5, mask=True)
    assert weights == pytest.approx([0.0, 0.6, 1.0]) and counts == [False, True, True]


def test_a_reply_is_weighted_by_the_product_of_its_tokens():
    assert correct([3.0, 0.5, 1.2], kind="sequence")[0] == pytest.approx([1.5, 1.5, 1.2])
    assert correct([3.0, 2.0, 1.2], kind="sequence", high=3.0)[0] == pytest.approx([3.0, 3.0, 1.2])
    assert correct([3.0, 2.0, 1.2], kind="sequence", high=3.0, mask=True)[1] == [False, False, True]


def test_a_reply_is_weighted_by_its_geometric_mean():
    assert correct([3.0, 0.75, 1.2], kind="geometric")[0] == pytest.approx([1.5, 1.5, 1.2])
    assert correct([3.0, 0.75, 1.2], kind="geometric", low=0.9, high=1.3, mask=True)[1] == [False, False, True]


@pytest.mark.parametrize("kind", ["token", "sequence", "geometric"])
def test_a_reply_with_an_impossible_token_is_vetoed(kind):
    weights, counts = correct([1e-5, 1.0, 1.0], kind=kind)
    assert counts == [False, False, True] and weights[:2] == [0.0, 0.0]
    assert correct([1e-5, 1.0, 1.0], kind=kind, veto=None)[1] == [True, True, True]


def test_without_correction_every_token_weighs_one():
    found = correction.correct(torch.tensor([-9.0]), torch.tensor([-1.0]), torch.tensor([0]), None)
    assert found.weight.tolist() == [1.0] and found.counts.tolist() == [True]


def test_weights_have_no_gradient():
    old = torch.tensor([-1.0], requires_grad=True)
    for kind in ("token", "sequence", "geometric"):
        found = correction.correct(old, torch.tensor([-1.1]), torch.tensor([0]), CorrectionSettings(kind=kind))
        assert not found.weight.requires_grad


def test_a_great_difference_does_not_overflow():
    found = correction.correct(torch.zeros(40), torch.full((40,), -90.0), torch.zeros(40, dtype=torch.long),
                               CorrectionSettings(kind="sequence", high=1e9))  # fmt: skip
    assert found.weight.isfinite().all()


def test_drift_drops_long_replies_by_their_product_and_none_by_their_mean():
    lengths = torch.tensor([10, 100, 1000])
    replies = torch.arange(3).repeat_interleave(lengths)
    engine = torch.full((len(replies),), -1.0)
    for kind, kept in (("sequence", [True, False, False]), ("geometric", [True, True, True])):
        settings = CorrectionSettings(kind=kind, low=0.5, high=2.0, mask=True)
        counts = correction.correct(engine + 0.02, engine, replies, settings).counts
        assert [bool(counts[replies == reply].all()) for reply in range(3)] == kept


def test_what_an_engine_with_other_weights_drew_is_worth_what_the_learner_would_have_drawn():
    """Means over all draws: with weights they are those of the learner, with truncated ones nearer than without."""
    learner, engine = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.35, 0.45, 0.2])
    worth, alone = torch.tensor([1.0, -1.0, 3.0]), torch.arange(3)

    def mean(**settings):
        found = correction.correct(learner.log(), engine.log(), alone, CorrectionSettings(**settings))
        return float((engine * found.weight * worth).sum())

    right, plain = float((learner * worth).sum()), float((engine * worth).sum())
    assert mean(high=5.0) == pytest.approx(right)
    assert abs(mean(high=1.2) - right) < abs(plain - right)


def test_the_alarm_is_the_divergence_of_engine_and_learner():
    """The mean over what the engine draws is KL(engine, learner), exactly."""
    engine, learner = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.6, 0.25, 0.15])
    draws = torch.tensor([0] * 7 + [1] * 2 + [2])
    found = correction.mismatch(learner.log()[draws], engine.log()[draws])
    assert found["mismatch_kl"] == pytest.approx(float((engine * (engine / learner).log()).sum()), rel=1e-5)
    assert found["mismatch_max"] == pytest.approx(math.log(1.5), rel=1e-5)
    assert found["mismatch_geometric"] < 1
