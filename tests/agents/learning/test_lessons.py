import numpy as np
import pytest
import torch

from coterie.agents.learning.lessons import Lesson, Tally, minibatches
from coterie.agents.learning.llm_settings import CorrectionSettings, LLMSettings


def keys(examples, hands):
    return [sorted(examples[n].key for n in hand) for hand in hands]


def test_minibatches_hold_every_turn_once_and_their_share_of_every_role(turns):
    examples = turns(31)
    hands = list(minibatches(examples, 4, 7, "minibatches", "solver", 0, 0))
    assert sorted(n for hand in hands for n in hand) == list(range(31))
    assert {len(hand) for hand in hands} <= {7, 8}
    for role in ("answer", "evaluate", "score"):
        assert {sum(examples[n].role == role for n in hand) for hand in hands} <= {2, 3}


def test_minibatches_do_not_depend_on_order_and_differ_between_iterations(turns):
    examples = turns(20)
    first, again, later = (
        keys(given, minibatches(given, 4, 7, "solver", iteration))
        for given, iteration in ((examples, 1), (examples[::-1], 1), (examples, 2))
    )
    assert first == again != later


def test_there_is_no_empty_minibatch(turns):
    assert len(list(minibatches(turns(2), 4, 7))) == 2
    assert list(minibatches([], 4, 7)) == []


@pytest.fixture
def lesson(turns):
    examples = turns(9)
    engine = torch.tensor(np.concatenate([example.logprobs for example in examples]))
    old = engine + 0.3 * torch.sin(torch.arange(len(engine)))
    return Lesson.of(examples, old, -old, None, CorrectionSettings(low=0.9, high=1.2, mask=True))


def test_a_part_of_a_lesson_is_that_of_its_turns(lesson):
    part = lesson.part([4, 1])
    assert [example.key for example in part.examples] == ["turn-004", "turn-001"]
    starts = np.cumsum([0, *(len(example.token_ids) for example in lesson.examples)])
    expected = torch.cat([lesson.weight[starts[n] : starts[n + 1]] for n in (4, 1)])
    assert torch.equal(part.weight, expected)
    assert part.replies.bincount().tolist() == [len(lesson.examples[4].token_ids), len(lesson.examples[1].token_ids)]


def test_metrics_of_steps_are_means_over_tokens_that_count(lesson):
    tally, now = Tally(lesson), lesson.old + 0.1
    tally.add(lesson, now)
    tally.step(0.5, 0.0, 2.0, 1e-3)
    tally.step(1.5, 0.0, 4.0, 1e-3)
    found = tally.metrics(LLMSettings())
    assert found["loss"] == 1.0 and found["gradient_norm"] == 3.0 and found["updates"] == 2
    assert found["ratio"] == pytest.approx(np.exp(0.1)) and found["kl"] == pytest.approx(np.exp(0.1) - 1.1, rel=1e-3)
    assert found["dropped"] == pytest.approx(1 - lesson.counts.double().mean().item())
    assert found["answer/tokens"] == sum(len(e.token_ids) for e in lesson.examples if e.role == "answer")
    assert found["clipped"] == 0


def test_a_rollout_without_turns_has_metrics():
    empty = torch.empty(0)
    found = Tally(Lesson.of([], empty, empty, None, CorrectionSettings())).metrics(LLMSettings())
    assert found["tokens"] == 0 and found["mismatch_kl"] == 0
