"""Which conversations a reader is shown, and how they are laid out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coterie.experiments.opinions import classify_trajectories
from coterie.experiments.record import Episode, Member, RunRecord
from coterie.experiments.societies import answers_of, correct_answers, state
from coterie.types import Message, Turn

_WANTED = (
    ("corrected", "Corrected: an agent that was wrong ends right", ("corrected",)),
    ("spoiled", "Spoiled: an agent that was right ends wrong", ("spoiled",)),
    ("constant", "Constant: nobody changes between right and wrong", ("always_right", "always_wrong")),
)


@dataclass(frozen=True, slots=True)
class Bubble:
    """One turn as shown. `request` is what the agent was asked last."""

    agent: str
    color: int
    persona: str
    text: str
    answer: str | None
    state: str
    request: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """One episode as shown."""

    title: str
    task: str
    question: str
    rounds: tuple[tuple[Bubble, ...], ...]
    answer: str | None
    is_correct: bool
    decision: str


def choose_transcripts(record: RunRecord, member: Member) -> list[Transcript]:
    """Up to three episodes: the first with a corrected agent, with a spoiled one, and where nobody moves.

    Of several that fit, those where the society's own answer shows the same come first; then the first task.
    """
    chosen: dict[str, Transcript] = {}
    episodes = [e for _, e in sorted(record.episodes[member.label].items()) if e.outcome.rounds]
    for name, title, classes in _WANTED:
        fitting = [e for e in episodes if e.task not in chosen and _fits(record, e, name, classes)]
        if fitting:
            best = min(fitting, key=lambda e: e.is_correct != (name != "spoiled"))
            chosen[best.task] = _lay_out(record, member, best, title)
    return list(chosen.values())


def _fits(record: RunRecord, episode: Episode, name: str, classes: tuple[str, ...]) -> bool:
    rounds, right = answers_of(record, episode), correct_answers(record, episode)
    found = classify_trajectories(rounds, right.__contains__).values()
    return all(c in classes for c in found) if name == "constant" else any(c in classes for c in found)


def _lay_out(record: RunRecord, member: Member, episode: Episode, title: str) -> Transcript:
    agents = {agent.name: (i, agent.persona) for i, agent in enumerate(member.agents)}
    rounds = []
    for keys in episode.outcome.rounds:
        names = sorted(keys, key=lambda name: agents.get(name, (len(agents), ""))[0])
        turns = [(name, record.turns[keys[name]]) for name in names if keys[name] in record.turns]
        rounds.append(tuple(_bubble(record, name, *agents.get(name, (0, "")), turn) for name, turn in turns))
    question = next((bubble.request for bubbles in rounds for bubble in bubbles), "")
    outcome = episode.outcome
    return Transcript(
        title, episode.task, question, tuple(rounds), outcome.answer, episode.is_correct, outcome.decision
    )


def _bubble(record: RunRecord, name: str, index: int, persona: str, turn: Turn) -> Bubble:
    request = next(reversed(list(_user_texts(turn))), "")
    return Bubble(name, index, persona, turn.text, turn.answer, state(record.verdict(turn.key)), request)


def _user_texts(turn: Turn) -> Iterator[str]:
    return (m.content for m in turn.prompt if isinstance(m, Message) and m.role == "user")
