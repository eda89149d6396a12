"""How opinions moved in a society: measures of MachineSoM (arXiv 2310.02124, section 4) and who changed whose mind.

Pure functions over one task's `said`: for each round the parsed answers of the agents that spoke in it. None is an
unparsed reply: no answer, wrong, equal to nothing, reported by itself. An agent that kept silent stands by its last
answer; one that has none yet had no opinion that could move. `read` says, for each round, whose words an agent had read
before it answered (`Read`); a round in which an agent read nobody (a reflection) is no debate for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Answers = Mapping[str, str | None]
Read = Mapping[str, Answers]
"""For each agent that read peers before it answered, the answers it read, by peer; none where it read no answers."""
IsCorrect = Callable[[str], bool]
TRANSITIONS = ("TT", "FT", "TF", "FF")
"""Right (T) or wrong (F) before and after: FT is a correction, TF is right-to-wrong."""
TRAJECTORIES = ("always_right", "always_wrong", "corrected", "spoiled", "excursion", "wavering")


@dataclass(frozen=True, slots=True)
class Conformity:
    """One debate round: how many agents had a majority to follow, and how many followed it, by transition."""

    round: int
    exposed: int
    conforming: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Influence:
    """Who changed whose mind: float64 [source, target] in the order of `agents`.

    Every change of mind is one unit, shared equally by the peers whose answer was taken over.
    `beneficial` went from wrong to right, `harmful` from right to wrong; the rest of `total` from wrong to wrong.
    `exposed` counts how often the target read an answer of the source that was not its own.
    """

    agents: tuple[str, ...]
    exposed: NDArray[np.float64]
    total: NDArray[np.float64]
    beneficial: NDArray[np.float64]
    harmful: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Changes:
    """Opinion change in one step: agents that read peers, how many of them gave a new answer; the same for the others.

    A change without having read anybody is a self-update.
    """

    round: int
    read: int
    changed_after_reading: int
    alone: int
    changed_alone: int


def count_distinct(rounds: Sequence[Answers]) -> list[int]:
    """Number of distinct answers per round; unparsed replies are not among them."""
    return [len({answer for answer in answers.values() if answer is not None}) for answers in rounds]


def count_transitions(said: Sequence[Answers], is_correct: IsCorrect) -> list[dict[str, int]]:
    """For each round after the first, how many agents made each of `TRANSITIONS`."""
    return [
        _tally(_transition(before[agent], answer, is_correct) for agent, answer in after.items())
        for _, before, after in _steps(said)
    ]


def is_beneficial(conforming: Mapping[str, int]) -> bool:
    """Conforming ended right more often than wrong."""
    return conforming["FT"] + conforming["TT"] > conforming["TF"] + conforming["FF"]


def measure_conformity(
    said: Sequence[Answers], read: Sequence[Read], is_correct: IsCorrect, *, counts_self: bool = False
) -> list[Conformity]:
    """Per debate round, which agents ended on a most frequent answer of those they had read.

    The most frequent answers are taken among the peers that the agent read (variant 1), or among these and itself
    (`counts_self`, variant 2). Where no two of them agree there is nothing to conform to, save for the one peer of a
    pair. An agent that held such an answer already, and keeps it, conforms.
    """
    found = []
    for number, before, after in _steps(said):
        if not any(read[number].values()):
            continue
        exposed, kinds = 0, list[str]()
        for agent, answer in after.items():
            group = list(read[number].get(agent, {}).values())
            favourites = _favourites([*group, before[agent]] if group and counts_self else group)
            exposed += bool(favourites)
            if answer in favourites:
                kinds.append(_transition(before[agent], answer, is_correct))
        found.append(Conformity(number, exposed, _tally(kinds)))
    return found


def measure_influence(said: Sequence[Answers], read: Sequence[Read], is_correct: IsCorrect) -> Influence:
    """Who changed whose mind.

    Agent a took over an answer if it gives it, did not stand by it before, and read m > 0 peers who gave it: each of
    them gets 1/m.
    """
    agents = tuple(dict.fromkeys(agent for answers in said for agent in answers))
    index = {agent: i for i, agent in enumerate(agents)}
    exposed, total, beneficial, harmful = (np.zeros((len(agents), len(agents))) for _ in range(4))
    for number, before, after in _steps(said):
        for agent, answer in after.items():
            own, heard = before[agent], read[number].get(agent, {})
            others = {peer: theirs for peer, theirs in heard.items() if theirs not in (None, own) and peer in index}
            for peer in others:
                exposed[index[peer], index[agent]] += 1
            sources = [peer for peer, theirs in others.items() if theirs == answer]
            kind = _transition(own, answer, is_correct)
            for source in sources:
                place = index[source], index[agent]
                total[place] += 1 / len(sources)
                beneficial[place] += (kind == "FT") / len(sources)
                harmful[place] += (kind == "TF") / len(sources)
    return Influence(agents, exposed, total, beneficial, harmful)


def first_vote(first: Answers, *, is_alone: bool) -> tuple[str | None, int]:
    """The one answer most agents gave in the first round, and how many did; (None, 0) for a tie or a lone voice.

    `is_alone`: the society has one agent, whose one answer counts as its vote.
    """
    counts = Counter(answer for answer in first.values() if answer is not None).most_common(2)
    if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]):
        return None, 0
    answer, votes = counts[0]
    return (answer, votes) if votes > 1 or (is_alone and len(first) == 1) else (None, 0)


def measure_changes(said: Sequence[Answers], read: Sequence[Read]) -> list[Changes]:
    """For each round after the first: who gave another answer than before, after reading peers and alone."""
    found = []
    for number, before, after in _steps(said):
        counts = {True: [0, 0], False: [0, 0]}
        for agent, answer in after.items():
            steps = counts[agent in read[number]]
            steps[0] += 1
            # Two unparsed replies are equal to nothing, but no opinion changed between them.
            steps[1] += answer != before[agent]
        found.append(Changes(number, *counts[True], *counts[False]))
    return found


def count_self_updates(said: Sequence[Answers], read: Sequence[Read], is_correct: IsCorrect) -> dict[str, int]:
    """Steps of agents that had read nobody: those that gave another answer than they stood by, by `TRANSITIONS`."""
    return _tally(
        _transition(before[agent], answer, is_correct)
        for number, before, after in _steps(said)
        for agent, answer in after.items()
        if agent not in read[number] and answer != before[agent]
    )


def classify_trajectory(path: Sequence[bool]) -> str:
    """The class of one agent's path of right and wrong answers, one of `TRAJECTORIES`.

    `corrected`: wrong, then right to the end. `spoiled`: right, then wrong to the end. `excursion`: the same all the
    way but for one round in between. `wavering`: any other.
    """
    changes = [i for i, (x, y) in enumerate(pairwise(path)) if x != y]
    if not changes:
        return "always_right" if path[0] else "always_wrong"
    if len(changes) == 1:
        return "spoiled" if path[0] else "corrected"
    return "excursion" if len(changes) == 2 and changes[1] - changes[0] == 1 else "wavering"


def classify_trajectories(said: Sequence[Answers], is_correct: IsCorrect) -> dict[str, str]:
    """The trajectory class of every agent that answered at least twice, over its own answers from the first one on."""
    paths: dict[str, list[bool]] = {}
    for answers in said:
        for agent, answer in answers.items():
            paths.setdefault(agent, []).append(_is_right(answer, is_correct))
    return {agent: classify_trajectory(path) for agent, path in paths.items() if len(path) > 1}


def _steps(said: Sequence[Answers]) -> Iterator[tuple[int, Answers, Answers]]:
    """For each round after the first: how agents stood before it, and the new answers of those that had one then."""
    standing: dict[str, str | None] = {}
    for number, answers in enumerate(said):
        if number:
            yield number, standing, {agent: answer for agent, answer in answers.items() if agent in standing}
        standing = {**standing, **answers}


def _is_right(answer: str | None, is_correct: IsCorrect) -> bool:
    return answer is not None and is_correct(answer)


def _transition(before: str | None, after: str | None, is_correct: IsCorrect) -> str:
    return "".join("T" if _is_right(answer, is_correct) else "F" for answer in (before, after))


def _tally(kinds: Iterable[str]) -> dict[str, int]:
    counts = Counter(kinds)
    return {kind: counts[kind] for kind in TRANSITIONS}


def _favourites(answers: Sequence[str | None]) -> set[str]:
    counts = Counter(answer for answer in answers if answer is not None)
    top = max(counts.values(), default=0)
    return {answer for answer, count in counts.items() if count == top} if top >= min(2, len(answers) or 1) else set()
