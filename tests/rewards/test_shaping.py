import pytest

from coterie.rewards.base import WorkedEpisode
from coterie.rewards.config_rewards import MaporlConfig
from coterie.rewards.mixture import mix
from coterie.rewards.shaping import Maporl, margin, quality
from coterie.types import Outcome, Place, Task, Turn, Verdict


def worked(rounds, *, final=True, timed_out=()):
    """`rounds`: for each round whether each seat was right."""
    turns = [
        Turn(f"{seat}{number}", Place("t", number, seat), "base", 0, (), "", "", "stop", 9, 3)
        for number, said in enumerate(rounds) for seat in said
    ]  # fmt: skip
    verdicts = {
        t.key: Verdict("", rounds[t.place.round][t.place.seat], timed_out=t.key in timed_out) for t in turns
    }  # fmt: skip
    return WorkedEpisode(Task("t", "?"), Outcome(None, ()), {t.key: t for t in turns}, verdicts, Verdict("", final))


def score(episode, **fields):
    return dict(Maporl(MaporlConfig(**fields)).score(episode))


def test_the_two_forms_of_the_change():
    assert quality(1, 0.75) == 0.75 and quality(0, 0.75) == -0.25
    assert margin(1, 0.75) == 0.25 and margin(0, 0.75) == -0.75


@pytest.mark.parametrize(("form", "right", "wrong"), [("quality", 0.75, -0.25), ("margin", 0.25, -0.75)])
def test_a_second_round_is_shaped_by_the_first(form, right, wrong):
    first = {"a": True, "b": True, "c": True, "d": False}
    found = score(worked([first, {"a": True, "b": False}]), form=form)
    assert found == {"a0": 1, "b0": 1, "c0": 1, "d0": 0, "a1": 1 + right / 2, "b1": 0 + wrong / 2}


def test_the_past_may_be_the_agents_own():
    episode = worked([{"a": True, "b": False}, {"a": False, "b": True}])
    assert score(episode, form="margin", past="own") == {"a0": 1, "b0": 0, "a1": 0 - 0.5, "b1": 1 + 0.5}


def test_all_earlier_rounds_are_the_past():
    episode = worked([{"a": True}, {"a": False}, {"a": True}])
    assert score(episode, form="quality", alpha=1.0)["a2"] == 1.5


def test_everybody_may_share_the_verdict_on_the_society():
    assert score(worked([{"a": True, "b": False}]), beta=0.25) == {"a0": 1.25, "b0": 0.25}
    assert score(worked([{"a": True}], final=False), beta=0.25) == {"a0": 1}


def test_an_answer_whose_grading_was_ended_is_in_no_reward():
    episode = worked([{"a": True, "b": False}, {"a": True}], timed_out=("b0",))
    assert score(episode, form="margin") == {"a0": 1, "a1": 1}


def test_a_mixture_is_the_weighted_sum():
    rewards = {"verifier": {"a": 1.0, "b": 0.0}, "interaction": {"a": 0.5, "c": -1.0}}
    assert mix(rewards, {"verifier": 2.0, "interaction": 0.5}) == {"a": 2.25, "b": 0.0, "c": -0.5}


def test_nothing_is_learnt_of_turns_that_only_a_reward_of_weight_zero_is_given_to():
    rewards = {"verifier": {"a": 1.0, "b": 1.0}, "interaction": {"b": 0.5}}
    assert mix(rewards, {"verifier": 0.0, "interaction": 1.0}) == {"b": 0.5}


def test_a_reward_without_a_weight_is_an_error():
    with pytest.raises(KeyError):
        mix({"verifier": {}}, {})
