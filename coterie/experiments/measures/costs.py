"""What turns cost: tokens as an ideal prefix cache would count them, and money."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from coterie.types import Message, Turn

_Symbols = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls and tokens. `fresh` are the prompt tokens that no ideal prefix cache would have held."""

    calls: int = 0
    prompt: int = 0
    fresh: int = 0
    generated: int = 0

    @property
    def total(self) -> int:
        """What a comparison at equal tokens is matched on: generated plus non-cached prompt tokens."""
        return self.fresh + self.generated

    def __add__(self, other: Self) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.prompt + other.prompt,
            self.fresh + other.fresh,
            self.generated + other.generated,
        )


def turn_costs(turns: Iterable[Turn]) -> dict[str, Cost]:
    """The cost of each turn of one episode, by key.

    The turns are taken in logical order. A prompt pays for its tokens beyond the longest prefix it shares with what
    the same policy has read or said earlier in the episode (prompt and reply of one turn, end to end). Where an engine
    gives no token ids, the shared part is measured on the bytes of the messages and scaled to the prompt's tokens.
    Nothing here depends on a real cache, on batches or on time.
    """
    caches: dict[str, _PrefixCache] = defaultdict(_PrefixCache)
    costs = {}
    for turn in sorted(turns, key=lambda t: (t.place, t.key)):
        prompt, whole = _spell(turn)
        cache = caches[turn.policy]
        fresh = len(prompt) - cache.longest_prefix(prompt)
        cache.add(whole)
        if turn.prompt_ids is None:
            fresh = round(turn.num_prompt_tokens * fresh / max(1, len(prompt)))
        costs[turn.key] = Cost(1, turn.num_prompt_tokens, fresh, turn.num_tokens)
    return costs


def episode_cost(turns: Iterable[Turn]) -> Cost:
    """The sum of `turn_costs`."""
    return sum(turn_costs(turns).values(), Cost())


def money(turns: Iterable[Turn], policies: Mapping[str, Any]) -> dict[str, float]:
    """What turns cost at their policies' `price:`, by currency; empty where no policy has one.

    Args:
        turns: Each is paid in full: prices are for prompt and generated tokens, cached or not.
        policies: The section `policies` of the resolved config.
    """
    bill: dict[str, float] = defaultdict(float)
    for turn in turns:
        price = policies.get(turn.policy, {}).get("price")
        if price:
            tokens = turn.num_prompt_tokens * price["prompt"] + turn.num_tokens * price["completion"]
            bill[price["currency"]] += tokens / 1e6
    return {currency: round(amount, 6) for currency, amount in sorted(bill.items())}


def cost_row(cost: Cost) -> dict[str, int]:
    """A cost under the names of the summary."""
    return {
        "calls": cost.calls,
        "prompt_tokens": cost.prompt,
        "non_cached_prompt_tokens": cost.fresh,
        "generated_tokens": cost.generated,
        "tokens": cost.total,
    }


class _PrefixCache:
    """Sequences, sorted: the longest common prefix with any of them is the one with a neighbour."""

    def __init__(self) -> None:
        self._known: list[_Symbols] = []

    def add(self, sequence: _Symbols) -> None:
        self._known.insert(bisect_left(self._known, sequence), sequence)

    def longest_prefix(self, sequence: _Symbols) -> int:
        at = bisect_left(self._known, sequence)
        return max((_common(sequence, known) for known in self._known[max(0, at - 1) : at + 1]), default=0)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _spell(turn: Turn) -> tuple[_Symbols, _Symbols]:
    """A turn's prompt, and its prompt and reply, as symbols to compare: token ids, or bytes where there are none."""
    if turn.prompt_ids is not None:
        return turn.prompt_ids, turn.prompt_ids + (turn.token_ids or ())
    messages = [m for m in turn.prompt if isinstance(m, Message)]
    prompt = b"".join(_bytes(m) for m in messages)
    return tuple(prompt), tuple(prompt + _bytes(Message("assistant", turn.text)))


def _bytes(message: Message) -> bytes:
    return f"\0{message.role}\0{message.content}".encode("utf-8", "surrogatepass")
