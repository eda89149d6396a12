"""Counterfactual replays: a finished episode worked once more, with agents hidden or drawn anew.

A replay is a job like any other: journalled, budgeted, batched with all that waits, resumed. Its task's id is that of
the episode's, then `%`, the draw, and a letter for each agent: `1` speaks, `0` is hidden, `r` is drawn anew. Its turns
stand at the places of the episode's own or, those that are drawn anew, at places of the task `id%draw`. So randomness
is common: two replays differ only by what their difference causes, and every turn that it does not reach is found in
the journal.

In draw k > 0 of a coalition all turns that read somebody are drawn anew; those that read nobody stay. What is valued
are the messages of this episode, not those that might have been. Draw 0 with nobody hidden is the episode itself.

Another kind of replay gives one turn up to some token, and draws it anew from there, with all turns of later rounds.
Its task's id ends with the draw, a hash of that turn's key and the number of tokens that were given.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.agents.seats import Agent
from coterie.errors import JournalError
from coterie.journal import Journal
from coterie.orchestration.harvest import PlayedEpisode
from coterie.orchestration.jobs import Begun, Job, Replay, Spot
from coterie.orchestration.turns import CANARY
from coterie.rewards import shapley
from coterie.rewards.credit import replay as credit
from coterie.types import Messages, Outcome, Place, Task, Turn

Floats = NDArray[np.float64]
SPEAKS, HIDDEN, REDRAWN = "1", "0", "r"
_SIGN, _NOTHING = "%", "hidden/"
_SUFFIX = re.compile(rf"{_SIGN}\d+(\.([{SPEAKS}{HIDDEN}{REDRAWN}]+|[0-9a-f]{{16}}\+\d+))?$")


# What a worker does otherwise in a replay.


def task_worked(job: Job) -> Task:
    """The task as the protocol is given it, which counts its own draws by the task's id."""
    return replace(job.task, id=job.replay.task) if job.replay else job.task


def place_of(job: Job, place: Place) -> Place:
    """Where a turn of the job stands, by which its tokens are drawn."""
    replay = job.replay
    if replay is None:
        return place
    spot = place.round, place.seat, place.purpose
    # Canaries change nothing that is replayed, so they keep their draws.
    may_change = place.seat in replay.redrawn and spot not in replay.kept and not place.purpose.startswith(CANARY)
    is_new = replay.begins(place) or replay.draw > 0 and may_change
    return place._replace(task=f"{replay.task}{_SIGN}{replay.draw}" if is_new else replay.task)


def say_nothing(place: Place, agent: Agent, prompt: Messages) -> Turn:
    """The turn of a hidden agent; it is in no journal."""
    return Turn(f"{_NOTHING}{place}", place, agent.policy, 0, prompt, "", None, "stop", 0, 0, token_ids=())


def without_hidden(outcome: Outcome, job: Job) -> Outcome:
    """The outcome of a replay, where nobody reads a hidden agent and none stands by what it did not say."""
    if job.replay is None:
        return outcome
    rounds = tuple({name: key for name, key in row.items() if not key.startswith(_NOTHING)} for row in outcome.rounds)
    hidden = job.replay.hidden
    edges = tuple(e for e in outcome.edges if not hidden & {e.source, e.target})
    return replace(outcome, rounds=rounds, edges=edges)


# Which replays there are.


def task_of(task: str) -> str:
    """The id of the task that was worked, from that of a replay or of a turn in it; any other is itself."""
    return _SUFFIX.sub("", task)


def everybody(num_agents: int) -> str:
    """The mask under which nobody is hidden."""
    return SPEAKS * num_agents


def all_but_one(num_agents: int) -> list[str]:
    """For each agent the mask that hides it alone."""
    return [_with(num_agents, i, HIDDEN) for i in range(num_agents)]


def one_redrawn(num_agents: int) -> list[str]:
    """For each agent the mask that draws it alone anew."""
    return [_with(num_agents, i, REDRAWN) for i in range(num_agents)]


def coalitions(num_agents: int) -> list[str]:
    """The masks of all coalitions, in the order of `shapley.coalitions`.

    Raises:
        ConfigError: there are too many.
    """
    return ["".join(SPEAKS if is_in else HIDDEN for is_in in row) for row in shapley.coalitions(num_agents)]


def needed(kind: str, num_agents: int, draws: int) -> list[tuple[Sequence[str], range]]:
    """Masks, with the draws of each, of the replays that a credit is made from.

    Args:
        kind: `leave_one_out`, `shapley` or `counterfactual`; the draws of the last masks are those of the credit.
        num_agents: N.
        draws: How many. Where agents are drawn anew, draw 0 would be the episode's own.
    """
    whole = everybody(num_agents)
    if kind == "shapley":
        return [(coalitions(num_agents), range(draws))]
    if kind == "counterfactual":
        return [([whole], range(1)), (one_redrawn(num_agents), range(1, draws + 1))]
    return [([whole, *all_but_one(num_agents)], range(draws))]


def _with(num_agents: int, index: int, letter: str) -> str:
    return SPEAKS * index + letter + SPEAKS * (num_agents - index - 1)


def sources(played: PlayedEpisode) -> frozenset[Spot]:
    """Where an episode's turns stand that read nobody."""
    readers = {(edge.round, edge.target, edge.purpose) for edge in played.outcome.edges}
    places = (turn.place for turn in played.turns.values())
    return frozenset({(p.round, p.seat, p.purpose) for p in places} - readers)


