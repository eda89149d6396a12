"""Whose words stand where in a prompt: the tokens of earlier turns' messages that a turn was shown.

Edges say who read whom; where it stands is found in the text of the very ids that the model was given, and in no other
way. Peers' words stand between the marks of `text.fence`, an agent's own in messages of the role `assistant`, and what
a reply goes on with at the end of its prompt, token for token. What is not found is said, and never guessed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Protocol, cast

import numpy as np

from coterie.agents.engines.chat import is_ids
from coterie.text import fence, join_pieces, unfence
from coterie.types import Edge, Messages, Outcome, Turn

# The innermost pair of marks: a question may hold marks that nobody closes.
_FENCED = re.compile(r"<<<\n((?:(?!<<<\n).)*?)\n>>>", re.DOTALL)
_CUT = " [cut]"
_ENDLESS = 1 << 40


class Speller(Protocol):
    """The tokenizer of a policy, see `agents.engines.tokens.ChatTokenizer`."""

    def spell_out(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]: ...

    def read_back(self, text: str) -> str: ...

    def frame(self, messages: Messages) -> list[str]: ...


class _Remembering:
    """A speller that reads each message back once: prompts of an episode show the same ones."""

    def __init__(self, speller: Speller) -> None:
        self.spell_out, self.frame = speller.spell_out, speller.frame
        self.read_back = functools.cache(speller.read_back)


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start` to `stop` of a prompt: words of a turn; of several turns, where these said the same.

    Attributes:
        turns: Keys.
        start: The first token; one that is partly these words is one of them.
        stop: The token after the last one; `start`, if nothing was said.
    """

    turns: tuple[str, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Readings:
    """What the prompts of an episode show.

    Attributes:
        spans: By turn, in order; turns whose prompts cannot be read are left out: without ids, or without a tokenizer.
        missing: Edges to turns that can be read, whose words were found in no prompt.
    """

    spans: Mapping[str, tuple[Span, ...]]
    missing: tuple[Edge, ...]


def read_prompts(outcome: Outcome, turns: Mapping[str, Turn], spellers: Mapping[str, Speller]) -> Readings:
    """Find the words of earlier turns in every prompt of an episode.

    Args:
        outcome: Whose edges say who was shown which turn.
        turns: All turns of the episode by key.
        spellers: By policy.
    """
    spans, known = {}, {name: _Remembering(speller) for name, speller in spellers.items()}
    for turn in turns.values():
        if turn.prompt_ids is not None and turn.policy in known:
            spans[turn.key] = _Prompt(turn, known[turn.policy]).find(_candidates(turn, outcome, turns))
    return Readings(spans, tuple(_missing(outcome.edges, turns, spans)))


def _missing(edges: Iterable[Edge], turns: Mapping[str, Turn], spans: Mapping[str, tuple[Span, ...]]) -> Iterator[Edge]:
    """Edges name no repeat: one holds if any of the turns that it may be about shows the words."""
    readers: dict[tuple[int, str, str], list[str]] = {}
    for turn in turns.values():
        readers.setdefault((turn.place.round, turn.place.seat, turn.place.purpose), []).append(turn.key)
    for edge in edges:
        mine = readers.get((edge.round, edge.target, edge.purpose), [])
        shown = {key for reader in mine for span in spans.get(reader, ()) for key in span.turns}
        if mine and all(reader in spans for reader in mine) and edge.turn not in shown:
            yield edge


@dataclass(frozen=True, slots=True)
class _Said:
    """What may stand in a prompt: a turn with those that it goes on with, oldest first."""

    chain: tuple[Turn, ...]
    is_own: bool

    @property
    def key(self) -> str:
        return self.chain[-1].key

    @property
    def text(self) -> str:
        return join_pieces(turn.text for turn in self.chain)

    @property
    def age(self) -> tuple[bool, int]:
        """Peers, whom edges name, before oneself; then the newest first."""
        return self.is_own, -self.chain[-1].place.round


def _candidates(reader: Turn, outcome: Outcome, turns: Mapping[str, Turn]) -> list[_Said]:
    """Turns that its edges name, now or in the conversation so far, and earlier ones of its own."""
    seat, number = reader.place.seat, reader.place.round
    told = {
        edge.turn for edge in outcome.edges
        if edge.target == seat
        and (edge.round < number or (edge.round == number and edge.purpose == reader.place.purpose))
    }  # fmt: skip
    own = {
        turn.key for turn in turns.values()
        if turn.place.seat == seat and turn.key != reader.key and turn.place.round <= number
        and not (turn.place.round == number and turn.place.purpose == reader.place.purpose)
    }  # fmt: skip
    keys = [*sorted(told & turns.keys()), *sorted(own - told)]
    return [_Said(_chain(turns[key], turns), key not in told) for key in keys]


def _chain(turn: Turn, turns: Mapping[str, Turn]) -> tuple[Turn, ...]:
    found = [turn]
    while found[0].continues in turns:
        found.insert(0, turns[cast(str, found[0].continues)])
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Region:
    """Characters of a prompt that somebody wrote."""

    start: int
    stop: int
    body: str
    is_fenced: bool


class _Prompt:
    """One prompt, as text and as tokens."""

    def __init__(self, turn: Turn, speller: _Remembering) -> None:
        self.turn, self.speller = turn, speller
        ids = turn.prompt_ids or ()
        self.text, places = speller.spell_out(ids)
        bounds = np.asarray(places, np.int64).reshape(-1, 2)
        self._starts, self._stops = bounds[:, 0], bounds[:, 1]

    def find(self, candidates: Sequence[_Said]) -> tuple[Span, ...]:
        begun = self._begun(candidates)
        limit = self._starts[begun[0].start] if begun else len(self.text)
        regions = [region for region in self._regions() if region.stop <= limit]
        matched: dict[tuple[str, ...], list[_Region]] = {}
        known = {said.key: said for said in candidates}
        bodies = {said.key: self.speller.read_back(unfence(fence(said.text, _ENDLESS))) for said in candidates}
        for region in regions:
            if keys := self._match(region, known, bodies):
                matched.setdefault(keys, []).append(region)
        spans = [
            span
            for keys, mine in matched.items()
            for region, group in _deal(mine, [known[key] for key in keys])
            for span in self._spans(region, group)
        ]
        return tuple(sorted((*spans, *begun), key=lambda span: (span.start, span.stop, span.turns)))

    def _match(self, region: _Region, known: Mapping[str, _Said], bodies: Mapping[str, str]) -> tuple[str, ...]:
        """Keys of the candidates that it shows, by the strictest test that any passes."""
        if not region.is_fenced:
            return tuple(
                key for key, said in known.items()
                if said.is_own and self.speller.read_back(said.text).strip() == region.body.strip()
            )  # fmt: skip
        for test in (_is_whole, _is_cut, _is_shortened, _is_part):
            if found := tuple(key for key, body in bodies.items() if test(region.body, body)):
                return found
        return ()

    def _begun(self, candidates: Sequence[_Said]) -> list[Span]:
        """What the reply goes on with: the last tokens of the prompt."""
        chain = next((said.chain for said in candidates if said.key == self.turn.continues), ())
        ids, said = self.turn.prompt_ids or (), tuple(token for turn in chain for token in turn.token_ids or ())
        if not said or ids[-len(said) :] != said:
            return []
        ends = list(accumulate((len(turn.token_ids or ()) for turn in chain), initial=len(ids) - len(said)))
        return [Span((turn.key,), *between) for turn, between in zip(chain, pairwise(ends), strict=True)]

    def _regions(self) -> list[_Region]:
        own = [_Region(*place, self.text[slice(*place)], False) for place in self._assistant()]
        inside = [(region.start, region.stop) for region in own]
        fenced = [_Region(*found.span(1), found[1], True) for found in _FENCED.finditer(self.text)]
        # An agent may write marks in a reply of its own.
        kept = [f for f in fenced if not any(f.start < stop and start < f.stop for start, stop in inside)]
        return sorted((*own, *kept), key=lambda region: region.start)

    def _assistant(self) -> list[tuple[int, int]]:
        """Where the agent's own earlier replies stand; none, if the template does more than frame messages."""
        if is_ids(self.turn.prompt):
            return []
        messages = cast(Messages, self.turn.prompt)
        first = next((i for i, m in enumerate(messages) if m.role == "system"), None)
        between = [i for i in range(len(messages) - 1) if i != first]
        # Whole messages, the oldest first, is what a prompt that is too long loses; then its last one is cut.
        for dropped in range(len(between) + 1 if self.turn.num_dropped else 1):
            gone = set(between[:dropped])
            kept = tuple(message for i, message in enumerate(messages) if i not in gone)
            if places := self._lay(kept):
                return [place for place, message in zip(places, kept, strict=False) if message.role == "assistant"]
        return []

    def _lay(self, messages: Messages) -> list[tuple[int, int]]:
        """Where the contents of all messages but the last stand; none if these do not make up the prompt."""
        frame = self.speller.frame(messages)
        begin = self.text.find(frame[0]) if frame else -1
        if begin < 0:
            return []
        found, place = list[tuple[int, int]](), begin + len(frame[0])
        for message, behind in zip(messages[:-1], frame[1:-1], strict=True):
            content = self.speller.read_back(message.content)
            forms = (content, content.strip(), content.lstrip(), content.rstrip())
            length = next((len(form) for form in forms if self.text.startswith(form + behind, place)), None)
            if length is None:
                return []
            found.append((place, place + length))
            place += length + len(behind)
        return found

    def _spans(self, region: _Region, group: Sequence[_Said]) -> Iterator[Span]:
        """The tokens of a region; of pieces that are shown as one, those of each piece."""
        keys, chain = tuple(said.key for said in group), group[0].chain
        text = "".join(turn.text for turn in chain)
        if len(group) > 1 or len(chain) == 1 or text.strip() != region.body.strip():
            yield Span(keys, *self._tokens(region.start, region.stop))
            return
        lead = len(text) - len(text.lstrip())
        ends = [min(max(end - lead, 0), len(region.body))
                for end in accumulate((len(turn.text) for turn in chain), initial=0)]  # fmt: skip
        done = 0
        for turn, (start, stop) in zip(chain, pairwise(ends), strict=True):
            begin, end = self._tokens(region.start + start, region.start + stop)
            yield Span((turn.key,), max(begin, done), max(end, begin, done))
            done = max(end, done)

    def _tokens(self, start: int, stop: int) -> tuple[int, int]:
        """Tokens that overlap characters."""
        first = int(np.searchsorted(self._stops, start, side="right"))
        return first, max(int(np.searchsorted(self._starts, stop, side="left")), first) if stop > start else first


def _deal(regions: Sequence[_Region], candidates: Collection[_Said]) -> Iterator[tuple[_Region, tuple[_Said, ...]]]:
    """Equal words among those who may have said them: the last ones to those who said them last.

    Who said the same in one round cannot be told apart, and has a part in each. What is left over at the front was
    shown again, and is the oldest's.
    """
    groups = [tuple(group) for _, group in groupby(sorted(candidates, key=lambda said: said.age), lambda s: s.age)]
    left = list(regions)
    for group in groups:
        taken = left[-len(group) :] if group is not groups[-1] else left
        left = left[: len(left) - len(taken)]
        yield from ((region, group) for region in taken)


def _is_whole(shown: str, said: str) -> bool:
    return shown == said


def _is_cut(shown: str, said: str) -> bool:
    return shown.endswith(_CUT) and said.startswith(shown.removesuffix(_CUT))


def _is_shortened(shown: str, said: str) -> bool:
    """Lines were left out."""
    lines, rest = _lines(shown), iter(_lines(said))
    return bool(lines) and all(line in rest for line in lines)


def _is_part(shown: str, said: str) -> bool:
    return bool(shown.strip()) and shown.strip() in said


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
