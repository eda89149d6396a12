import numpy as np
import pytest

from coterie import registry, rng
from coterie.errors import CreditError
from coterie.rewards.credit.agent import (
    Teamwork,
    agents_of,
    among_turns,
    check_shares,
    last_words,
    mean_shares,
    rewards_of,
)
from coterie.rewards.credit.influence import Attention, Stretch, weigh
from coterie.types import Message, Outcome, Place, Turn

NAMES = ("ann", "bob", "cleo")


def turn(key: str, seat: str, number: int, purpose: str = "answer") -> Turn:
    place = Place("sum", number, seat, 0, purpose)
    return Turn(key, place, "base", 0, (Message("user", "?"),), f"I say {key}", None, "stop", 1, 1)


def draw(seed: int) -> Teamwork:
    """An episode in which agents speak unequally often, with everything that a rule may need."""
    stream = rng.stream(seed, "teamwork")
    said = [(name, number) for number in range(4) for name in NAMES if not number or stream.random() < 0.5]
    turns = {f"t{i:02d}": turn(f"t{i:02d}", *place) for i, place in enumerate(said)}
    keys = list(turns)
    attention = [
        Attention(key, turns[key].place.seat, Stretch(stream.random(), 9),
                  {other: Stretch(stream.random(), 5) for other in keys[:i] if stream.random() < 0.5})
        for i, key in enumerate(keys)
    ]  # fmt: skip
    vectors = {name: stream.standard_normal(4).astype(np.float32) for name in NAMES}
    worths = {name: float(stream.integers(-2, 3)) / 4 for name in NAMES}
    influence = weigh(attention, {keys[-1]: 1.0})
    return Teamwork(Outcome(None, ()), turns, influence, vectors, worths, bool(stream.random() < 0.5))


def rule(kind: str):
    entry = registry.get("agent_credit", kind)
    return registry.load(entry.impl)(registry.load(entry.config)())


@pytest.mark.parametrize("kind", registry.names("agent_credit"))
@pytest.mark.parametrize("seed", range(10))
def test_shares_sum_to_one_and_turns_earn_the_team_reward_on_average(kind, seed):
    work = draw(seed)
    shares = rule(kind).share(work)
    check_shares(shares, work.turns, "episode")
    assert min(shares.values()) >= 0
    assert np.mean(list(rewards_of(shares, 2.5).values())) == pytest.approx(2.5)


def test_equal_shares_are_equal_among_agents_and_not_among_turns():
    turns = {"a": turn("a", "ann", 0), "b": turn("b", "bob", 0), "c": turn("c", "bob", 1)}
    assert rule("equal").share(Teamwork(Outcome(None, ()), turns)) == {"a": 0.5, "b": 0.25, "c": 0.25}


def test_psi_favours_who_is_near_to_all_and_gives_nothing_to_who_is_opposed():
    turns = {name[0]: turn(name[0], name, 0) for name in NAMES}
    vectors = {"ann": np.array([1.0, 0.0]), "bob": np.array([0.8, 0.6]), "cleo": np.array([-0.6, -0.8])}
    shares = rule("psi").share(Teamwork(Outcome(None, ()), turns, vectors=vectors))
    assert shares["a"] > 0 and shares["b"] > 0 and shares["c"] == 0


@pytest.mark.parametrize(("is_correct", "expected"), [(True, {"a": 1.0, "b": 0.0}), (False, {"a": 0.0, "b": 1.0})])
def test_a_right_answer_goes_to_those_who_helped_and_a_wrong_one_to_those_who_harmed(is_correct, expected):
    turns = {"a": turn("a", "ann", 0), "b": turn("b", "bob", 0)}
    worths = {"ann": 0.25, "bob": -0.5, "silent": 1.0}
    assert rule("shapley").share(Teamwork(Outcome(None, ()), turns, worths=worths, is_correct=is_correct)) == expected


def test_where_nobody_is_worth_anything_all_are_alike():
    turns = {"a": turn("a", "ann", 0), "b": turn("b", "bob", 0)}
    assert among_turns({"ann": 0.0, "bob": 0.0}, turns) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"a": 0.7, "b": 0.7}, "sum to 1.4, not to one"),
        ({"a": float("nan"), "b": 0.5}, "sum to nan"),
        ({"a": 1.0}, "other turns than it has, such as 'b'"),
        ({"a": 0.5, "b": 0.5, "x": 0.0}, "such as 'x'"),
    ],
)
def test_a_rule_that_would_mint_or_lose_reward_is_stopped(shares, says):
    turns = {"a": turn("a", "ann", 0), "b": turn("b", "bob", 0)}
    with pytest.raises(CreditError, match=says) as caught:
        check_shares(shares, turns, "episode/society/sum")
    assert caught.value.where == "episode/society/sum"


def test_shares_below_nothing_are_fine_if_they_sum_to_one():
    check_shares({"a": 1.5, "b": -0.5}, {"a": turn("a", "ann", 0), "b": turn("b", "bob", 0)}, "episode")


def test_attention_that_was_not_measured_is_said():
    with pytest.raises(CreditError, match="not measured"):
        rule("attention").share(Teamwork(Outcome(None, ()), {"a": turn("a", "ann", 0)}))


def test_an_agent_s_last_word_is_the_one_it_stands_by_or_else_the_last_one_it_said():
    turns = {"a": turn("a", "ann", 0), "c": turn("c", "ann", 1, "rate"), "b": turn("b", "bob", 0, "critique")}
    assert last_words(Outcome(None, ({"ann": "a"},)), turns) == {"ann": "a", "bob": "b"}
    assert agents_of(turns) == {"ann": ["a", "c"], "bob": ["b"]}


def test_mean_shares_count_absence_as_nothing():
    assert mean_shares([{"ann": 1.0}, {"ann": 0.5, "bob": 0.5}]) == {"ann": 0.75, "bob": 0.25}
