"""Agent credit in a training: every episode's team reward becomes rewards of its turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from coterie import registry
from coterie.agents.engines.tokens import load_tokenizers
from coterie.config.schema import ExperimentConfig
from coterie.journal import Fact, Journal
from coterie.orchestration import replay
from coterie.orchestration.embedding import embed_now
from coterie.orchestration.harvest import PlayedEpisode
from coterie.orchestration.influence import Measured, Reader, Settings, measure_influence
from coterie.orchestration.jobs import Job
from coterie.orchestration.spans import Speller
from coterie.rewards.credit.agent import (
    AgentCredit,
    Teamwork,
    agents_of,
    check_shares,
    last_words,
    mean_shares,
    rewards_of,
)
from coterie.rewards.credit.config_agent import AgentCreditConfig
from coterie.rewards.credit.influence import by_agent
from coterie.rewards.judge import is_decided
from coterie.rewards.mixture import mix

_DIGITS = 9
"""Of what is journalled: the last bits of a float32 mean say nothing."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What became of the team reward of one episode.

    Attributes:
        episode: The episode.
        rewards: What each turn earned, by key.
        shares: Of the team reward, by agent.
        fact: The same for the journal, with who read whose words if that was measured.
        missing: Messages that were read, and found in no prompt.
        unread: Turns whose attention was not measured.
    """

    episode: PlayedEpisode
    rewards: Mapping[str, float]
    shares: Mapping[str, float]
    fact: Fact
    missing: int = 0
    unread: int = 0


def _rewarded(jobs: Sequence[Job], episodes: Sequence[PlayedEpisode]) -> list[tuple[Job, PlayedEpisode]]:
    """Those with a team reward to share: somebody spoke, and it is known whether the answer is right."""
    pairs = zip(jobs, episodes, strict=True)
    return [(job, episode) for job, episode in pairs if episode.turns and is_decided(episode.verdict)]


@dataclass(slots=True)
class TeamCredit:
    """Shares team rewards by a rule.

    Attributes:
        rule: See `rewards.credit.agent`.
        config: Its config.
        weights: Of each reward in what a turn is given for itself.
        readers: Learners by policy, whose attention is read.
        spellers: Tokenizers by policy.
    """

    rule: AgentCredit
    config: AgentCreditConfig
    weights: Mapping[str, float]
    readers: Mapping[str, Reader] = field(default_factory=dict)
    spellers: Mapping[str, Speller] = field(default_factory=dict)

    @classmethod
    def make(
        cls, experiment: ExperimentConfig, weights: Mapping[str, float], learners: Mapping[str, Reader]
    ) -> TeamCredit | None:
        """As the section `credit` says; None if it names no rule for agents.

        Raises:
            EnvironmentMissing: An embedder or a tokenizer is missing.
        """
        config = experiment.credit.agent if experiment.credit is not None else None
        if config is None:
            return None
        rule: AgentCredit = registry.impl("agent_credit", config.kind)(config)
        if "vectors" in rule.needs:
            embed_now(cast(Any, config).embedder, ["ready"])
        spellers: Mapping[str, Speller] = {}
        if "influence" in rule.needs:
            spellers = load_tokenizers({name: experiment.policies[name].model for name in learners})
        return cls(rule, cast(AgentCreditConfig, config), weights, learners, spellers)

    def replays(self, jobs: Sequence[Job], episodes: Sequence[PlayedEpisode]) -> list[Job]:
        """The replays that have to be in the journal before `share`; none for most rules."""
        if "worths" not in self.rule.needs:
            return []
        count = cast(Any, self.config).draws
        return [
            one
            for job, played in _rewarded(jobs, episodes)
            for masks, draws in replay.needed(self.config.kind, len(job.agents), count)
            for one in replay.plan(job, played, masks, draws)
        ]

    def share(self, journal: Journal, jobs: Sequence[Job], episodes: Sequence[PlayedEpisode]) -> list[Shared]:
        """What the turns of each episode earn that has a team reward: turns, and a verdict that is known.

        Raises:
            CreditError: A rule would mint or lose reward, or could not be measured.
            LearningError: A model's attention cannot be read.
            JournalError: A replay is missing.
        """
        pairs = _rewarded(jobs, episodes)
        measured: Sequence[Measured | None] = [None] * len(pairs)
        if "influence" in self.rule.needs:
            config = cast(Any, self.config)
            settings = Settings(config.layers, config.sinks, config.per_token)
            measured = measure_influence([episode for _, episode in pairs], self.readers, self.spellers, settings)
        return [self._share(journal, *pair, found) for pair, found in zip(pairs, measured, strict=True)]

    def _share(self, journal: Journal, job: Job, episode: PlayedEpisode, measured: Measured | None) -> Shared:
        vectors = self._embed(episode) if "vectors" in self.rule.needs else {}
        worths = self._weigh(journal, job) if "worths" in self.rule.needs else {}
        influence = measured.influence if measured else None
        work = Teamwork(episode.outcome, episode.turns, influence, vectors, worths, episode.verdict.correct)
        shares = dict(self.rule.share(work))
        check_shares(shares, episode.turns, job.key)
        team = self.config.right if episode.verdict.correct else self.config.wrong
        rewards = rewards_of(shares, team)
        if self.config.own:
            given = mix(episode.rewards, self.weights)
            rewards = {key: earned + self.config.own * given.get(key, 0.0) for key, earned in rewards.items()}
        agents = by_agent(shares, {key: turn.place.seat for key, turn in episode.turns.items()})
        fact = self._fact(job, team, shares, agents, measured)
        if worths:
            fact.payload["worths"] = _rounded(worths)
        missing, unread = (measured.missing, measured.unread) if measured else (0, 0)
        return Shared(episode, rewards, agents, fact, missing, unread)

    def _embed(self, episode: PlayedEpisode) -> dict[str, Any]:
        """Each agent's last word."""
        last = last_words(episode.outcome, episode.turns)
        vectors = embed_now(cast(Any, self.config).embedder, [episode.turns[key].text for key in last.values()])
        return dict(zip(agents_of(episode.turns), vectors, strict=True))

    def _weigh(self, journal: Journal, job: Job) -> dict[str, float]:
        """What the result owes to each agent, the mean over draws."""
        replayed = replay.Replayed(journal, job.society, job.task.id)
        values = replayed.credit(self.config.kind, len(job.agents), cast(Any, self.config).draws)
        return {agent.name: float(value) for agent, value in zip(job.agents, values.mean(axis=1), strict=True)}

    def _fact(
        self, job: Job, team: float, shares: Mapping[str, float], agents: Mapping[str, float], measured: Measured | None
    ) -> Fact:
        payload: dict[str, Any] = {
            "credit": self.config.kind, "society": job.society, "task": job.task.id, "reward": team,
            "turns": _rounded(shares), "agents": _rounded(agents),
        }  # fmt: skip
        if measured is not None:
            payload["edges"] = [
                {"source": source, "reader": reader, "weight": round(weight, _DIGITS)}
                for source, reader, weight in measured.influence.edges()
            ]
            payload |= {"missing": measured.missing, "unread": measured.unread}
        return Fact(f"credit/{job.society}/{job.task.id}", "credit", payload)


def describe_credit(shared: Sequence[Shared]) -> dict[str, Any]:
    """Of an iteration: each agent's mean share, and how much of it could not be measured."""
    return {
        "shares": mean_shares([one.shares for one in shared]),
        "missing": sum(one.missing for one in shared),
        "unread": sum(one.unread for one in shared),
    }


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, _DIGITS) for name, share in shares.items()}
