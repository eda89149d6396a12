"""What one society of a run did: accuracy, rounds, opinions, cost. Every number is made from the facts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from coterie.experiments.measures import opinions
from coterie.experiments.measures.behaviour import behaviour_facts
from coterie.experiments.measures.costs import Cost, cost_row, episode_cost, money
from coterie.experiments.measures.replies import STATES, answers_of, said_verdicts, state
from coterie.experiments.measures.self_evaluation import self_evaluation_facts
from coterie.experiments.records.run import Episode, Member, RunRecord, whole_replies
from coterie.experiments.statistics.inference import wilson
from coterie.types import Verdict

Row = dict[str, Any]


def society_facts(record: RunRecord, member: Member) -> Row:
    """All metrics of one society over the tasks it has finished; see docs/metrics.md for each formula."""
    episodes = [record.episodes[member.label][task] for task in sorted(record.episodes[member.label])]
    judged = [e for e in episodes if not e.is_excluded]
    correct = sum(e.is_correct for e in judged)
    share = wilson(correct, len(judged))
    oracle = sum(_any_right_at_last(record, e) for e in judged)
    turns = [turn for e in episodes for turn in record.turns_of(e)]
    replies = [reply for e in episodes for reply in whole_replies(record.turns_of(e))]
    return {
        "label": member.label,
        "is_baseline": member.is_baseline,
        "agents": [{"name": a.name, "policy": a.policy, "persona": a.persona} for a in member.agents],
        "tasks": len(episodes),
        "correct": correct,
        "accuracy": share.value,
        "interval": [share.low, share.high],
        "no_answer": sum(e.outcome.answer is None for e in episodes),
        "oracle": oracle / len(judged) if judged else None,
        "oracle_gap": (oracle - correct) / len(judged) if judged else None,
        "turns": len(turns),
        "unparsed_turns": sum(turn.answer is None and turn.place.purpose == "answer" for turn in replies),
        "timed_out_verdicts": sum(record.verdict(turn.key).timed_out for turn in turns),
        "cut_replies": sum(turn.finish == "length" for turn in replies),
        "dropped_tokens": sum(turn.num_dropped for turn in turns),
        "rounds": _rounds(record, episodes),
        **behaviour_facts(record, member, judged),
        "self_evaluation": self_evaluation_facts(record, member, episodes),
        "rewards": _rewards(record, member),
        "cost": _cost(record, episodes),
    }


def _rewards(record: RunRecord, member: Member) -> dict[str, dict[str, float]]:
    """For each reward, each agent's mean over its rewarded turns."""
    means = {}
    for name, given in record.rewards.items():
        earned: dict[str, list[float]] = {}
        for episode in given.get(member.label, ()):
            for key, value in episode.items():
                earned.setdefault(record.turns[key].place.seat, []).append(value)
        means[name] = {agent: sum(values) / len(values) for agent, values in sorted(earned.items())}
    return means


def _any_right_at_last(record: RunRecord, episode: Episode) -> bool:
    rounds = record.rounds(episode)
    return bool(rounds) and any(verdict.correct for verdict in rounds[-1].values())


def _rounds(record: RunRecord, episodes: Sequence[Episode]) -> list[Row]:
    length = max((len(e.outcome.rounds) for e in episodes), default=0)
    return [_round(record, number, [e for e in episodes if len(e.outcome.rounds) > number]) for number in range(length)]


def _round(record: RunRecord, number: int, episodes: Sequence[Episode]) -> Row:
    said = [said_verdicts(record, episode)[: number + 1] for episode in episodes]
    verdicts = [verdict for rounds in said for verdict in rounds[number].values()]
    states = Counter(map(state, verdicts))
    num_judged = len(verdicts) - sum(verdict.is_excluded for verdict in verdicts)
    distinct = opinions.count_distinct([answers_of(record, episode)[number] for episode in episodes])
    return {
        "round": number,
        "tasks": len(episodes),
        "agent_accuracy": states["right"] / num_judged if num_judged else None,
        "distinct_answers": sum(distinct) / len(distinct),
        "unparsed_rate": states["unparsed"] / states.total() if states else None,
        "states": {name: states[name] for name in STATES},
        "flow": _flow(rounds[number - 1 :] for rounds in said) if number else [],
        "agents": _agents(rounds[number] for rounds in said),
        "edges": _edges(number, episodes),
    }


def _flow(steps: Iterable[Sequence[dict[str, Verdict]]]) -> list[Row]:
    """How many agents that spoke in both rounds went from which state to which."""
    moves = Counter(
        (state(before[agent]), state(verdict))
        for step in steps
        for before, after in pairwise(step)
        for agent, verdict in after.items()
        if agent in before
    )
    return [{"from": a, "to": b, "count": moves[a, b]} for a in STATES for b in STATES if moves[a, b]]


def _agents(rounds: Iterable[dict[str, Verdict]]) -> list[Row]:
    """Per agent (the samples of self-consistency count as one agent) how often it was in which state."""
    counts: dict[str, Counter[str]] = {}
    for verdicts in rounds:
        for agent, verdict in verdicts.items():
            counts.setdefault(agent.partition("#")[0], Counter())[state(verdict)] += 1
    return [{"name": name, **{s: counts[name][s] for s in STATES}} for name in sorted(counts)]


def _edges(number: int, episodes: Iterable[Episode]) -> list[Row]:
    """Who read whom in this round, whatever for, and in how many tasks."""
    read = ({(e.source, e.target) for e in episode.outcome.edges if e.round == number} for episode in episodes)
    counts = Counter(pair for pairs in read for pair in pairs)
    return [{"source": s, "target": t, "tasks": counts[s, t]} for s, t in sorted(counts)]


def _cost(record: RunRecord, episodes: Sequence[Episode]) -> Row:
    costs = [episode_cost(record.turns_of(e)) for e in episodes]
    total = sum(costs, Cost())
    turns = [turn for e in episodes for turn in record.turns_of(e)]
    return {
        "total": cost_row(total),
        "per_task": {name: value / len(episodes) for name, value in cost_row(total).items()} if episodes else None,
        "money": money(turns, record.facts["config"]["policies"]),
    }
