"""What passes between the driver and its workers: jobs in, requests and outcomes out. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from coterie.agents.seats import Agent
from coterie.orchestration.protocols.config import ProtocolConfig
from coterie.types import Messages, Outcome, Place, Sample, Sampling, Sight, Task, TokenIds, Turn

Spot = tuple[int, str, str]
"""Round, seat and purpose of a turn."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The beginning of a reply, which goes on anew from there."""

    place: Place
    """Of the turn in the episode."""
    text: str
    token_ids: TokenIds


@dataclass(frozen=True, slots=True)
class Replay:
    """How a finished episode is worked once more: who says nothing, and whose tokens are drawn anew.

    Turns that are not drawn anew are drawn as in the episode; those whose prompt has not changed either are its own.
    """

    task: str
    """Id of the task that the episode worked; that of the replay's own task names the replay."""
    hidden: frozenset[str] = frozenset()
    """Agents that say nothing: empty replies without an answer, which no engine is asked for."""
    redrawn: frozenset[str] = frozenset()
    """Agents whose turns are drawn anew, but for those at `kept`."""
    kept: frozenset[Spot] = frozenset()
    draw: int = 0
    """Which new draw it is; 0 is the episode's own."""
    begun: Begun | None = None
    """A turn that is given up to some token, and drawn anew from there."""

    def begins(self, place: Place) -> bool:
        """Whether it is the turn there, of any task, that is given in part."""
        return self.begun is not None and self.begun.place[1:] == place[1:]


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to run: a task worked by a society."""

    society: str
    task: Task
    agents: tuple[Agent, ...]
    protocol: ProtocolConfig
    seed: int = 0
    """The experiment's, for counted draws of the protocol."""
    replay: Replay | None = None
    """An episode that is worked once more; see `orchestration.replay`."""

    @property
    def kind(self) -> str:
        """Of the fact that it ends with: replays are in no metric of a run."""
        return "replay" if self.replay else "episode"

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.society}/{self.task.id}"


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question about an episode that is over. Its turn is none of the episode's, and none of the society's cost.

    `place` is that of the turn it is about, with a purpose of its own (`judge`, ...), never `answer`.
    """

    place: Place
    policy: str
    prompt: Messages = field(repr=False)
    sampling: Sampling | None = None
    """How the reply is drawn; None is the policy's own way."""


@dataclass(frozen=True, slots=True)
class Examination:
    """All inquiries about one finished episode; they are made at once, by a worker that runs no protocol."""

    job: Job
    outcome: Outcome
    inquiries: tuple[Inquiry, ...]

    @property
    def key(self) -> str:
        return self.job.key

    @property
    def task(self) -> Task:
        return self.job.task


Work = Job | Examination


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """Hard limits for each episode, on all turns it uses."""

    tokens: int | None = None
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A turn that an episode waits for, or several that are said side by side: by one call, or not at all.

    `cost` is the most tokens they can take, prompts and replies.
    """

    key: str
    place: Place
    policy: str
    cost: int
    sampling: Sampling | None = None
    """How the reply is drawn: in the policy's own way, or as an inquiry wants it."""
    sight: Sight | None = None
    """What those see of each other who speak side by side; None: one speaks."""
    others: tuple[str, ...] = ()
    """Keys of the turns beside the first."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all turns."""
        return (self.key, *self.others)


@dataclass(frozen=True, slots=True)
class Performed:
    """A generated turn, not yet committed, with its telemetry."""

    turn: Turn
    sample: Sample
    seconds: float


@dataclass(slots=True)
class Report:
    """What came of a step: turns now waited for, finished episodes, and the turns that inquiries were answered by."""

    requests: list[Request] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    answers: dict[str, tuple[Turn, ...]] = field(default_factory=dict)
    """By the key of the examination, in the order of its inquiries."""
