"""What every rule of factors owes: one factor for each token, what it says it conserves, and no more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie import registry
from coterie.errors import CreditError
from coterie.rewards.credit.redistribution import abc_shares, to_go
from coterie.rewards.credit.steps import step_tokens
from coterie.rewards.credit.token import ScoredReply, Weighed, apply

KINDS = [one.name for one in registry.entries("token_credit") if not registry.load(one.config).replays]


def build(kind, **fields):
    config = registry.load(registry.get("token_credit", kind).config)
    return registry.impl("token_credit", kind)(config(**fields))


def reply(key, length, seed=0, advantage=None):
    draw = np.random.default_rng([seed, *map(ord, key)])
    step = np.cumsum(draw.random(length) < 0.2)
    influence = np.where(np.arange(step[-1] + 1) + 4 <= step[-1], draw.random(step[-1] + 1), np.nan)[step]
    signals = {
        "old": -draw.random(length), "entropy": draw.random(length), "waad": 10 * draw.random(length),
        "fai": draw.random(length), "fai_queries": np.clip(np.arange(length)[::-1] - 9, 0, 91),
        "received": draw.random(length), "influence": influence, "step": step,
    }  # fmt: skip
    signals = {name: values.astype(np.float32) for name, values in signals.items()}
    given_ = draw.standard_normal(length) if advantage is None else np.full(length, advantage)
    return ScoredReply(key, given_, signals)


def some(seed=0, count=6, **fields):
    lengths = np.random.default_rng(seed).integers(1, 120, count)
    return [reply(f"turn-{n}", int(length), seed, **fields) for n, length in enumerate(lengths)]


@pytest.mark.parametrize("sign", ["both", "positive", "negative"])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_gives_what_it_claims(kind, normalise, sign):
    rule = build(kind, normalise=normalise, sign=sign)
    for seed in range(10):
        for each in apply(rule, some(seed), seed=seed, iteration=1):
            assert (each.factor >= 0).all()


@pytest.mark.parametrize("sign", ["both", "positive", "negative"])
@pytest.mark.parametrize("kind", KINDS)
def test_normalised_factors_leave_the_sum_of_equal_advantages_as_it_was(kind, sign):
    rule = build(kind, normalise=True, sign=sign)
    replies = some(3, advantage=0.7) + [reply("bad", 90, 4, advantage=-1.3)]
    weighed = apply(rule, replies, seed=0, iteration=1)
    before = sum(float(one.advantage.sum()) for one in replies)
    after = sum(float((one.advantage * each.factor).sum()) for one, each in zip(replies, weighed, strict=True))
    if rule.conserves == "batch":
        positive = sum(float(each.factor.sum()) for each in weighed)
        assert positive == pytest.approx(sum(len(one.advantage) for one in replies))
    else:
        assert after == pytest.approx(before)


@pytest.mark.parametrize(("sign", "changed"), [("positive", 1.0), ("negative", -1.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_advantages_of_the_other_sign_are_left_alone(kind, sign, changed):
    rule = build(kind, sign=sign)
    one, other = reply("a", 100, advantage=changed), reply("b", 100, advantage=-changed)
    moved, left = apply(rule, [one, other], seed=0, iteration=1)
    assert (left.factor == 1).all() and (moved.factor != 1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_replies_does_not_matter(kind):
    rule, replies = build(kind), some(1)
    forth, back = (apply(rule, order, seed=0, iteration=1) for order in (replies, replies[::-1]))
    for one, other in zip(forth, back[::-1], strict=True):
        assert np.array_equal(one.factor, other.factor)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "entropy"])
def test_a_reply_gets_the_same_whatever_it_is_weighed_with(kind):
    rule, replies = build(kind), some(2)
    together = apply(rule, replies, seed=0, iteration=1)
    alone = [apply(rule, [one], seed=0, iteration=1)[0] for one in replies]
    assert all(np.array_equal(a.factor, b.factor) for a, b in zip(together, alone, strict=True))


def test_entropy_keeps_the_top_fifth_of_all_tokens():
    replies = some(5)
    found = np.concatenate([each.factor for each in apply(build("entropy"), replies, seed=0, iteration=1)])
    entropy = np.concatenate([one.signals["entropy"] for one in replies])
    assert found.sum() == round(0.2 * len(found))
    assert entropy[found == 1].min() > entropy[found == 0].max()


def test_random_tokens_depend_on_seed_iteration_and_turn_alone():
    rule, one = build("random"), reply("a", 50)

    def draw(seed, iteration, replies=(one,)):
        return apply(rule, list(replies), seed=seed, iteration=iteration)[-1].factor.tolist()

    assert draw(0, 1) == draw(0, 1, (reply("z", 9), one))
    assert draw(0, 1) != draw(1, 1) and draw(0, 1) != draw(0, 2)
    assert sorted(draw(0, 1)) == [1.0] * 30 + [1.5] * 20


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0, 1))
def test_shares_of_attention_sum_to_one(received, beta):
    shares = abc_shares(np.array(received), beta)
    assert shares.sum() == pytest.approx(1) and (shares >= 0).all()


def test_shares_are_as_redistribution_has_them():
    assert abc_shares(np.array([1.0, 3.0]), 0.5) == pytest.approx([0.125, 0.875])
    assert to_go(np.array([0.125, 0.875])) == pytest.approx([1.0, 0.875])


def test_all_of_a_reply_is_still_to_come_at_its_first_token():
    for each in apply(build("abc"), some(6), seed=0, iteration=1):
        assert each.factor[0] == pytest.approx(1) and (np.diff(each.factor) <= 1e-12).all()


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.floats(0.05, 1))
def test_steps_are_chosen_whole(sizes, share):
    step = np.repeat(np.arange(len(sizes)), np.array(sizes) + 1).astype(float)
    influence = np.random.default_rng(0).random(len(sizes))[step.astype(int)]
    chosen = step_tokens(influence, step, share)
    picked = set(step[chosen])
    assert chosen.sum() == sum(sizes[int(n)] + 1 for n in picked)
    assert len(picked) == max(1, int(share * len(sizes) + 0.5))


class Broken:
    """A rule that claims what it does not keep."""

    def __init__(self, factor, conserves="reply", bounds=(0.0, 2.0)):
        self.wants, self.conserves, self.bounds, self.factor = None, conserves, bounds, factor

    def weigh(self, replies, seed, iteration):
        return [Weighed(np.asarray(self.factor, float)) for _ in replies]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (Broken([1, 1.1, 1]), "mean"),
        (Broken([1, 1.1, 1], "batch"), "mean"),
        (Broken([1, 1, 2.1], "nothing"), "outside"),
        (Broken([1, -1, 3]), "negative"),
        (Broken([1, np.nan, 1]), "no number"),
        (Broken([1, 1]), "one factor for each token"),
    ],
)
def test_a_rule_that_mints_is_found_out(rule, says):
    with pytest.raises(CreditError, match=says):
        apply(rule, [ScoredReply("a", np.ones(3))], seed=0, iteration=1)


def test_a_signal_that_nobody_measured_is_named():
    with pytest.raises(CreditError, match="signal waad"):
        apply(build("local_chunk"), [ScoredReply("a", np.ones(3))], seed=0, iteration=1)
