"""Which statistics of attention are wanted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StatisticsRequest:
    """Which statistics are wanted. a_ts is what query t gives to key s; positions t and s are counted in tokens.

    Raises:
        ValueError: A parameter is out of its range.
    """

    span: bool = False
    """sum_s a_ts |t - s| per query: how far back it looks (arXiv 2510.13554, eq. 7 before its mean)."""
    entropy: bool = False
    """-sum_s a_ts ln a_ts per query, in nats."""
    sink: int = 0
    """Per query the sum of a_ts over this many first tokens of its own sequence; 0: not wanted."""
    waad: int = 0
    """sum_s a_ts min(|t - s|, W) per query, with this W (eq. 9); 0: not wanted."""
    received: bool = False
    """Per key the mean of a_ts over all queries that may see it (arXiv 2410.10781, the sink score's a_k)."""
    fai: tuple[int, int | None] | None = None
    """Per key s the mean of a_ts over queries s + low <= t <= s + high of its sequence, for (low, high) (eq. 10).

    high=None: to the end of the sequence. A key whose horizon holds no query gets 0, and `fai_queries` says so.
    """
    mass: int = 0
    """Attention among this many labels: for (i, j) the sum of a_ts over queries labelled i and keys labelled j."""

    def __post_init__(self) -> None:
        for name in ("sink", "waad", "mass"):
            given = getattr(self, name)
            # True would be taken for 1 token.
            if isinstance(given, bool) or not isinstance(given, int) or given < 0:
                raise ValueError(f"{name} is {given!r}, expected a whole number of at least 0")
        if self.fai is not None and not self._has_horizon():
            raise ValueError(f"fai is {self.fai!r}, expected whole numbers (low, high) with 0 <= low <= high")

    def _has_horizon(self) -> bool:
        if not isinstance(self.fai, tuple) or len(self.fai) != 2:
            return False
        low, high = self.fai[0], self.fai[0] if self.fai[1] is None else self.fai[1]
        return all(isinstance(x, int) and not isinstance(x, bool) for x in (low, high)) and 0 <= low <= high

    @property
    def is_empty(self) -> bool:
        """Nothing is wanted."""
        return self == StatisticsRequest()
