"""Rewards and calibration of whole societies: scripted ones that are played, and toy ones that learn."""

from collections import Counter

import numpy as np
import pytest

from coterie import rng
from coterie.orchestration import records
from coterie.orchestration.protocols.config_comas import ComasConfig
from coterie.rewards.advantage import RewardedTurn
from coterie.rewards.base import WorkedEpisode
from coterie.rewards.config_advantages import ReinforcePlusPlusConfig
from coterie.rewards.config_rewards import InteractionConfig
from coterie.rewards.estimators import ReinforcePlusPlus
from coterie.rewards.interaction import Interaction
from coterie.rewards.judge import calibrate, read_rulings
from coterie.testing.stage import play
from coterie.types import Outcome, Place, Task, Turn, Verdict

REPLIES = tuple(f"Answer: {i % 5}\nScore: {i % 5}" for i in range(40))


@pytest.fixture(scope="module", params=["faithful", "release"])
def episodes(request):
    """What a journal holds of episodes whose replies are drawn by lot: some scores are out of range."""
    with play(ComasConfig(preset=request.param), engine={"replies": REPLIES, "context": 1 << 16}) as journal:
        turns = {fact.key: records.read_turn(fact.key, fact.payload) for fact in journal.facts("turn")}
        verdicts = {f.key.removeprefix("verdict/"): Verdict(**f.payload) for f in journal.facts("verdict")}
        outcomes = [records.read_outcome(fact.payload) for fact in journal.facts("episode")]
    return [
        WorkedEpisode(Task("t", "?"), outcome, {key: turns[key] for key in outcome.turns}, verdicts, Verdict("", False))
        for outcome in outcomes
    ]  # fmt: skip


def test_every_turn_of_a_society_that_judges_itself_is_rewarded_by_the_rules(episodes):
    for episode in episodes:
        rewards = Interaction(InteractionConfig()).score(episode)
        assert rewards.keys() == episode.turns.keys()
        for row in episode.outcome.extra["judgements"]:
            given = [rewards[row[name]] for name in ("solution", "evaluation", "scoring")]
            score = row["score"]
            assert given == ([0, 0, -1] if score is None else [(score - 1) / 2, (3 - score) / 2, 0])


def test_the_calibration_of_a_played_society_is_what_its_journal_says(episodes):
    rulings = [one for e in episodes for one in read_rulings(e.outcome, e.turns, e.verdicts)]
    rows = [(e, row) for e in episodes for row in e.outcome.extra["judgements"]]
    counts = Counter((e.verdicts[row["solution"]].correct, row["score"]) for e, row in rows)
    found = calibrate(rulings)
    assert found.right == tuple(counts[True, score] for score in (1, 2, 3))
    assert found.wrong == tuple(counts[False, score] for score in (1, 2, 3))
    assert found.num_unread == counts[True, None] + counts[False, None] > 0


# A toy society: tabular policies that choose between two things to say, and learn by REINFORCE from the real rewards.
# A plain solution gets by half of the time; an ornate one convinces whoever is not paid for doubting.
PLAIN, ORNATE = 0, 1
PASS, OBJECT = 0, 1
ROLES = ("answer", "evaluate", "score")


class Tabular:
    """One logit for the second of two choices, for each role."""

    def __init__(self):
        self.logits = dict.fromkeys(ROLES, 0.0)

    def probability(self, role):
        return 1 / (1 + np.exp(-self.logits[role]))

    def learn(self, said, advantages, rate=1.0):
        for role in ROLES:
            mine = [key for key, (r, _) in said.items() if r == role and key in advantages]
            gain = [float(advantages[key][0]) * (said[key][1] - self.probability(role)) for key in mine]
            self.logits[role] += rate * float(np.mean(gain)) if gain else 0.0


def judge(solution, objects, draw):
    """What a score says that follows an evaluation: objections to ornate solutions hold."""
    if objects:
        return 1 if solution == ORNATE or draw < 0.5 else 3
    return 3


def play_toy(ablation, iterations=60, batch=40):
    """The solvers' mean reward over the first and over the last iterations."""
    policy, reward, seen = Tabular(), Interaction(InteractionConfig()), []
    estimator = ReinforcePlusPlus(ReinforcePlusPlusConfig())
    for t in range(iterations):
        said, rewards = {}, {}
        for i in range(batch):
            choose = rng.uniforms(0, ablation, t, i, count=4)
            solution, evaluation, scoring = (int(choose[n] < policy.probability(r)) for n, r in enumerate(ROLES))
            keys = {role: f"{i}/{role}" for role in ROLES}
            row = {"solution": keys["answer"], "evaluation": keys["evaluate"], "scoring": keys["score"]}
            if ablation == "no evaluation":
                row |= {"evaluation": None, "score": 1 if scoring == OBJECT else 3}
            elif ablation == "no scoring":
                row |= {"scoring": None, "score": 1 if evaluation == OBJECT and solution == PLAIN else 3}
            else:
                row |= {"score": judge(solution, evaluation == OBJECT, choose[3])}
            turns = {key: Turn(key, Place(str(i), 0, "a", purpose=role), "p", 0, (), "said", None, "stop", 1, 1)
                     for role, key in keys.items()}  # fmt: skip
            outcome = Outcome(None, (), extra={"judgements": [row]})
            rewards |= reward.score(WorkedEpisode(Task(str(i), "?"), outcome, turns, {}, Verdict(None, False)))
            said |= {keys[r]: (r, c) for r, c in zip(ROLES, (solution, evaluation, scoring), strict=True)}
        earned = [RewardedTurn(key, "p", "a", said[key][0], "g", 0, value, 1) for key, value in rewards.items()]
        policy.learn(said, estimator.estimate(earned, {}).advantages)
        seen.append(np.mean([value for key, value in rewards.items() if said[key][0] == "answer"]))
    return float(np.mean(seen[:5])), float(np.mean(seen[-10:]))


def test_without_evaluations_a_toy_society_grows_ever_stricter():
    first, last = play_toy("no evaluation")
    assert first > 0.3 and last < 0.1


def test_without_scorings_a_toy_society_ends_up_endorsing_everything():
    first, last = play_toy("no scoring")
    assert first < 0.85 and last > 0.95


def test_with_both_a_toy_society_does_neither():
    _, last = play_toy("none")
    assert 0.2 < last < 0.8
