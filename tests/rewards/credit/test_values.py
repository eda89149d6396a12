"""Values of replies at their steps: where steps begin, what their tokens are given, and that it telescopes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie import registry
from coterie.errors import CreditError
from coterie.rewards.credit.token import ScoredReply, Weighed, apply
from coterie.rewards.credit.values import SaidReply, by_token, mean_values

CASES = [("vine", {}), ("spo", {}), ("spo", {"mask": False}), ("spo", {"cut": "tokens", "every": 3})]


def build(kind, **fields):
    config = registry.load(registry.get("token_credit", kind).config)
    return registry.impl("token_credit", kind)(config(**fields))


@st.composite
def replies(draw):
    """Text and log-probabilities of a reply, what it is worth at up to as many steps, and its advantages."""
    pieces = draw(st.lists(st.sampled_from(["a", " b", "\n", ".", "7\n", "\n\n"]), min_size=1, max_size=40))
    numbers = st.lists(st.floats(0.01, 1.0), min_size=len(pieces), max_size=len(pieces))
    values = draw(st.lists(st.integers(0, 9), min_size=len(pieces) + 1, max_size=len(pieces) + 1))
    said = SaidReply(pieces, np.log(np.array(draw(numbers))).astype(np.float32))
    return said, np.array(values) / 9, np.array(draw(numbers))


def score(rule, said, values, advantage):
    step = rule.number(said)
    signals = by_token(step, values[: step[-1] + 2])
    return ScoredReply("turn", advantage, {**signals, "old": said.logprobs})


@pytest.mark.parametrize(("kind", "fields"), CASES)
@settings(max_examples=25, deadline=None)
@given(replies())
def test_every_token_is_given_the_change_of_value_over_its_step(kind, fields, case):
    rule, (said, values, advantage) = build(kind, **fields), case
    (found,) = apply(rule, [score(rule, said, values, advantage)], seed=0, iteration=1)
    shaped, step = found.shape(advantage), rule.number(said)
    assert step[0] == 0 and all(b - a in (0, 1) for a, b in zip(step, step[1:], strict=False))
    total = 0.0
    for number in range(step[-1] + 1):
        mine = [t for t in range(len(step)) if step[t] == number]
        sure = [t for t in mine if np.exp(float(said.logprobs[t])) >= 0.9]
        left_out = sure if kind == "spo" and fields.get("mask", True) and len(sure) < len(mine) else []
        worth = float(values[number + 1] - values[number])
        for t in mine:
            assert shaped[t] == pytest.approx(0.0 if t in left_out else worth, abs=1e-12)
        total += worth
    assert total == pytest.approx(values[step[-1] + 1] - values[0])


@pytest.mark.parametrize(("kind", "fields"), CASES)
@settings(max_examples=25, deadline=None)
@given(replies())
def test_normalised_the_mean_over_tokens_is_what_the_reply_was_worth_more_than_its_prompt(kind, fields, case):
    rule, (said, values, advantage) = build(kind, normalise=True, **fields), case
    (found,) = apply(rule, [score(rule, said, values, advantage)], seed=0, iteration=1)
    steps = rule.number(said)[-1] + 1
    assert found.shape(advantage).mean() == pytest.approx(values[steps] - values[0], abs=1e-9)


def test_steps_of_reasoning_end_where_lines_do():
    said = SaidReply(["1+1=", "2", "\n", "\n", "2+2=", "4\n", "4"], np.zeros(7, np.float32))
    assert build("vine").number(said) == [0, 0, 0, 0, 1, 1, 2]


def test_segments_begin_at_every_so_many_th_unsure_token():
    said = SaidReply(["x"] * 8, np.log(np.array([0.99, 0.5, 0.95, 0.2, 0.3, 0.99, 0.6, 0.1], np.float32)))
    assert build("spo", every=2).number(said) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert build("spo", cut="tokens", every=3).number(said) == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("normalise", [False, True])
def test_a_rule_that_mints_is_refused(normalise):
    rule = build("vine", normalise=normalise)
    said = SaidReply(["a\n", "b\n", "c"], np.zeros(3, np.float32))
    reply = score(rule, said, np.array([0.0, 0.5, 0.25, 1.0]), np.ones(3))
    honest = rule.weigh
    rule.weigh = lambda *given: [Weighed(one.factor, one.marks, 1.1 * one.added) for one in honest(*given)]
    with pytest.raises(CreditError, match=r"comes to 1\.1, and it was worth 1 more than its prompt"):
        apply(rule, [reply], seed=0, iteration=1)


def test_a_rule_of_factors_may_add_nothing():
    rule = build("random")
    honest = rule.weigh
    rule.weigh = lambda *given: [Weighed(one.factor, one.marks, np.ones(3)) for one in honest(*given)]
    with pytest.raises(CreditError, match="nothing is promised of them"):
        apply(rule, [ScoredReply("turn", np.ones(3))], seed=0, iteration=1)


def test_values_that_were_not_replayed_are_missed():
    with pytest.raises(CreditError, match="the signal after is not there"):
        apply(build("vine"), [ScoredReply("turn", np.ones(3))], seed=0, iteration=1)


def test_a_beginning_is_worth_what_those_earned_on_average_that_were_given_anything():
    earned = [[1.0, None, 0.0], [None, None], [None, 0.5], [None]]
    assert mean_values(earned, 0.75) == [0.5, 0.5, 0.5, 0.75, 0.75]
