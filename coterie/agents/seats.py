"""Who sits where: from the seats of a YAML file to the agents of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coterie.agents.personas import resolve_persona
from coterie.config.schema import SeatConfig
from coterie.types import Message


@dataclass(frozen=True, slots=True)
class Agent:
    """The thing that sits at a seat at run time. `persona` is the text of its system message; empty for none."""

    name: str
    policy: str
    persona: str = ""

    def preamble(self) -> tuple[Message, ...]:
        """The messages that every prompt of this agent begins with."""
        return (Message("system", self.persona),) if self.persona else ()


def expand(seats: Iterable[SeatConfig]) -> tuple[Agent, ...]:
    """One agent per seat, or `name-1` to `name-n` for `count: n`, in the order of the file."""
    agents = []
    for seat in seats:
        persona = resolve_persona(seat.persona)
        agents += [Agent(name, seat.policy, persona) for name in seat.agents]
    return tuple(agents)
