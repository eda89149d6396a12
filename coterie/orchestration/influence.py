"""The attention influence of episodes: who read whose words, and how much of each answer goes back to whom.

    reader = AttentionReader(models.resolve("coterie-tiny"), "cpu")        # or a learner, as it trains
    spellers = {"base": ChatTokenizer.load(models.resolve("coterie-tiny"), 4096)}
    (found,) = measure_influence([read_episode(journal, job, {})], {"base": reader}, spellers)
    found.influence.agent_shares()    # {"ann": 0.6, "bob": 0.4}, sum to one
    found.influence.turn_shares()     # by turn key, sum to one
    found.influence.edges()           # [(source turn, reading turn, weight), ...]

Any object with `outcome` and `turns` is an episode, such as `harvest.PlayedEpisode`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from coterie.agents.learning.examples import Example
from coterie.orchestration.spans import Readings, Span, Speller, read_prompts
from coterie.rewards.credit.influence import Attention, Influence, Stretch, weigh
from coterie.types import Outcome, Turn

if TYPE_CHECKING:
    Labels = NDArray[np.int64]

_SINK, _OWN, _FIRST = 0, 1, 2
"""Labels of tokens: the first few, what is neither, and the first span; each further span has the next one."""


class Reader(Protocol):
    """What reads attention: `LanguageLearner`, or `agents.learning.attending.AttentionReader`."""

    def influence(
        self, policy: str, examples: Sequence[Example], labels: Sequence[Labels], layers: int = 5
    ) -> list[NDArray[np.float32]]: ...


class Episode(Protocol):
    """A finished episode, as `harvest.read_episode` gives it."""

    @property
    def outcome(self) -> Outcome: ...

    @property
    def turns(self) -> Mapping[str, Turn]: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How attention becomes influence.

    Attributes:
        layers: How many, spread over the middle third.
        sinks: How many first tokens of a prompt are nobody's.
        per_token: Whether attention counts per token, so that long messages do not weigh more.
    """

    layers: int = 5
    sinks: int = 4
    per_token: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """The influence in one episode, and how far it could be measured.

    Attributes:
        influence: The DAG; the answer is those turns of the last round that gave it, or else all of the last round.
        missing: Edges whose words were found in no prompt, or that cannot be told from what was said later.
        unread: Turns whose attention was not measured, as no reader has their policy, or their engine gives no ids:
            they are taken to attend to all that they were shown alike.
    """

    influence: Influence
    missing: int
    unread: int


