"""CoMAS's chains: each turn is asked for as soon as all that its prompt shows has been said."""

import asyncio
from collections.abc import Callable

import pytest

from coterie.agents.seats import Agent
from coterie.orchestration.protocols.comas import Comas
from coterie.orchestration.protocols.config_comas import ComasConfig
from coterie.types import Outcome, Place, Task, Turn

AGENTS = [Agent(name, "base", f"You are {name}.") for name in "ann bob cleo dora".split()]
TASK = Task("sum", "What is 3 + 4?")


class Slow:
    """An `ask` in which some replies are late."""

    seed = 0

    def __init__(self, is_late: Callable[[Place], bool]) -> None:
        self.is_late, self.asked = is_late, list[Place]()
        self.late: list[asyncio.Future[None]] = []

    async def __call__(self, agent, prompt, *, round, repeat=0, purpose="answer", said=(), choices=()):
        place = Place(TASK.id, round, agent.name, repeat, purpose)
        self.asked.append(place)
        if self.is_late(place):
            self.late.append(asyncio.get_running_loop().create_future())
            await self.late[-1]
        return Turn(str(place), place, agent.policy, 0, prompt, "Score: 2", "7", "stop", 1, 1)

    def count(self, purpose: str) -> int:
        return sum(place.purpose == purpose for place in self.asked)


def play(config: ComasConfig, is_late: Callable[[Place], bool]) -> tuple[list[Place], Outcome]:
    """What was asked before any late reply came, and how it ended after all had come."""

    async def run():
        ask = Slow(is_late)
        episode = asyncio.ensure_future(Comas(config).run(TASK, AGENTS, ask))
        for _ in range(200):
            await asyncio.sleep(0)
        early = list(ask.asked)
        while not episode.done():
            for late in ask.late:
                if not late.done():
                    late.set_result(None)
            await asyncio.sleep(0)
        return early, episode.result()

    return asyncio.run(run())


def count(asked: list[Place], purpose: str) -> int:
    return sum(place.purpose == purpose for place in asked)


PRESETS = ("faithful", "release", "improved")


@pytest.mark.parametrize("preset", PRESETS)
def test_nobody_waits_for_a_score(preset):
    early, outcome = play(ComasConfig(preset=preset), lambda place: place.purpose == "score")
    assert (count(early, "answer"), count(early, "evaluate"), count(early, "score")) == (8, 8, 8)
    assert len(outcome.extra["judgements"]) == 8


@pytest.mark.parametrize("preset", PRESETS)
def test_a_late_reply_changes_nothing_but_the_order(preset):
    config = ComasConfig(preset=preset, rounds=4)
    outcomes = [play(config, is_late)[1] for is_late in (lambda _: False, lambda p: p.purpose == "evaluate",
                                                         lambda p: p.seat == "bob", lambda _: True)]  # fmt: skip
    assert outcomes == outcomes[:1] * 4


def test_a_late_solution_holds_up_its_own_chain_alone():
    config = ComasConfig(preset="release", rounds=1)
    early, _ = play(config, lambda place: (place.seat, place.purpose) == ("bob", "answer"))
    assert (count(early, "answer"), count(early, "evaluate"), count(early, "score")) == (4, 3, 3)


def test_solvers_wait_for_the_pairs_they_read_and_for_no_others():
    config = ComasConfig(preset="release", references=1)
    waited = set()
    for late in range(4):
        early, _ = play(config, lambda p, late=late: p.purpose == "evaluate" and p.round == 0 and p.repeat == late)
        solvers = sum(place.purpose == "answer" and place.round == 1 for place in early)
        assert solvers in (0, 4)
        waited |= {late} if not solvers else set()
    assert len(waited) == 1


def test_who_reads_nothing_waits_for_nobody():
    early, _ = play(ComasConfig(kappa=0), lambda place: place.purpose == "answer")
    assert count(early, "answer") == 8


def test_in_turns_the_next_solver_waits_for_the_last_evaluation():
    early, _ = play(ComasConfig(), lambda place: place.purpose == "evaluate" and place.round == 2)
    assert max(place.round for place in early) == 2
    assert count(early, "score") == 2
