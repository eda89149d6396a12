"""Who does what in CoMAS: solvers, evaluators and scorers, drawn by lot from the seed and the task alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from coterie import rng
from coterie.orchestration.protocols.config_comas import ComasConfig


class Slot(NamedTuple):
    """Who solves, and for each judgement of the solution who evaluates and who scores; indices of agents."""

    solver: int
    judges: tuple[tuple[int, int], ...]


def cast_roles(config: ComasConfig, size: int, task: str, seed: int) -> list[list[Slot]]:
    """For each round its solutions, in order.

    Args:
        config: Of the protocol.
        size: How many agents there are; one alone judges itself.
        task: The task's id.
        seed: The experiment's.
    """
    if config.turn_order == "parallel_all":
        rounds = range(config.rounds)
        return [_block(config, range(size), size, rng.stream(seed, task, "comas", "roles", i)) for i in rounds]
    slots: list[Slot] = []
    while len(slots) < config.rounds:
        stream = rng.stream(seed, task, "comas", "roles", len(slots) // size)
        drawn = stream.permutation(size) if config.deal == "balanced" else stream.integers(size, size=size)
        slots += _block(config, drawn.tolist(), size, stream)
    return [[slot] for slot in slots[: config.rounds]]


def _block(config: ComasConfig, solvers: Sequence[int], size: int, stream: np.random.Generator) -> list[Slot]:
    """As many solutions in a row as there are agents."""
    deal = _deal if config.deal == "balanced" else _draw
    dealt = [deal(solvers, size, config.self_judging, stream) for _ in range(max(config.evaluations, 1))]
    return [Slot(solver, judges) for solver, judges in zip(solvers, zip(*dealt, strict=True), strict=True)]


def _deal(solvers: Sequence[int], size: int, self_judging: bool, stream: np.random.Generator) -> list[tuple[int, int]]:
    """For each solver its evaluator and its scorer; everybody solves once, and is each once."""
    order = stream.permutation(size).tolist()
    if self_judging:
        return list(zip(order, stream.permutation(size).tolist(), strict=True))
    place = {agent: i for i, agent in enumerate(order)}
    # With two agents, the one who did not solve has to do both.
    steps = (1, 2) if size > 2 else (1, 1)
    return [(order[(place[a] + steps[0]) % size], order[(place[a] + steps[1]) % size]) for a in solvers]


def _draw(solvers: Sequence[int], size: int, self_judging: bool, stream: np.random.Generator) -> list[tuple[int, int]]:
    """For each solver an evaluator and a scorer, each drawn by itself."""
    pairs = []
    for solver in solvers:
        able = [a for a in range(size) if self_judging or a != solver]
        evaluator = able[int(stream.integers(len(able)))]
        left = able if self_judging else [a for a in able if a != evaluator] or able
        pairs.append((evaluator, left[int(stream.integers(len(left)))]))
    return pairs
