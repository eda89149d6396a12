"""How sure the agents of a society were of the answers they stood by, and whether they knew right from wrong.

The probes' turns are none of the society's: their cost stands here, apart. Made from facts; what token probabilities
add is telemetry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coterie.experiments.measures.behaviour import usefulness
from coterie.experiments.measures.costs import Cost, cost_row, turn_costs
from coterie.experiments.records.run import Episode, Member, Reading, RunRecord

Row = dict[str, Any]


def self_evaluation_facts(record: RunRecord, member: Member, episodes: Sequence[Episode]) -> Row | None:
    """Each probe of a run on one society, see docs/metrics.md; None where there is none."""
    if not record.probes:
        return None
    asked = {name: _readings(record, name, member, episodes) for name in record.probes}
    return {
        "measures": {name: _measure(record, readings) for name, readings in asked.items()},
        "cost": cost_row(sum((_cost(record, episode) for episode in episodes), Cost())),
    }


def grey_self_evaluation(record: RunRecord, logprobs: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Row]]:
    """P(True) by society as token probabilities give it, where replies were constrained to True and False."""
    found = {}
    for member in record.societies:
        episodes = list(record.episodes[member.label].values())
        known = [
            (_probability(reading, logprobs), reading.about)
            for reading in _readings(record, "p_true", member, episodes)
            if reading.is_constrained and all(key in logprobs for key in reading.turns)
        ]
        values = [(value, about) for value, about in known if value is not None]
        if values:
            correct = [record.verdict(about).correct for _, about in values]
            row = usefulness([value for value, _ in values], correct, 1, is_share=True)
            found[member.label] = {"p_true": {"access": "grey box", "answers": len(values), **row}}
    return found


def _readings(record: RunRecord, name: str, member: Member, episodes: Sequence[Episode]) -> list[Reading]:
    """What a probe found in the episodes of a society, where the answer was judged."""
    given = record.probes.get(name, {}).get(member.label, {})
    found = [reading for episode in episodes for reading in given.get(episode.task, {}).values()]
    return [reading for reading in found if not record.verdict(reading.about).is_excluded]


def _measure(record: RunRecord, readings: Sequence[Reading]) -> Row:
    sure = [(reading.confidence, record.verdict(reading.about).correct) for reading in readings]
    known = [(value, right) for value, right in sure if value is not None]
    replies = [value for reading in readings for value in reading.values]
    row = usefulness([value for value, _ in known], [right for _, right in known], 1, is_share=True)
    return {
        "access": "black box",
        "answers": len(readings),
        "replies": len(replies),
        "unparsed_rate": replies.count(None) / len(replies) if replies else None,
        **row,
    }


def _probability(reading: Reading, logprobs: Mapping[str, Sequence[float]]) -> float | None:
    """Mean over the replies of the probability of True, each having chosen between True and False."""
    values = []
    for value, key in zip(reading.values, reading.turns, strict=True):
        if value is not None:
            said = min(1.0, math.exp(sum(logprobs[key])))
            values.append(said if value else 1 - said)
    return sum(values) / len(values) if values else None


def _cost(record: RunRecord, episode: Episode) -> Cost:
    """What the probes cost beyond the episode, whose turns an ideal prefix cache holds."""
    mine = {key for reading in _of(record, episode) for key in reading.turns}
    probes = [record.turns[key] for key in sorted(mine) if key in record.turns]
    costs = turn_costs([*record.turns_of(episode), *probes])
    return sum((costs[turn.key] for turn in probes), Cost())


def _of(record: RunRecord, episode: Episode) -> Iterator[Reading]:
    for societies in record.probes.values():
        yield from societies.get(episode.society, {}).get(episode.task, {}).values()
