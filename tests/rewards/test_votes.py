import pytest

from coterie.rewards.base import WorkedEpisode
from coterie.rewards.config_rewards import CoRlConfig, TtrlConfig
from coterie.rewards.votes import CoRl, Ttrl, majority
from coterie.types import Outcome, Place, Task, Turn, Verdict


def worked(*said, policies=None, continues=None):
    """Each of `said`: seat, round, answer. Keys are seat and round."""
    turns = [
        Turn(
            f"{seat}{number}", Place("t", number, seat), (policies or {}).get(seat, "base"), 0, (), "", answer, "stop",
            9, 3, continues=(continues or {}).get(f"{seat}{number}"),
        )
        for seat, number, answer in said
    ]  # fmt: skip
    return WorkedEpisode(Task("t", "?"), Outcome(None, ()), {t.key: t for t in turns}, {}, Verdict(None, False))


def test_the_majority_is_the_most_frequent_answer_if_there_is_one():
    assert majority(["4", "5", "4", None, None, None]) == "4"
    assert majority(["4", "5"]) is majority([None]) is majority([]) is None


def test_co_rl_labels_a_policy_by_the_majority_of_the_others():
    # One policy says 4, 5, 5, the other 4, 4, 5: each is labelled by the other.
    said = [("a", 0, "4"), ("b", 0, "5"), ("c", 0, "5"), ("x", 0, "4"), ("y", 0, "4"), ("z", 0, "5")]
    episode = worked(*said, policies=dict.fromkeys("abc", "one") | dict.fromkeys("xyz", "two"))
    assert CoRl(CoRlConfig()).score(episode) == {"a0": 1, "b0": 0, "c0": 0, "x0": 0, "y0": 0, "z0": 1}


def test_co_rl_may_label_an_agent_by_the_other_agents():
    episode = worked(("a", 0, "4"), ("b", 0, "4"), ("c", 0, "5"))
    # Of c the others agree on 4; a and b see a tie.
    assert CoRl(CoRlConfig(voters="other_agents")).score(episode) == {"c0": 0}
    assert CoRl(CoRlConfig()).score(episode) == {}


def test_ttrl_labels_all_by_the_majority_of_all():
    episode = worked(("a", 0, "4"), ("b", 0, "4"), ("c", 0, "5"), ("d", 0, None))
    assert Ttrl(TtrlConfig()).score(episode) == {"a0": 1, "b0": 1, "c0": 0, "d0": 0}


def test_a_tie_labels_nobody():
    assert Ttrl(TtrlConfig()).score(worked(("a", 0, "4"), ("b", 0, "5"))) == {}


@pytest.mark.parametrize(("over", "expected"), [("round", {"a0": 1, "b0": 1, "a1": 1, "b1": 1}),
                                                ("episode", {})])  # fmt: skip
def test_votes_are_counted_by_round_or_over_the_episode(over, expected):
    episode = worked(("a", 0, "4"), ("b", 0, "4"), ("a", 1, "5"), ("b", 1, "5"))
    assert Ttrl(TtrlConfig(over=over)).score(episode) == expected


def test_of_a_reply_in_pieces_only_the_last_one_votes():
    episode = worked(("a", 0, "4"), ("a", 1, "5"), ("b", 1, "5"), continues={"a1": "a0"})
    assert Ttrl(TtrlConfig(over="episode")).score(episode) == {"a1": 1, "b1": 1}
