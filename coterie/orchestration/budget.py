"""Budgets, of a run and of each episode: reserved in logical order before dispatch, settled after."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from coterie.errors import CoterieError
from coterie.orchestration.jobs import TaskLimits
from coterie.types import Turn

CUT_SHORT = "cut_short"
"""In the `extra` of an outcome whose episode ended at its own limit: which one, in words."""


class BudgetSpent(CoterieError):
    """An episode reached its own limit; it ends without an answer."""

    code = "E_BUDGET"


@dataclass(slots=True)
class RunBudget:
    """Tokens (prompt and reply) and calls of a run, over all its attempts; None does not bind."""

    tokens: int | None = None
    calls: int | None = None
    spent_tokens: int = 0
    spent_calls: int = 0
    reserved_tokens: int = 0
    reserved_calls: int = 0

    def fits(self, cost: int, calls: int = 1) -> bool:
        """Whether calls of at most `cost` tokens are within the limits, with all reservations counted in full."""
        tokens = self.spent_tokens + self.reserved_tokens + cost
        calls += self.spent_calls + self.reserved_calls
        return (self.tokens is None or tokens <= self.tokens) and (self.calls is None or calls <= self.calls)

    def reserve(self, cost: int, calls: int = 1) -> None:
        self.reserved_tokens += cost
        self.reserved_calls += calls

    def release(self, cost: int, calls: int = 1) -> None:
        """Take a reservation back."""
        self.reserve(-cost, -calls)

    def spend(self, tokens: int) -> None:
        """Count a committed call."""
        self.spent_tokens += tokens
        self.spent_calls += 1

    def explain(self) -> str:
        """Which limit is reached, in words."""
        parts = []
        if self.tokens is not None:
            parts.append(f"{self.spent_tokens} of {self.tokens} tokens")
        if self.calls is not None:
            parts.append(f"{self.spent_calls} of {self.calls} calls")
        return "the run's budget is spent: " + ", ".join(parts)


class Ledger:
    """What one episode has used and reserved, against its limits."""

    def __init__(self, limits: TaskLimits) -> None:
        self._limits, self._tokens, self._refusal, self._num_open = limits, 0, "", 0
        self.asked: dict[str, asyncio.Future[Turn]] = {}
        """By key the turns that were let in."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is reserved: all that was let in is answered, or there is no limit."""
        return not self._num_open or self._limits == TaskLimits()

    def reserve(self, costs: Mapping[str, int], waiters: Sequence[asyncio.Future[Turn]]) -> None:
        """Let turns of at most so many tokens in, all or none of them; once for each key.

        After a refusal nothing new is let in, not even what would fit: the episode ends with what it has asked by then.

        Raises:
            BudgetSpent: the limits do not allow it, or did not allow an earlier one.
        """
        if costs.keys() <= self.asked.keys():
            return
        self._refusal = self._refusal or self._refuse(sum(costs.values()), len(costs))
        if self._refusal:
            raise BudgetSpent(self._refusal)
        for (key, cost), waiter in zip(costs.items(), waiters, strict=True):
            self.asked[key] = waiter
            self._tokens += cost
            self._num_open += 1
            waiter.add_done_callback(partial(self._settle, cost))

    def _refuse(self, cost: int, calls: int) -> str:
        limits = self._limits
        if limits.calls is not None and len(self.asked) + calls > limits.calls:
            return f"the task's budget of {limits.calls} calls is spent"
        if limits.tokens is not None and self._tokens + cost > limits.tokens:
            return f"the task's budget of {limits.tokens} tokens is spent"
        return ""

    def _settle(self, cost: int, waiter: asyncio.Future[Turn]) -> None:
        self._num_open -= 1
        if not waiter.cancelled():
            turn = waiter.result()
            self._tokens += turn.num_prompt_tokens + turn.num_tokens - cost
