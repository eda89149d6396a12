"""How good agents are as judges of each other: their scores against verdicts, and against what needs no verdict.

A score of 1 says that a solution is wrong; 2 and 3 say that it is right. Scores that cannot be read are counted apart,
and are in no other rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import correlation
from typing import Any

from coterie.errors import PluginError
from coterie.types import Outcome, Turn, Verdict

LEAST_RIGHT = 2
"""The least score that calls a solution right: its small faults, if any, leave the result right."""
SCORES = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A solution, and what came of judging it.

    Attributes:
        solution: Key of the turn that is judged.
        evaluation: Key of the turn that finds its faults; None: there is none.
        scoring: Key of the turn that scores; None: the evaluation gives the score itself.
        score: 1 to 3; None if none could be read.
        is_read: The score stands in the turn that was to give it; if not, there is none, or its author was asked again.
    """

    solution: str
    evaluation: str | None
    scoring: str | None
    score: int | None
    is_read: bool

    @property
    def judge(self) -> str:
        """Key of the turn that is to give the score."""
        key = self.scoring or self.evaluation
        assert key is not None
        return key


@dataclass(frozen=True, slots=True)
class Ruling:
    """A judgement, and what is known of those who made it and of what it is about.

    Attributes:
        score: 1 to 3; None if none could be read.
        is_read: See `Judgement`.
        is_right: The verdict on the solution; None: nobody knows.
        answer: What the solution answers; None: nothing, so that it is wrong whatever is right.
        task: The episode's.
        judge: The agent that gave the score.
        is_own_evaluation: The solver evaluated its own solution.
        is_own_score: The solver scored its own solution.
    """

    score: int | None
    is_read: bool
    is_right: bool | None
    answer: str | None
    task: str
    judge: str
    is_own_evaluation: bool
    is_own_score: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """Counts over rulings, and the rates that follow from them; a rate of nothing is None.

    Attributes:
        right: How many right solutions got each of the scores 1, 2, 3.
        wrong: How many wrong ones did.
        scores: How many rulings gave each score, whatever is known of their solutions.
        num_rulings: All of them.
        num_unread: Those whose judge did not give a score that could be read, at least not at once.
        num_own_evaluations: Rulings whose solver evaluated its own solution.
        num_own_scores: Rulings whose solver scored its own solution.
        unanswered: How many solutions without an answer got each of the scores.
        canaries: How many null answers did that were planted; they are in no other count.
        pairs: How many pairs of rulings on one task are on different answers, and have scores that could be read.
        pairs_passed: Those of them that both call their solutions right; one of the two is wrong.
    """

    right: tuple[int, int, int]
    wrong: tuple[int, int, int]
    scores: tuple[int, int, int]
    num_rulings: int
    num_unread: int
    num_own_evaluations: int
    num_own_scores: int
    unanswered: tuple[int, int, int]
    canaries: tuple[int, int, int]
    pairs: int
    pairs_passed: int

    def rates(self, least_right: int = LEAST_RIGHT) -> dict[str, float | None]:
        """All rates by name, as docs/metrics.md defines them; `least_right` is the least score that says right.

        Only the first four and `correlation` need verdicts; `contradictions` is always at `LEAST_RIGHT`.
        """
        called_right, called_wrong = (sum(counts[least_right - 1 :]) for counts in (self.right, self.wrong))
        num_right, num_wrong = sum(self.right), sum(self.wrong)
        recall, false_alarm = _share(called_right, num_right), _share(called_wrong, num_wrong)
        return {
            "base_rate": _share(num_right, num_right + num_wrong),
            "precision": _share(called_right, called_right + called_wrong),
            "recall": recall,
            "youden": None if recall is None or false_alarm is None else recall - false_alarm,
            "solver_reward": self.solver_reward,
            "correlation": self.correlation,
            "unread": _share(self.num_unread, self.num_rulings),
            "own_evaluations": _share(self.num_own_evaluations, self.num_rulings),
            "own_scores": _share(self.num_own_scores, self.num_rulings),
            "unanswered_passed": _share(sum(self.unanswered[least_right - 1 :]), sum(self.unanswered)),
            "canary_score": _mean_worth(self.canaries),
            "contradictions": _share(self.pairs_passed, self.pairs),
        }

    @property
    def solver_reward(self) -> float | None:
        """What solutions are worth on average."""
        return _mean_worth(self.scores)

    @property
    def correlation(self) -> float | None:
        """Pearson's, of a solution's score with its being right; None where either never varies."""
        scores = [s for counts in (self.wrong, self.right) for s, n in enumerate(counts) for _ in range(n)]
        rights = [0] * sum(self.wrong) + [1] * sum(self.right)
        return correlation(scores, rights) if min(len(set(scores)), len(set(rights))) > 1 else None


