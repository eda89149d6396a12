import pytest

from coterie.errors import CreditError
from coterie.orchestration.harvest import PlayedEpisode
from coterie.orchestration.jobs import Job
from coterie.orchestration.protocols.config import SingleConfig
from coterie.orchestration.team_credit import TeamCredit, describe_credit
from coterie.rewards.credit.agent import Equal
from coterie.rewards.credit.config_agent import EqualCreditConfig
from coterie.testing.stage import AGENTS
from coterie.types import Message, Outcome, Place, Task, Turn, Verdict

TURNS = {
    name: Turn(name, Place("sum", 0, name), "base", 0, (Message("user", "?"),), "4", "4", "stop", 1, 1)
    for name in ("ann", "bob")
}
JOB = Job("debate", Task("sum", "2 + 2?"), AGENTS, SingleConfig(), 0)


def played(is_correct=True, turns=TURNS, rewards=None):
    verdict = Verdict("4", is_correct)
    return PlayedEpisode(Outcome("4", (dict.fromkeys(turns, "x"),)), verdict, turns, {}, rewards or {})


def credit(rule=None, weights=None, **config):
    made = EqualCreditConfig(**config)
    return TeamCredit(rule or Equal(made), made, weights or {})


def test_turns_earn_their_shares_of_what_the_verdict_is_worth():
    shared = credit(right=2.0, wrong=-1.0).share(None, [JOB, JOB], [played(), played(is_correct=False)])
    assert [one.rewards for one in shared] == [{"ann": 2.0, "bob": 2.0}, {"ann": -1.0, "bob": -1.0}]


def test_what_a_turn_was_given_itself_can_be_added():
    rewards = {"verifier": {"ann": 1.0, "bob": 0.0}, "ttrl": {"bob": 1.0}}
    team = credit(weights={"verifier": 1.0, "ttrl": 2.0}, own=0.5)
    assert team.share(None, [JOB], [played(rewards=rewards)])[0].rewards == {"ann": 1.5, "bob": 2.0}


def test_a_rule_of_a_plugin_that_mints_reward_is_stopped_before_anything_is_learnt():
    class Generous:
        needs = frozenset()

        def share(self, work):
            return dict.fromkeys(work.turns, 1.0)

    with pytest.raises(CreditError, match="sum to 2, not to one") as caught:
        credit(Generous()).share(None, [JOB], [played()])
    assert caught.value.where == JOB.key


def test_an_episode_without_turns_earns_nothing():
    assert credit().share(None, [JOB], [played(turns={})]) == []


def test_an_iteration_is_described_by_mean_shares():
    shared = credit().share(None, [JOB, JOB], [played(), played(turns={"ann": TURNS["ann"]})])
    assert describe_credit(shared) == {"shares": {"ann": 0.75, "bob": 0.25}, "missing": 0, "unread": 0}
