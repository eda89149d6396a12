"""How the agents of one society behaved towards each other, and how sure the society was. Made from facts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie.experiments.measures import opinions
from coterie.experiments.measures.consistency import (
    MEASURES,
    auroc,
    calibration_error,
    likelihood_semantic_entropy,
    reply_confidence,
)
from coterie.experiments.measures.replies import answers_of, correct_answers, latest_of, read_of, said_answers
from coterie.experiments.records.run import Episode, Member, RunRecord

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Talk:
    """One episode as the measures of opinion take it: by round what was said and read, and which answers are right."""

    episode: Episode
    said: list[dict[str, str | None]]
    read: list[opinions.Read]
    right: set[str]

    @classmethod
    def of(cls, record: RunRecord, episode: Episode) -> _Talk:
        return cls(episode, said_answers(record, episode), read_of(record, episode), correct_answers(record, episode))


def behaviour_facts(record: RunRecord, member: Member, episodes: Sequence[Episode]) -> Row:
    """Social-psychology measures and internal consistency of a society; see docs/metrics.md for each formula."""
    talks = [_Talk.of(record, e) for e in episodes if e.outcome.rounds]
    several = [talk for talk in talks if len(talk.said) > 1]
    return {
        **_opinions(member, several),
        "majority_rule": _majority_rule(member, talks),
        "opinion_change": _changes(several),
        "self_update": _self_update(several),
        "consistency": _consistency(record, [talk.episode for talk in talks]),
    }


def _opinions(member: Member, several: Sequence[_Talk]) -> Row:
    influences = [opinions.measure_influence(talk.said, talk.read, talk.right.__contains__) for talk in several]
    trajectories: Counter[str] = Counter()
    for talk in several:
        trajectories.update(opinions.classify_trajectories(talk.said, talk.right.__contains__).values())
    names = list(dict.fromkeys([*(a.name for a in member.agents), *(a for i in influences for a in i.agents)]))
    matrices = {kind: np.zeros((len(names), len(names))) for kind in ("exposed", "total", "beneficial", "harmful")}
    for influence in influences:
        place = np.ix_(*[[names.index(agent) for agent in influence.agents]] * 2)
        for kind, matrix in matrices.items():
            matrix[place] += getattr(influence, kind)
    return {
        "conformity": {
            "peers": _conformity(several, counts_self=False),
            "peers_and_self": _conformity(several, counts_self=True),
        },
        "persuasion": {"agents": names, **{kind: matrix.tolist() for kind, matrix in matrices.items()}},
        "trajectories": {name: trajectories[name] for name in opinions.TRAJECTORIES},
    }


def _conformity(talks: Sequence[_Talk], *, counts_self: bool) -> Row:
    total, exposed = Counter[str](), 0
    for talk in talks:
        for found in opinions.measure_conformity(
            talk.said, talk.read, talk.right.__contains__, counts_self=counts_self
        ):
            exposed += found.exposed
            total.update(found.conforming)
    counts = {kind: total[kind] for kind in opinions.TRANSITIONS}
    return {"exposed": exposed, "conforming": sum(counts.values()), **counts,
            "is_beneficial": opinions.is_beneficial(counts)}  # fmt: skip


def _majority_rule(member: Member, talks: Sequence[_Talk]) -> Row:
    """Whether the society's answer is what most agents had answered at first, by right and wrong."""
    kinds = Counter[str]()
    for talk in talks:
        answer, votes = opinions.first_vote(talk.said[0], is_alone=len(member.agents) == 1)
        if votes:
            before, after = ("right" if right else "wrong" for right in (answer in talk.right, talk.episode.is_correct))
            kinds["followed"] += answer == talk.episode.outcome.answer
            kinds[f"{before}_to_{after}"] += 1
    moves = ("right_to_right", "right_to_wrong", "wrong_to_right", "wrong_to_wrong")
    return {"tasks": len(talks), "with_majority": sum(kinds[m] for m in moves), "followed": kinds["followed"],
            **{m: kinds[m] for m in moves}}  # fmt: skip


