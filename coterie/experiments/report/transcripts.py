"""Which conversations a reader is shown, and how they are laid out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coterie.experiments.measures.opinions import first_vote
from coterie.experiments.measures.replies import by_round, correct_answers, question_of, said_answers, state
from coterie.experiments.records.run import Episode, Member, RunRecord
from coterie.types import Message, Turn

HOW_CHOSEN = (
    "From all groups, in this order: the first episode where most first answers agreed on a wrong one and the group "
    "ended right; the first where they agreed on a right one and it ended wrong; and an ordinary one, that of median "
    "length among the episodes that ended as their first vote stood. First means the largest first majority, then the "
    "order of the groups and of the tasks; no two are on one task while there are others."
)


@dataclass(frozen=True, slots=True)
class Bubble:
    """One turn as shown. `purpose` and `state` are empty where they go without saying: an answer, no answer.

    `request` is what the agent was asked last.
    """

    agent: str
    purpose: str
    color: int
    text: str
    answer: str | None
    state: str
    request: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """One episode as shown."""

    title: str
    society: str
    task: str
    question: str
    rounds: tuple[tuple[int, tuple[Bubble, ...]], ...]
    """Each round's number and every turn of it, whatever for, in the order of the seats."""
    answer: str | None
    is_correct: bool
    decision: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    member: Member
    episode: Episode
    votes: int
    """For the first vote's answer; 0 where no answer had most votes."""
    was_right: bool
    length: int
    """Tokens generated."""

    @property
    def is_mended(self) -> bool:
        return bool(self.votes) and not self.was_right and self.episode.is_correct

    @property
    def is_spoiled(self) -> bool:
        return self.was_right and not self.episode.is_correct


def choose_transcripts(record: RunRecord) -> list[Transcript]:
    """Up to three episodes that teach something, as `HOW_CHOSEN` says; the same for the same facts."""
    candidates = [
        _candidate(record, member, episode)
        for member in record.societies
        if not member.is_baseline
        for _, episode in sorted(record.episodes[member.label].items())
        if episode.outcome.rounds
    ]
    chosen: dict[str, _Candidate] = {}
    for title, choose in _KINDS.items():
        taken = {c.episode.task for c in chosen.values()}
        fresh = [c for c in candidates if c.episode.task not in taken]
        best = choose(fresh) or choose([c for c in candidates if c not in chosen.values()])
        if best is not None:
            chosen[title] = best
    return [_lay_out(record, c.member, c.episode, title) for title, c in chosen.items()]


def _candidate(record: RunRecord, member: Member, episode: Episode) -> _Candidate:
    answer, votes = first_vote(said_answers(record, episode)[0], is_alone=len(member.agents) == 1)
    was_right = answer is not None and answer in correct_answers(record, episode)
    length = sum(turn.num_tokens for turn in record.turns_of(episode))
    return _Candidate(member, episode, votes, was_right, length)


def _mended(candidates: list[_Candidate]) -> _Candidate | None:
    return max((c for c in candidates if c.is_mended), key=lambda c: c.votes, default=None)


def _spoiled(candidates: list[_Candidate]) -> _Candidate | None:
    return max((c for c in candidates if c.is_spoiled), key=lambda c: c.votes, default=None)


def _ordinary(candidates: list[_Candidate]) -> _Candidate | None:
    plain = [c for c in candidates if not c.is_mended and not c.is_spoiled] or candidates
    ranked = sorted(plain, key=lambda c: c.length)
    return ranked[(len(ranked) - 1) // 2] if ranked else None


_KINDS: dict[str, Callable[[list[_Candidate]], _Candidate | None]] = {
    "Mended: most were wrong at first, the group ends right": _mended,
    "Spoiled: most were right at first, the group ends wrong": _spoiled,
    "Ordinary: the group ends where its first vote stood": _ordinary,
}


def _lay_out(record: RunRecord, member: Member, episode: Episode, title: str) -> Transcript:
    seats = {agent.name: i for i, agent in enumerate(member.agents)}
    turns, outcome = record.turns_of(episode), episode.outcome
    rounds = []
    for number, mine in by_round(turns):
        mine.sort(key=lambda turn: seats.get(turn.place.seat, len(seats)))
        rounds.append((number, tuple(_bubble(record, turn, seats.get(turn.place.seat, 0)) for turn in mine)))
    return Transcript(
        title, member.label, episode.task, question_of(turns), tuple(rounds), outcome.answer, episode.is_correct,
        outcome.decision,
    )  # fmt: skip


def _bubble(record: RunRecord, turn: Turn, color: int) -> Bubble:
    seat, is_answer = turn.place.seat, turn.place.purpose == "answer"
    asked = [m.content for m in turn.prompt if isinstance(m, Message) and m.role == "user"]
    return Bubble(
        seat, "" if is_answer else turn.place.purpose, color, turn.text, turn.answer,
        state(record.verdict(turn.key)) if is_answer else "", asked[-1] if asked else "",
    )  # fmt: skip
