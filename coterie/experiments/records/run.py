"""A run as its journal tells it, in memory: societies, tasks, episodes, turns, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from coterie.agents.seats import Agent
from coterie.journal import Journal
from coterie.orchestration import records
from coterie.types import Outcome, Turn, Verdict

_NO_VERDICT = Verdict(None, correct=False)


@dataclass(frozen=True, slots=True)
class Member:
    """One society of a run: its name and who sits in it."""

    label: str
    is_baseline: bool
    agents: tuple[Agent, ...]


@dataclass(frozen=True, slots=True)
class Episode:
    """One task worked by one society, to its end."""

    society: str
    task: str
    outcome: Outcome
    is_correct: bool
    is_excluded: bool = False
    """A model was to judge, and no label came of it: the episode counts in no rate."""
    features: Mapping[str, str] = field(default_factory=dict)
    """Of the task, where its benchmark gives any."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What a judge model called each part of the answer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a probe found of one agent after one episode."""

    about: str
    """Key of the turn by whose answer the agent stands."""
    turns: tuple[str, ...]
    """Keys of the replies to the probe."""
    values: tuple[float | None, ...]
    """The confidence in each, from 0 to 1; None is unparsed."""
    is_constrained: bool
    """The engine let it say nothing but one of the choices."""

    @property
    def confidence(self) -> float | None:
        """Mean of what was parsed; None where nothing was."""
        known = [value for value in self.values if value is not None]
        return sum(known) / len(known) if known else None


Probed = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Reading]]]]


@dataclass(frozen=True)
class RunRecord:
    """All facts of a run, complete or not.

    `episodes[label][task]` holds finished episodes only. Everything is in the order of its keys, so that numbers made
    from it are the same for equal facts.
    """

    facts: Mapping[str, Any]
    digest: str
    turns: Mapping[str, Turn]
    verdicts: Mapping[str, Verdict]
    episodes: Mapping[str, Mapping[str, Episode]] = field(default_factory=dict)
    rewards: Mapping[str, Mapping[str, tuple[Mapping[str, float], ...]]] = field(default_factory=dict)
    """`rewards[name][label]`: for each finished episode, the reward of its turns by key."""
    probes: Probed = field(default_factory=dict)
    """`probes[name][label][task][agent]`."""

    @cached_property
    def societies(self) -> tuple[Member, ...]:
        """In the order of the config, the baselines last."""
        return tuple(
            Member(s["label"], s["is_baseline"], tuple(Agent(**agent) for agent in s["agents"]))
            for s in self.facts.get("societies", ())
        )

    @cached_property
    def complete_tasks(self) -> tuple[str, ...]:
        """Tasks that every society has finished."""
        finished = [self.episodes[s.label].keys() for s in self.societies]
        return tuple(sorted(set.intersection(*map(set, finished)))) if finished else ()

    def turns_of(self, episode: Episode) -> list[Turn]:
        """Every turn the episode asked for, in logical order."""
        found = [self.turns[key] for key in episode.outcome.turns if key in self.turns]
        return sorted(found, key=lambda turn: (turn.place, turn.key))

    def verdict(self, key: str) -> Verdict:
        """The verdict on a turn; a turn that none was given on counts as unparsed."""
        return self.verdicts.get(key, _NO_VERDICT)

    def rounds(self, episode: Episode) -> list[dict[str, Verdict]]:
        """For each round, the verdict on each agent's turn."""
        return [{agent: self.verdict(key) for agent, key in turns.items()} for turns in episode.outcome.rounds]


def whole_replies(turns: Iterable[Turn]) -> list[Turn]:
    """Those turns whose reply no other of them goes on with, token for token (as Group Think's chunks do)."""
    turns = list(turns)
    begun = {turn.continues for turn in turns}
    return [turn for turn in turns if turn.key not in begun]


def read_record(journal: Journal) -> RunRecord:
    """Read all facts of an open journal."""
    facts = journal.get("run") or {}
    episodes: dict[str, dict[str, Episode]] = {s["label"]: {} for s in facts.get("societies", ())}
    for fact in journal.facts("episode"):
        found = _episode(fact.payload)
        episodes.setdefault(found.society, {})[found.task] = found
    rewards: dict[str, dict[str, tuple[Mapping[str, float], ...]]] = {}
    for fact in journal.facts("reward"):
        given = rewards.setdefault(fact.payload["reward"], {})
        given[fact.payload["society"]] = (*given.get(fact.payload["society"], ()), fact.payload["turns"])
    verdicts = {f.key.removeprefix("verdict/"): Verdict(**f.payload) for f in journal.facts("verdict")}
    turns = {f.key: records.read_turn(f.key, f.payload) for f in journal.facts("turn")}
    return RunRecord(facts, journal.digest(), turns, verdicts, episodes, rewards, _probes(journal))


def read_part(journal: Journal, is_wanted: Callable[[str], bool]) -> RunRecord:
    """The same of the episodes of some tasks, without rewards and probes: nothing of the others is read but names."""
    facts = journal.get("run") or {}
    found = [_episode(fact.payload) for fact in journal.facts("episode") if is_wanted(fact.payload["task"])]
    keys = list(dict.fromkeys(key for episode in found for key in episode.outcome.turns))
    said = {key: records.read_turn(key, journal.get(key) or {}) for key in keys}
    given = {key: journal.get(f"verdict/{key}") for key in keys}
    verdicts = {key: Verdict(**payload) for key, payload in given.items() if payload is not None}
    episodes: dict[str, dict[str, Episode]] = {s["label"]: {} for s in facts.get("societies", ())}
    for episode in found:
        episodes.setdefault(episode.society, {})[episode.task] = episode
    return RunRecord(facts, journal.digest(), said, verdicts, episodes)


def _probes(journal: Journal) -> Probed:
    found: dict[str, dict[str, dict[str, Mapping[str, Reading]]]] = {}
    for fact in journal.facts("probe"):
        name, society, task, agents = (fact.payload[field] for field in ("probe", "society", "task", "agents"))
        found.setdefault(name, {}).setdefault(society, {})[task] = {
            agent: Reading(row["about"], tuple(row["turns"]), tuple(row["readings"]), row["constrained"])
            for agent, row in agents.items()
        }
    return found


def _episode(payload: dict[str, Any]) -> Episode:
    outcome, verdict = records.read_outcome(payload), records.read_episode_verdict(payload)
    return Episode(
        payload["society"], payload["task"], outcome, verdict.correct, verdict.is_excluded, payload.get("features", {}),
        verdict.labels or {},
    )  # fmt: skip