def _changes(several: Sequence[_Talk]) -> list[Row]:
    """Opinion change in each round after the first, summed over the tasks."""
    rows: dict[int, Counter[str]] = {}
    for talk in several:
        steps = opinions.count_transitions(talk.said, talk.right.__contains__)
        for change, kinds in zip(opinions.measure_changes(talk.said, talk.read), steps, strict=True):
            row = rows.setdefault(change.round, Counter())
            row.update(kinds)
            row.update({name: getattr(change, name) for name in _COUNTS})
    names = (*_COUNTS, *opinions.TRANSITIONS)
    return [{"round": number, **{name: row[name] for name in names}} for number, row in sorted(rows.items())]


def _self_update(several: Sequence[_Talk]) -> Row:
    """How often agents changed their minds without having read anybody, and where to."""
    alone = sum(c.alone for talk in several for c in opinions.measure_changes(talk.said, talk.read))
    kinds = Counter[str]()
    for talk in several:
        kinds.update(opinions.count_self_updates(talk.said, talk.read, talk.right.__contains__))
    changed = kinds.total()
    return {
        "access": "black box", "alone": alone, "changed": changed, "share": changed / alone if alone else None,
        "right_to_wrong": kinds["TF"], "wrong_to_right": kinds["FT"],
    }  # fmt: skip


_COUNTS = ("read", "changed_after_reading", "alone", "changed_alone")


def _consistency(record: RunRecord, episodes: Sequence[Episode]) -> Row:
    """Each measure round by round, and on every agent's latest answer, over the tasks where two agents spoke."""
    found = [(e, answers_of(record, e)) for e in episodes]
    played = [(e, rounds, latest) for e, rounds in found if len(latest := latest_of(rounds)) > 1]
    length = max((len(rounds) for _, rounds, _ in played), default=0)
    rows = {}
    for name, measure in MEASURES.items():
        tables = [
            [measure.of(list(rounds[r].values())) for _, rounds, _ in played if len(rounds) > r and len(rounds[r]) > 1]
            for r in range(length)
        ]
        last = [measure.of(list(latest.values())) for _, _, latest in played]
        correct = [e.is_correct for e, _, _ in played]
        rows[name] = {
            "access": measure.access,
            "rounds": [mean_of(values) for values in tables],
            **usefulness(last, correct, measure.sign, is_share=measure.is_share),
        }
    return {"tasks": len(played), "measures": rows}


def grey_measures(record: RunRecord, logprobs: Mapping[str, Sequence[float]]) -> dict[str, Row]:
    """What token probabilities say of each society's last answers; empty where the engine gave none.

    Log-probabilities are telemetry, so these measures are no facts of the run.

    Args:
        record: The run.
        logprobs: Of each turn's sampled tokens, in nats, by the turn's key.
    """
    found = {}
    for member in record.societies:
        judged = [e for _, e in sorted(record.episodes[member.label].items()) if not e.is_excluded]
        last = [(e, latest_of(e.outcome.rounds)) for e in judged]
        known = [(e, list(keys.values())) for e, keys in last if keys and all(key in logprobs for key in keys.values())]
        if not known:
            continue
        rows = [[logprobs[key] for key in keys] for _, keys in known]
        answers = [[record.verdict(key).answer for key in keys] for _, keys in known]
        correct = [e.is_correct for e, _ in known]
        confidence = [reply_confidence(row) for row in rows]
        entropy = [likelihood_semantic_entropy(a, row) for a, row in zip(answers, rows, strict=True)]
        found[member.label] = {
            "reply_confidence": {"access": "grey box", **usefulness(confidence, correct, 1, is_share=True)},
            "likelihood_semantic_entropy": {"access": "grey box", **usefulness(entropy, correct, -1, is_share=False)},
        }
    return found


def usefulness(values: Sequence[float], correct: Sequence[bool], sign: int, *, is_share: bool) -> Row:
    """Mean, AUROC against correctness (values that are nan left out), and for shares the calibration error."""
    known = [(value, right) for value, right in zip(values, correct, strict=True) if not np.isnan(value)]
    scores, rights = [value for value, _ in known], [right for _, right in known]
    return {
        "last": mean_of(scores),
        "auroc": auroc([sign * value for value in scores], rights),
        "ece": calibration_error(scores, rights) if is_share else None,
    }


def mean_of(values: Sequence[float]) -> float:
    """The mean of what is not nan; nan if that is nothing."""
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
