"""Self-evaluation: each agent is asked how sure it is of the answer it stands by, once the episode is over.

It is asked by its own policy, in its own conversation, and in inquiries, so that the society's turns and cost are what
they would be without. What was replied is read strictly: a reply in another form is None, never a number.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from coterie.agents.prompts import template
from coterie.journal import Fact
from coterie.orchestration.config_probes import PTrueConfig, VerbalConfidenceConfig
from coterie.orchestration.jobs import Inquiry, Job
from coterie.text import fence, join_pieces
from coterie.types import Message, Messages, Outcome, Place, Sampling, Turn

PURPOSE = "probe:"
"""What the purposes of probes' turns begin with; their names follow."""
_WORD = re.compile(r"[\s\"'`*]*(true|false)[\s\"'`*.]*", re.IGNORECASE)
_NUMBER = re.compile(r"\s*(?:confidence\s*[:=]\s*)?(\d{1,3})\s*%?[\s.]*", re.IGNORECASE)
_LONGEST = 16


@dataclass(frozen=True, slots=True)
class Speaker:
    """What a probe must know of a policy: how it draws its replies, and what its engine is able to do."""

    sampling: Sampling
    capabilities: frozenset[str]


class Probe(Protocol):
    """A question to an agent about its answer. Implementations are built as `impl(config)`."""

    def request(self, answer: str) -> str:
        """What the agent is told; `answer` is its own, and untrusted."""
        ...

    def draw(self, speaker: Speaker) -> tuple[Sampling, int]:
        """How replies are drawn, and how many."""
        ...

    def read(self, text: str) -> float | None:
        """The confidence in a reply, from 0 to 1; None if there is none in the form that was asked for."""
        ...


class PTrue:
    """Is the answer right? Drawn at temperature 1, so that the share of True is the model's own probability."""

    def __init__(self, config: PTrueConfig) -> None:
        self.config = config

    def request(self, answer: str) -> str:
        return template("probe_p_true").fill(answer=fence(answer))

    def draw(self, speaker: Speaker) -> tuple[Sampling, int]:
        choices = ("True", "False") if "choices" in speaker.capabilities else ()
        is_known = choices and "logprobs" in speaker.capabilities
        return Sampling(1.0, max_tokens=_LONGEST, choices=choices), 1 if is_known else self.config.samples

    def read(self, text: str) -> float | None:
        found = _WORD.fullmatch(text)
        return float(found[1].lower() == "true") if found else None


class VerbalConfidence:
    """A whole number from 0 to 100, in the agent's words."""

    def __init__(self, config: VerbalConfidenceConfig) -> None:
        self.config = config

    def request(self, answer: str) -> str:
        return template("probe_verbal_confidence").fill(answer=fence(answer))

    def draw(self, speaker: Speaker) -> tuple[Sampling, int]:
        return dataclasses.replace(speaker.sampling, max_tokens=_LONGEST), 1

    def read(self, text: str) -> float | None:
        found = _NUMBER.fullmatch(text)
        return int(found[1]) / 100 if found and int(found[1]) <= 100 else None


class Interviewer:
    """Makes the inquiries of all probes about an episode, and reads what is replied.

    Args:
        probes: By name.
        speakers: The policies, by name.
    """

    def __init__(self, probes: Mapping[str, Probe], speakers: Mapping[str, Speaker]) -> None:
        self._probes, self._speakers = probes, speakers

    def inquire(self, outcome: Outcome, turns: Mapping[str, Turn]) -> list[Inquiry]:
        """What agents are asked about an episode's answers.

        Args:
            outcome: The episode's.
            turns: Its answers, by key.
        """
        return [
            Inquiry(place, turn.policy, (*_conversation(turn, turns), Message("user", probe.request(turn.answer))), how)
            for name, probe in self._probes.items()
            for turn in _standing(outcome, turns).values()
            if turn.answer is not None
            for how, places in [self._places(name, turn)]
            for place in places
        ]

    def facts(self, job: Job, outcome: Outcome, turns: Mapping[str, Turn], answers: Sequence[Turn]) -> list[Fact]:
        """What each probe found: for each agent the turn that it stands by, and the readings of its replies."""
        said = {turn.place: turn for turn in answers}
        facts = []
        for name, probe in self._probes.items():
            agents = {
                agent: self._reading(name, probe, turn, said) for agent, turn in _standing(outcome, turns).items()
            }
            payload = {"probe": name, "society": job.society, "task": job.task.id, "agents": agents}
            facts.append(Fact(f"probe/{name}/{job.society}/{job.task.id}", "probe", payload))
        return facts

    def _places(self, name: str, turn: Turn) -> tuple[Sampling, list[Place]]:
        """How and where an agent is asked. An agent stands by one turn: that turn's own repeat need not be kept."""
        how, count = self._probes[name].draw(self._speakers[turn.policy])
        place = turn.place._replace(purpose=f"{PURPOSE}{name}")
        return how, [place._replace(repeat=i) for i in range(count)]

    def _reading(self, name: str, probe: Probe, turn: Turn, said: Mapping[Place, Turn]) -> dict[str, Any]:
        how, places = self._places(name, turn)
        replies = [said[place] for place in places]
        return {
            "about": turn.key,
            "turns": [reply.key for reply in replies],
            # Who was not shown everything, or was cut short, has said something else.
            "readings": [
                None if reply.num_dropped or reply.finish != "stop" else probe.read(reply.text) for reply in replies
            ],
            "constrained": bool(how.choices),
        }


def _standing(outcome: Outcome, turns: Mapping[str, Turn]) -> dict[str, Turn]:
    """For each agent that stands by an answer in the end, the turn that gave it; of several samples the first one."""
    standing = {name: turns[key] for moment in outcome.rounds for name, key in moment.items()}
    found: dict[str, Turn] = {}
    for name, turn in standing.items():
        if turn.answer is not None:
            found.setdefault(name.partition("#")[0], turn)
    return found


def _conversation(turn: Turn, turns: Mapping[str, Turn]) -> Messages:
    """What the agent was asked and replied, the pieces of a reply joined."""
    pieces, piece = [turn.text], turn
    while piece.continues is not None:
        piece = turns[piece.continues]
        pieces.append(piece.text)
    return (*cast(Messages, turn.prompt), Message("assistant", join_pieces(reversed(pieces))))
