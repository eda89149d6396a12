"""A toy society that learns from its discussion: what becomes of it where a step of the discussion is left out.

Agents have a trait for each part: how persuasively they solve, how readily they object, and how strict they are when
they give a score, which persuasion lowers and objections raise. Traits follow the rewards of the turns that show them
(REINFORCE with the mean as its baseline).
"""

import asyncio
import math
import re
from dataclasses import dataclass, field

import pytest

from coterie import rng
from coterie.agents.seats import Agent
from coterie.orchestration.protocols.comas import Comas
from coterie.orchestration.protocols.config_comas import ComasConfig
from coterie.rewards.base import WorkedEpisode
from coterie.rewards.config_rewards import InteractionConfig
from coterie.rewards.interaction import Interaction
from coterie.types import Place, Task, Turn, Verdict

AGENTS = [Agent(name, "base") for name in "ann bob cleo dora".split()]
TASK, UNKNOWN = Task("sum", "What is 3 + 4?"), Verdict(None, False)
SWAY, RATE, BATCHES, EPISODES = 3.0, 0.8, 30, 4


def chance(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@dataclass
class Society:
    """The `ask` of a society that learns; each turn is a choice of yes or no."""

    seed: int = 0
    traits: dict[tuple[str, str], float] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)
    choices: dict[str, tuple[tuple[str, str], bool, float]] = field(default_factory=dict)
    """By turn the trait that it shows, whether the answer was yes, and the chance that it would be."""

    async def __call__(self, agent, prompt, *, round, repeat=0, purpose="answer", said=(), choices=()) -> Turn:
        place = Place(TASK.id, round, agent.name, repeat, purpose)
        shown = re.findall(r"<<<\n(.*?)\n>>>", prompt[-1].content, re.DOTALL)
        gives_score = "Score" in prompt[-1].content
        kind = "strict" if gives_score else {"answer": "persuades", "evaluate": "objects"}[purpose]
        logit = self.traits.setdefault((agent.name, kind), math.log(0.2 / 0.8))
        swayed = logit
        if gives_score:
            # Scorers are shown the solution and its evaluation, evaluators the solution last.
            solution, remarks = (shown[-1], "") if purpose == "evaluate" else (shown[0], "".join(shown[1:]))
            swayed += SWAY * (("I object" in remarks) - ("Clearly" in solution))
        yes = bool(rng.uniforms(self.seed, "toy", str(place), count=1)[0] < chance(swayed))
        text = {"persuades": ("It is 7.", "Clearly it is 7."), "objects": ("Well done.", "I object."),
                "strict": ("Score: 3", "Score: 1")}[kind][yes]  # fmt: skip
        turn = Turn(str(place), place, agent.policy, 0, prompt, text, "7", "stop", 1, 1)
        self.turns[turn.key], self.choices[turn.key] = turn, ((agent.name, kind), yes, chance(swayed))
        return turn

    async def learn(self, config: ComasConfig) -> list[float]:
        """The mean reward of solutions, batch by batch."""
        curve = []
        for batch in range(BATCHES):
            earned = [reward for i in range(EPISODES) for reward in await self._play(config, batch * EPISODES + i)]
            curve.append(self._adapt(earned))
        return curve

    async def _play(self, config: ComasConfig, seed: int) -> list[tuple[tuple[str, str], bool, float, float]]:
        self.seed, self.turns, self.choices = seed, {}, {}
        outcome = await Comas(config).run(TASK, AGENTS, self)
        worked = WorkedEpisode(TASK, outcome, self.turns, {}, UNKNOWN)
        return [(*self.choices[key], reward) for key, reward in Interaction(InteractionConfig()).score(worked).items()]

    def _adapt(self, earned: list[tuple[tuple[str, str], bool, float, float]]) -> float:
        means = {}
        for kind in {trait[1] for trait, *_ in earned}:
            rewards = [reward for trait, *_, reward in earned if trait[1] == kind]
            means[kind] = sum(rewards) / len(rewards)
        for trait, yes, expected, reward in earned:
            self.traits[trait] += RATE * (reward - means[trait[1]]) * (yes - expected)
        return means["persuades"]


def curve(**fields) -> list[float]:
    return asyncio.run(Society().learn(ComasConfig(**fields)))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("preset", ["faithful", "release"])
def test_the_whole_discussion_keeps_its_level(preset):
    rewards = curve(preset=preset)
    assert 0.6 < mean(rewards[:8]) < 0.9
    assert 0.6 < mean(rewards[-8:]) < 0.9


@pytest.mark.parametrize("preset", ["faithful", "release"])
def test_without_evaluation_judges_grow_strict_and_the_reward_falls(preset):
    rewards = curve(preset=preset, evaluations=0)
    assert mean(rewards[:2]) > 0.6
    assert mean(rewards[-8:]) < 0.1


@pytest.mark.parametrize("preset", ["faithful", "release"])
def test_without_scoring_all_endorse_each_other_and_the_reward_goes_to_one(preset):
    rewards = curve(preset=preset, scoring=False)
    assert mean(rewards[:2]) < 0.9
    assert mean(rewards[-8:]) > 0.93
