"""CoMAS's interaction (arXiv 2510.08529): agents solve, evaluate and score each other.

Every turn is a task of its own that waits for the turns which its prompt shows and for nothing else. So each chain of a
solution, its evaluation and the score goes on by itself, and a solver of the next round waits for what it reads only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, cast

from coterie import rng
from coterie.agents.prompts import template
from coterie.agents.seats import Agent
from coterie.orchestration.decisions import decide
from coterie.orchestration.protocols.base import Ask, opening
from coterie.orchestration.protocols.comas_canaries import plant
from coterie.orchestration.protocols.comas_roles import Slot, cast_roles
from coterie.orchestration.protocols.config_comas import ComasConfig
from coterie.orchestration.protocols.minutes import Minutes
from coterie.orchestration.turns import CANARY
from coterie.text import fence
from coterie.types import Message, Messages, Outcome, Task, Turn

SCORES = ("1", "2", "3")
_SCORE = re.compile(r"^[ \t*_]*score[ \t*_]*:(.*)$", re.IGNORECASE | re.MULTILINE)
# A result stands at the end of a reply: a judge that is not shown it judges something else.
_LONGEST = 16_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """A solution and what came of judging it.

    Attributes:
        solution: What is judged.
        evaluation: None: there are no evaluations.
        scoring: None: the evaluation gives the score itself.
        verdict: What the judge replied when it could only say a score; None: it was not asked.
        score: 1 to 3, or None if none could be read.
    """

    solution: Turn
    evaluation: Turn | None
    scoring: Turn | None
    verdict: Turn | None
    score: int | None

    def row(self) -> dict[str, str | int | None]:
        """As it stands in the journal: the keys of the turns, and the score; a null score is a failure."""
        turns = {name: getattr(self, name) for name in ("solution", "evaluation", "scoring", "verdict")}
        return {name: turn and turn.key for name, turn in turns.items()} | {"score": self.score}


class Comas:
    """Parts are dealt anew in every round; `extra` holds all judgements, and those of canaries apart."""

    def __init__(self, config: ComasConfig) -> None:
        self.config = config

    async def run(self, task: Task, agents: Sequence[Agent], ask: Ask) -> Outcome:
        return await _Discussion(self.config, task, agents, ask).hold()


@dataclass(frozen=True, slots=True)
class _Said:
    """A turn, and the turns that its prompt shows."""

    turn: Turn
    read: tuple[Turn, ...]


_Saying = asyncio.Task[_Said]


@dataclass(frozen=True, slots=True)
class _Thread:
    """A solution and all that is said of it, on their way."""

    solver: Agent
    solution: _Saying
    evaluations: list[_Saying]
    judgements: list[asyncio.Task[Judgement]]


class _Spot(NamedTuple):
    """Where turns of a chain stand; `mark` begins their purposes."""

    round: int
    repeat: int
    mark: str = ""


_Pair = tuple[_Saying, Sequence[_Saying]]
"""A solution, and those of its evaluations that are read with it."""


class _Discussion:
    """One episode."""

    def __init__(self, config: ComasConfig, task: Task, agents: Sequence[Agent], ask: Ask) -> None:
        self.config, self.task, self.agents, self.ask = config, task, agents, ask
        self._minutes = Minutes()
        self._rounds: list[list[_Thread]] = []
        self._canaries: list[asyncio.Task[Judgement]] = []

    async def hold(self) -> Outcome:
        """Start every turn; each waits for what it reads."""
        for number, slots in enumerate(cast_roles(self.config, len(self.agents), self.task.id, self.ask.seed)):
            shown = self._choose(number)
            self._rounds.append([self._open(number, place, slot, shown) for place, slot in enumerate(slots)])
        threads = list(chain(*self._rounds))
        said = [task for t in threads for task in (t.solution, *t.evaluations, *t.judgements)]
        # All to their ends, also where a budget ends: which canaries are judged then does not depend on who is quick.
        ended = await asyncio.gather(*said, *self._canaries, return_exceptions=True)
        for failure in (one for one in ended if isinstance(one, BaseException)):
            raise failure
        for number, held in enumerate(self._rounds):
            self._minutes.note(number, {thread.solver.name: thread.solution.result().turn for thread in held})
        # In the order of the seats, whoever spoke first.
        answers = [{a.name: said[a.name] for a in self.agents if a.name in said} for said in self._minutes.answers]
        answer, reason = decide(self.config.decision, answers, self.task.id, self.ask.seed)
        extra = {"judgements": [judged.result().row() for thread in threads for judged in thread.judgements]}
        if self._canaries:
            extra["canaries"] = [judged.result().row() for judged in self._canaries]
        return self._minutes.conclude(answer, reason, extra)

    def _choose(self, number: int) -> list[_Pair]:
        """What solvers of a round read of the rounds before."""
        if self.config.history == "last_rounds":
            recent = self._rounds[max(number - self.config.kappa, 0) : number]
            return [(thread.solution, thread.evaluations) for thread in chain(*recent)]
        latest = self._rounds[-1] if number else []
        stream = rng.stream(self.ask.seed, self.task.id, "comas", "references", number)
        drawn = [latest[i] for i in stream.permutation(len(latest))[: self.config.references].tolist()]
        picks = [int(stream.integers(max(self.config.evaluations, 1))) for _ in drawn]
        return [(t.solution, t.evaluations[i : i + 1]) for t, i in zip(drawn, picks, strict=True)]

    def _open(self, number: int, place: int, slot: Slot, shown: Sequence[_Pair]) -> _Thread:
        solver = self.agents[slot.solver]
        thread = _Thread(solver, asyncio.ensure_future(self._solve(solver, number, shown)), [], [])
        told = shown if self.config.evaluator_sees_history else ()
        for index, judges in enumerate(slot.judges):
            # An agent may have the same part for several solutions of a round.
            spot = _Spot(number, place * len(slot.judges) + index)
            evaluation, judging = self._review(judges, spot, thread.solution, told)
            thread.evaluations.extend([evaluation] if evaluation else [])
            thread.judgements.append(judging)
            if canary := plant(self.task, self.ask.seed, self.config.canaries, spot.round, spot.repeat):
                planted = asyncio.ensure_future(_be_said(canary))
                self._canaries.append(self._review(judges, spot._replace(mark=CANARY), planted, told)[1])
        return thread

    def _review(
        self, judges: tuple[int, int], spot: _Spot, solution: _Saying, told: Sequence[_Pair]
    ) -> tuple[_Saying | None, asyncio.Task[Judgement]]:
        """The evaluation of a solution, if there are any, and its judgement."""
        evaluator, scorer = (self.agents[i] for i in judges)
        evaluation = None
        if self.config.evaluations:
            evaluation = asyncio.ensure_future(self._evaluate(evaluator, spot, solution, told))
        judge = scorer if self.config.scoring else evaluator
        return evaluation, asyncio.ensure_future(self._judge(judge, spot, solution, evaluation))

    async def _solve(self, solver: Agent, number: int, shown: Sequence[_Pair]) -> _Said:
        discussion, read = await self._recall(shown)
        note = template("comas_solve").fill(discussion=discussion) if read else ""
        return await self._ask(solver, opening(solver, self.task, note), read, _Spot(number, 0), "answer")

    async def _evaluate(self, evaluator: Agent, spot: _Spot, solution: _Saying, told: Sequence[_Pair]) -> _Said:
        subject = (await solution).turn
        discussion, read = await self._recall(told)
        question = self.task.question
        if read:
            question += "\n\n" + template("comas_discussion").fill(discussion=discussion)
        form = template("comas_evaluate" if self.config.scoring else "comas_evaluate_and_score")
        request = Message("user", form.fill(question=question, solution=fence(subject.text, _LONGEST)))
        prompt = (*evaluator.preamble(), request)
        return await self._ask(evaluator, prompt, (subject, *read), spot, "evaluate")

    async def _judge(self, judge: Agent, spot: _Spot, solution: _Saying, evaluation: _Saying | None) -> Judgement:
        subject = (await solution).turn
        evaluated = None if evaluation is None else await evaluation
        remarks = evaluated.turn if evaluated else None
        scored = await self._score(judge, spot, subject, remarks) if self.config.scoring else None
        said = scored or evaluated
        assert said is not None, "the config makes sure that somebody judges"
        score, verdict = await self._read(judge, spot, said)
        return Judgement(subject, remarks, scored.turn if scored else None, verdict, score)

    async def _score(self, scorer: Agent, spot: _Spot, solution: Turn, evaluation: Turn | None) -> _Said:
        """Of the solution and its evaluation alone; the question is all else that a scorer knows."""
        fields = {"question": self.task.question, "solution": fence(solution.text, _LONGEST)}
        if evaluation is None:
            text = template("comas_score_solution").fill(**fields)
        else:
            text = template("comas_score").fill(**fields, evaluation=fence(evaluation.text, _LONGEST))
        read = (solution,) if evaluation is None else (solution, evaluation)
        prompt = (*scorer.preamble(), Message("user", text))
        return await self._ask(scorer, prompt, read, spot, "score")

    async def _read(self, judge: Agent, spot: _Spot, said: _Said) -> tuple[int | None, Turn | None]:
        """The score in a reply; or else, where verdicts are constrained, that of one more turn."""
        turn = said.turn
        score = read_score(turn.text, is_cut=turn.finish == "length")
        if score is not None or self.config.verdict == "free":
            return score, None
        request = Message("user", template("comas_verdict").fill())
        prompt = (*cast(Messages, turn.prompt), Message("assistant", turn.text), request)
        verdict = (await self._ask(judge, prompt, said.read, spot, "verdict", SCORES)).turn
        # Where something had to go, what was to be judged went first.
        is_read = verdict.text in SCORES and not verdict.num_dropped
        return int(verdict.text) if is_read else None, verdict

    async def _recall(self, shown: Sequence[_Pair]) -> tuple[str, tuple[Turn, ...]]:
        """Earlier work as agents are shown it, and the turns that this shows."""
        pairs = [((await solution).turn, [(await e).turn for e in evaluations]) for solution, evaluations in shown]
        return "\n".join(map(self._show, pairs)), tuple(t for s, evaluations in pairs for t in (s, *evaluations))

    def _show(self, pair: tuple[Turn, Sequence[Turn]]) -> str:
        solution, evaluations = fence(pair[0].text, _LONGEST), [turn.text for turn in pair[1]]
        if not self.config.scoring:
            evaluations = [_SCORE.sub("", text) for text in evaluations]
        if not evaluations:
            return solution
        remarks = "\n".join(fence(text, _LONGEST) for text in evaluations)
        return template("comas_reference").fill(solution=solution, evaluation=remarks)

    async def _ask(
        self, agent: Agent, prompt: Messages, read: tuple[Turn, ...], spot: _Spot, purpose: str,
        choices: Sequence[str] = (),
    ) -> _Said:  # fmt: skip
        if not spot.mark:
            self._minutes.link(spot.round, read, [agent.name], purpose)
        asked = self.ask(
            agent, prompt, round=spot.round, repeat=spot.repeat, purpose=spot.mark + purpose, choices=choices
        )
        return _Said(await asked, read)


async def _be_said(turn: Turn) -> _Said:
    """What is there already, as if it were awaited."""
    return _Said(turn, ())


def read_score(text: str, *, is_cut: bool = False) -> int | None:
    """The score of a reply, 1 to 3; None if no line gives one, or lines give different ones.

    Of a reply that is cut at its longest, nobody knows how the last line goes on.
    """
    lines = text.rpartition("\n")[0] if is_cut else text
    found = {said.strip(" \t\r*_.") for said in _SCORE.findall(lines)}
    return int(found.pop()) if found in ({"1"}, {"2"}, {"3"}) else None
