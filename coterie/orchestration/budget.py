"""The run's budget: reserved in logical order before dispatch, settled after."""

from __future__ import annotations

from dataclasses import dataclass


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

    def reserve(self, cost: int) -> None:
        self.reserved_tokens += cost
        self.reserved_calls += 1

    def release(self, cost: int) -> None:
        """Take a reservation back."""
        self.reserved_tokens -= cost
        self.reserved_calls -= 1

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