def measure_influence(
    episodes: Sequence[Episode],
    readers: Mapping[str, Reader],
    spellers: Mapping[str, Speller],
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> list[Measured]:
    """The influence in each episode, by one pass over all its turns.

    Args:
        episodes: Finished ones.
        readers: By policy. The attention is that of a reader's weights as they are now.
        spellers: The tokenizers of policies.
        settings: See there.

    Raises:
        ValueError: A model has no attention that can be read, see `attention.introspection.collect`.
        CreditError: An episode has no turns.
    """
    read = [read_prompts(episode.outcome, episode.turns, spellers) for episode in episodes]
    asked: dict[str, list[tuple[Turn, tuple[Span, ...]]]] = {}
    for episode, readings in zip(episodes, read, strict=True):
        for key, spans in readings.spans.items():
            turn = episode.turns[key]
            if turn.token_ids and turn.policy in readers:
                asked.setdefault(turn.policy, []).append((turn, spans))
    found: dict[str, Attention] = {}
    for policy, pairs in asked.items():
        found |= _attend(readers[policy], policy, dict((turn.key, (turn, spans)) for turn, spans in pairs), settings)
    return [_assemble(*pair, found, settings) for pair in zip(episodes, read, strict=True)]


def _attend(
    reader: Reader, policy: str, asked: Mapping[str, tuple[Turn, tuple[Span, ...]]], settings: Settings
) -> dict[str, Attention]:
    pairs = list(asked.values())
    labels = [_label(turn, spans, settings.sinks) for turn, spans in pairs]
    masses = reader.influence(policy, [_example(turn) for turn, _ in pairs], labels, settings.layers)
    return {
        turn.key: _read(turn, spans, label, mass)
        for (turn, spans), label, mass in zip(pairs, labels, masses, strict=True)
    }


def _label(turn: Turn, spans: Sequence[Span], sinks: int) -> Labels:
    """Of every token of prompt and reply."""
    labels = np.full(len(turn.prompt_ids or ()) + len(turn.token_ids or ()), _OWN, np.int64)
    for number, span in enumerate(spans, start=_FIRST):
        labels[span.start : span.stop] = number
    labels[: min(sinks, len(turn.prompt_ids or ()))] = _SINK
    return labels


def _read(turn: Turn, spans: Sequence[Span], labels: Labels, mass: NDArray[np.float32]) -> Attention:
    said, prompt = len(turn.token_ids or ()), labels[: len(turn.prompt_ids or ())]
    counts = np.bincount(prompt, minlength=_FIRST + len(spans)).astype(np.float64)
    # The rows are those that tokens were drawn from: the i-th sees i tokens of its own reply.
    counts[_OWN] += (said - 1) / 2
    whole = np.zeros(len(counts))
    whole[: len(mass)] = mass
    parts: dict[str, tuple[float, float]] = {}
    for number, span in enumerate(spans, start=_FIRST):
        for key in span.turns:
            before, size = parts.get(key, (0.0, 0.0)), len(span.turns)
            parts[key] = before[0] + whole[number] / size, before[1] + counts[number] / size
    own = Stretch(float(whole[_OWN]), float(counts[_OWN]))
    sources = {key: Stretch(float(m), float(n)) for key, (m, n) in parts.items() if n > 0}
    return Attention(turn.key, turn.place.seat, own, sources)


def _assemble(episode: Episode, readings: Readings, found: Mapping[str, Attention], settings: Settings) -> Measured:
    turns = episode.turns
    attention, unread = [], 0
    for key in sorted(turns):
        known = found.get(key)
        if known is None:
            unread += 1
            known = _even(turns[key], readings.spans.get(key), episode.outcome, turns)
        attention.append(known)
    attention, circular = _straighten(attention, turns)
    influence = weigh(attention, answer_of(episode), settings.per_token)
    return Measured(influence, len(readings.missing) + circular, unread)


def _straighten(attention: Sequence[Attention], turns: Mapping[str, Turn]) -> tuple[list[Attention], int]:
    """The same without circles, and how many sources had to go.

    Where everybody says the same, words in a prompt may be taken for those of a turn that was said later in its round.
    """
    graph: dict[str, set[str]] = {one.key: set() for one in attention}

    def reaches(start: str, goal: str) -> bool:
        seen, waiting = {start}, [start]
        while waiting and goal not in seen:
            waiting = [source for key in waiting for source in graph[key] if source not in seen]
            seen.update(waiting)
        return goal in seen

    # Sources of earlier rounds are in no circle; of the others the first ones stay.
    pairs = [(one.key, source) for one in attention for source in one.sources]
    for reader, source in sorted(pairs, key=lambda pair: (_lag(pair, turns), pair)):
        if not reaches(source, reader):
            graph[reader].add(source)
    kept = [
        replace(one, sources={key: part for key, part in one.sources.items() if key in graph[one.key]})
        for one in attention
    ]
    return kept, len(pairs) - sum(map(len, graph.values()))


def _lag(pair: tuple[str, str], turns: Mapping[str, Turn]) -> int:
    """By how many rounds the source is later."""
    reader, source = (turns[key].place.round for key in pair)
    return source - reader


def _even(turn: Turn, spans: Sequence[Span] | None, outcome: Outcome, turns: Mapping[str, Turn]) -> Attention:
    """Of a turn whose attention nobody can read: everything it was shown counts alike."""
    if spans is None:
        place = turn.place
        keys = {
            edge.turn for edge in outcome.edges
            if (edge.round, edge.target, edge.purpose) == (place.round, place.seat, place.purpose)
        } & turns.keys()  # fmt: skip
    else:
        keys = {key for span in spans for key in span.turns}
    return Attention(turn.key, turn.place.seat, sources={key: Stretch(1.0, 1.0) for key in sorted(keys)})


def answer_of(episode: Episode) -> dict[str, float]:
    """How much of the society's answer each turn is: those of the last round that gave it count alike.

    Where none did, all of the last round do; where there are no rounds, all turns do.
    """
    standing = list(dict.fromkeys(episode.outcome.rounds[-1].values())) if episode.outcome.rounds else []
    standing = [key for key in standing if key in episode.turns] or sorted(episode.turns)
    answer = episode.outcome.answer
    giving = [key for key in standing if answer is not None and episode.turns[key].answer == answer]
    return dict.fromkeys(giving or standing, 1.0)


def _example(turn: Turn) -> Example:
    zeros = np.zeros(len(turn.token_ids or ()), np.float32)
    return Example(
        turn.key, turn.place.purpose, turn.prompt_ids or (), turn.token_ids or (), logprobs=zeros, advantage=zeros
    )