def read_judgements(outcome: Outcome) -> list[Judgement]:
    """The judgements in an outcome's `extra`; none if agents did not judge each other.

    A score that is not 1, 2 or 3 counts as unread.

    Raises:
        PluginError: a judgement lacks a turn.
    """
    try:
        return [_read(row) for row in outcome.extra.get("judgements", ())]
    except (KeyError, TypeError, ValueError) as cause:
        raise PluginError(
            f"a judgement of an episode cannot be read: {cause}", where="the outcome's `judgements`",
            remedy="give each `solution`, `evaluation`, `scoring` (turn keys; one of the two may be null) and `score`",
        ) from cause  # fmt: skip


def read_canaries(outcome: Outcome) -> list[Judgement]:
    """The judgements of null answers that were planted in an episode; `solution` is the canary's kind."""
    return [_read(row) for row in outcome.extra.get("canaries", ())]


def read_rulings(outcome: Outcome, turns: Mapping[str, Turn], verdicts: Mapping[str, Verdict]) -> list[Ruling]:
    """The judgements of one episode with what is known of them.

    Args:
        outcome: The episode's.
        turns: At least the episode's, by key.
        verdicts: By turn key; a solution without one is neither right nor wrong.
    """
    return [_rule(judgement, turns, verdicts.get(judgement.solution)) for judgement in read_judgements(outcome)]


def calibrate(rulings: Iterable[Ruling], canaries: Iterable[Judgement] = ()) -> Calibration:
    """Count rulings, and what was said of canaries: of one run, of one iteration, or of one scorer."""
    rulings = list(rulings)
    pairs = list(_contradicting(rulings))
    return Calibration(
        right=_by_score(r for r in rulings if r.is_right),
        wrong=_by_score(r for r in rulings if r.is_right is False),
        scores=_by_score(rulings),
        num_rulings=len(rulings),
        num_unread=sum(not r.is_read for r in rulings),
        num_own_evaluations=sum(r.is_own_evaluation for r in rulings),
        num_own_scores=sum(r.is_own_score for r in rulings),
        unanswered=_by_score(r for r in rulings if r.answer is None),
        canaries=_by_score(canaries),
        pairs=len(pairs),
        pairs_passed=sum(min(a, b) >= LEAST_RIGHT for a, b in pairs),
    )


def is_decided(verdict: Verdict) -> bool:
    """Whether it is known if a reply is right: no judge failed, and no deadline passed."""
    return not verdict.is_excluded and not verdict.timed_out


def _read(row: Mapping[str, Any]) -> Judgement:
    if row["evaluation"] is None and row["scoring"] is None:
        raise ValueError("nobody judges")
    score = row["score"] if row["score"] in SCORES else None
    is_read = score is not None and row.get("verdict") is None
    return Judgement(row["solution"], row["evaluation"], row["scoring"], score, is_read)


def _rule(judgement: Judgement, turns: Mapping[str, Turn], verdict: Verdict | None) -> Ruling:
    solution = turns[judgement.solution]
    seats = [key and turns[key].place.seat for key in (judgement.evaluation, judgement.scoring)]
    return Ruling(
        judgement.score,
        judgement.is_read,
        verdict.correct if verdict is not None and is_decided(verdict) else None,
        solution.answer,
        solution.place.task,
        turns[judgement.judge].place.seat,
        is_own_evaluation=seats[0] == solution.place.seat,
        is_own_score=(seats[1] or seats[0]) == solution.place.seat,
    )


def _by_score(rulings: Iterable[Ruling | Judgement]) -> tuple[int, int, int]:
    scores = [ruling.score for ruling in rulings]
    return scores.count(1), scores.count(2), scores.count(3)


def _contradicting(rulings: Iterable[Ruling]) -> Iterator[tuple[int, int]]:
    """Scores of each two solutions that cannot both be right."""
    together: dict[str, list[Ruling]] = defaultdict(list)
    for ruling in rulings:
        if ruling.answer is not None:
            together[ruling.task].append(ruling)
    for group in together.values():
        for a, b in combinations(group, 2):
            if a.answer != b.answer and a.score is not None and b.score is not None:
                yield a.score, b.score


def _mean_worth(counts: tuple[int, int, int]) -> float | None:
    """Mean of (score - 1) / 2 over so many scores of 1, 2 and 3."""
    return _share(counts[1] + 2 * counts[2], 2 * sum(counts))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
