"""An episode's replies: what was said in which round, how agents stood after it, and whether it was right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby, pairwise
from typing import TypeVar

from coterie.experiments.measures.opinions import Read
from coterie.experiments.records.run import Episode, RunRecord
from coterie.types import Edge, Message, Turn, Verdict

T = TypeVar("T")
STATES = ("right", "wrong", "unparsed")


def state(verdict: Verdict) -> str:
    """`right`, `wrong` or `unparsed`."""
    return "unparsed" if not verdict.is_parsed else "right" if verdict.correct else "wrong"


def said(episode: Episode) -> list[dict[str, str]]:
    """For each round, the keys of the answers given in it, by agent; whoever kept silent is not there."""
    return [
        {agent: key for agent, key in after.items() if before.get(agent) != key}
        for before, after in pairwise(({}, *episode.outcome.rounds))
    ]


def said_verdicts(record: RunRecord, episode: Episode) -> list[dict[str, Verdict]]:
    """For each round, the verdicts on the answers given in it."""
    return [{agent: record.verdict(key) for agent, key in keys.items()} for keys in said(episode)]


def said_answers(record: RunRecord, episode: Episode) -> list[dict[str, str | None]]:
    """For each round, the parsed answers given in it."""
    return [{agent: v.answer for agent, v in verdicts.items()} for verdicts in said_verdicts(record, episode)]


def answers_of(record: RunRecord, episode: Episode) -> list[dict[str, str | None]]:
    """For each round, the parsed answer by which each agent stands after it, silent ones too."""
    return [{agent: v.answer for agent, v in verdicts.items()} for verdicts in record.rounds(episode)]


def correct_answers(record: RunRecord, episode: Episode) -> set[str]:
    """Those answers of an episode's turns that were judged right."""
    verdicts = (record.verdict(key) for turns in episode.outcome.rounds for key in turns.values())
    return {v.answer for v in verdicts if v.correct and v.answer is not None}


def read_of(record: RunRecord, episode: Episode) -> list[Read]:
    """For each round, what agents had read before they answered; of several answers of one peer, its latest.

    Edges of journals that do not name the turn that was read mean the peer's answer of the round before.
    """
    rounds = episode.outcome.rounds
    found: list[dict[str, dict[str, str | None]]] = [{} for _ in rounds]
    edges = [edge for edge in episode.outcome.edges if edge.purpose == "answer" and edge.round < len(rounds)]
    # Keys of turns begin with their places, so that the latest comes last.
    for edge in sorted(edges, key=lambda edge: edge.turn):
        read = found[edge.round].setdefault(edge.target, {})
        key = _turn_read(edge, rounds)
        if key in record.turns and record.turns[key].place.purpose == "answer":
            read[edge.source] = record.verdict(key).answer
    return list(found)


def _turn_read(edge: Edge, rounds: tuple[Mapping[str, str], ...]) -> str:
    return edge.turn or (rounds[edge.round - 1].get(edge.source, "") if edge.round else "")


def latest_of(rounds: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """By what each agent stands at the end, in the order of their first answers."""
    return {agent: standing for moment in rounds for agent, standing in moment.items()}


def last_turns(record: RunRecord, episode: Episode) -> list[Turn]:
    """Each agent's last turn, in the order of their first ones."""
    return [record.turns[key] for key in latest_of(episode.outcome.rounds).values() if key in record.turns]


def by_round(turns: Iterable[Turn]) -> list[tuple[int, list[Turn]]]:
    """A conversation: each round's number with its turns, in logical order and whatever they were for."""
    ordered = sorted(turns, key=lambda turn: (turn.place, turn.key))
    return [(number, list(mine)) for number, mine in groupby(ordered, key=lambda turn: turn.place.round)]


def question_of(turns: Iterable[Turn]) -> str:
    """What the first answer of an episode was asked for; empty where there is none, or its prompt is bare token ids."""
    answers = sorted((t for t in turns if t.place.purpose == "answer"), key=lambda turn: (turn.place, turn.key))
    prompt = answers[0].prompt if answers else ()
    return next((m.content for m in prompt if isinstance(m, Message) and m.role == "user"), "")