def plan(job: Job, played: PlayedEpisode, masks: Iterable[str], draws: Sequence[int]) -> list[Job]:
    """The replays of an episode under these masks, each once for every draw.

    Args:
        job: The episode's.
        played: As it ended.
        masks: A letter for each agent, in the order of the job's.
        draws: By number; 0 is the episode's own.
    """
    kept = sources(played)
    return [_replay(job, kept, mask, draw) for mask in masks for draw in draws]


def begin(job: Job, played: PlayedEpisode, turn: Turn, begun: Begun, draws: Sequence[int]) -> list[Job]:
    """The replays of an episode in which a turn is given up to some token, each once for every draw.

    Args:
        job: The episode's.
        played: As it ended.
        turn: One of its turns.
        begun: The beginning of that turn.
        draws: By number, from 1.
    """
    others = (one.place for one in played.turns.values())
    kept = frozenset((p.round, p.seat, p.purpose) for p in others if p.round <= turn.place.round)
    names = frozenset(agent.name for agent in job.agents)
    which = hashlib.sha256(turn.key.encode()).hexdigest()[:16]
    return [
        replace(
            job,
            task=replace(job.task, id=_name(job.task.id, f"{which}+{len(begun.token_ids)}", draw)),
            replay=Replay(job.task.id, redrawn=names, kept=kept, draw=draw, begun=begun),
        )
        for draw in draws
    ]


def _replay(job: Job, kept: frozenset[Spot], mask: str, draw: int) -> Job:
    names = [agent.name for agent in job.agents]
    of = {letter: frozenset(n for n, m in zip(names, mask, strict=True) if m == letter) for letter in (HIDDEN, REDRAWN)}
    # Where single agents are drawn anew all others keep their draws; else everybody who read somebody is.
    redrawn, stay = (of[REDRAWN], frozenset[Spot]()) if of[REDRAWN] else (frozenset(names), kept)
    how = Replay(job.task.id, of[HIDDEN], redrawn, stay, draw)
    return replace(job, task=replace(job.task, id=_name(job.task.id, mask, draw)), replay=how)


def _name(task: str, what: str, draw: int) -> str:
    return f"{task}{_SIGN}{draw}.{what}"


# What they were worth.


class Replayed:
    """The finished replays of one episode.

    Args:
        journal: Which has them.
        society: Who worked it.
        task: Id of its task.
    """

    def __init__(self, journal: Journal, society: str, task: str) -> None:
        self._journal, self._society, self._task = journal, society, task

    def read(self, mask: str, draw: int) -> Mapping[str, Any]:
        """The fact of one replay.

        Raises:
            JournalError: it is not finished.
        """
        key = f"replay/{self._society}/{_name(self._task, mask, draw)}"
        found: Mapping[str, Any] | None = self._journal.get(key)
        if found is None:
            raise JournalError(f"the replay {key!r} is not in the journal", where=str(self._journal.path),
                               remedy="replay the episode first")  # fmt: skip
        return found

    def values(self, masks: Sequence[str], draws: Sequence[int]) -> Floats:
        """The verdicts on the society's answers, 1 or 0, [len(masks), len(draws)]."""
        return np.array([[float(self.read(mask, draw)["correct"]) for draw in draws] for mask in masks])

    def last_answers(self, mask: str, draw: int) -> dict[str, str | None]:
        """What each agent answered that spoke, when it last stood by an answer."""
        rounds = self.read(mask, draw)["rounds"]
        return {name: (self._journal.get(key) or {})["answer"] for name, key in rounds[-1].items()} if rounds else {}

    # Credits of N agents, draw by draw [N, D]; see `rewards.credit.replay`.

    def credit(self, kind: str, num_agents: int, draws: int) -> Floats:
        """Of every agent, from the replays that are `needed`."""
        ways = {
            "leave_one_out": self.leave_one_out, "shapley": self.shapley_value, "counterfactual": self.counterfactual
        }  # fmt: skip
        return ways[kind](num_agents, needed(kind, num_agents, draws)[-1][1])

    def leave_one_out(self, num_agents: int, draws: Sequence[int]) -> Floats:
        """Of every agent; N + 1 coalitions."""
        [whole] = self.values([everybody(num_agents)], draws)
        return credit.leave_one_out(whole, self.values(all_but_one(num_agents), draws))

    def shapley_value(self, num_agents: int, draws: Sequence[int]) -> Floats:
        """Of every agent; 2^N coalitions."""
        return credit.shapley_value(self.values(coalitions(num_agents), draws))

    def counterfactual(self, num_agents: int, draws: Sequence[int]) -> Floats:
        """Of every agent, against its messages as they were."""
        [[actual]] = self.values([everybody(num_agents)], [0])
        return credit.counterfactual(float(actual), self.values(one_redrawn(num_agents), draws))

    def sway(self, agents: Sequence[str], draws: Sequence[int]) -> Floats:
        """Of each agent, the share of the others that answer otherwise at last where it says nothing."""
        found = np.zeros((len(agents), len(draws)))
        for column, draw in enumerate(draws):
            whole = self.last_answers(everybody(len(agents)), draw)
            for row, mask in enumerate(all_but_one(len(agents))):
                alone = self.last_answers(mask, draw)
                changed = [alone.get(name) != answer for name, answer in whole.items() if name != agents[row]]
                found[row, column] = np.mean(changed) if changed else 0.0
        return found


def missing(journal: Journal, jobs: Iterable[Job], key: Callable[[Job], str] = lambda job: job.key) -> Iterator[Job]:
    """Those of which the journal has nothing yet, each once; `key` says what of a job it would have."""
    seen = set[str]()
    for job in jobs:
        where = key(job)
        if where not in seen and journal.get(where) is None:
            yield job
        seen.add(where)
