"""The judge of a run: verdicts on turns and episodes, and the rewards that follow from them.

Where a benchmark leaves the verdict to a model, a policy is asked about every answer once its episode is over, through
the same door as the agents: journalled, memoised, and within the run's budget. Its turns are none of the episode's.
Probes of the agents' self-evaluation go the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from coterie.errors import PluginError
from coterie.journal import Fact, Journal
from coterie.orchestration import records
from coterie.orchestration.jobs import Inquiry, Job
from coterie.orchestration.probes import Interviewer
from coterie.rewards.base import Reward, WorkedEpisode
from coterie.types import Grader, ModelGrader, Outcome, Place, Turn, Verdict

JUDGE = "judge"
"""The purpose of a judge model's turns."""


class Judge:
    """Holds the grader, so that nobody else in the run has to.

    Args:
        grader: The benchmark's; its verdicts are journalled and shown to no protocol.
        rewards: By name.
        journal: Where the turns of an episode are read from.
        interviewer: Asks agents how sure they are; None asks nobody.
    """

    def __init__(
        self,
        grader: Grader,
        rewards: Mapping[str, Reward],
        journal: Journal,
        interviewer: Interviewer | None = None,
    ) -> None:
        self._grader, self.rewards, self._journal, self._interviewer = grader, rewards, journal, interviewer
        self._model = grader if isinstance(grader, ModelGrader) else None

    @property
    def inquires(self) -> bool:
        """Whether policies are asked about episodes that are over."""
        return self._model is not None or self._interviewer is not None

    def judge_turns(self, turns: Sequence[Turn]) -> list[Verdict | None]:
        """The verdict on each turn that answers its task; None for any other turn. Called from any thread.

        Where a model judges there is none yet: `judge_episode` gives them.
        """
        return [
            self._grader.grade(turn.place.task, turn.answer)
            if turn.place.purpose == "answer" and self._model is None
            else None
            for turn in turns
        ]

    def inquire(self, job: Job, outcome: Outcome) -> tuple[Inquiry, ...]:
        """What is to be asked about a finished episode, before it is judged; the same for the same episode."""
        turns = _answering(self._turns(outcome)) if self.inquires else {}
        asked = self._judge_inquiries(self._model, job, turns) if self._model else []
        return (*asked, *(self._interviewer.inquire(outcome, turns) if self._interviewer else ()))

    def _judge_inquiries(self, model: ModelGrader, job: Job, turns: Mapping[str, Turn]) -> list[Inquiry]:
        return [
            Inquiry(_judge_place(turn), model.judge, model.judge_prompt(job.task.id, turn.answer))
            for turn in turns.values()
            if turn.answer is not None and _is_whole(turn)
        ]

    def judge_episode(self, job: Job, outcome: Outcome, answers: Sequence[Turn] = ()) -> tuple[Verdict, list[Fact]]:
        """The verdict on a society's answer, and all facts of the finished episode.

        Args:
            job: The episode's.
            outcome: Its end.
            answers: To `inquire`.
        """
        turns = self._turns(outcome) if self.inquires or self.rewards else {}
        if self._model is None:
            verdict, facts = self._grader.grade(job.task.id, outcome.answer), list[Fact]()
        else:
            verdict, facts = self._judge_by_model(self._model, job, outcome, turns, answers)
        facts.append(records.episode_fact(job, outcome, verdict))
        if self._interviewer:
            facts += self._interviewer.facts(job, outcome, _answering(turns), answers)
        if self.rewards:
            given = {fact.key: fact.payload for fact in facts if fact.kind == "verdict"}
            episode = self._worked(job, outcome, turns, verdict, given)
            facts += [self._reward_fact(name, reward, job, episode) for name, reward in self.rewards.items()]
        return verdict, facts

    def _judge_by_model(
        self, model: ModelGrader, job: Job, outcome: Outcome, turns: Mapping[str, Turn], answers: Sequence[Turn]
    ) -> tuple[Verdict, list[Fact]]:
        """The verdicts on all answers; the society's is that on the last turn that gave its answer."""
        said = {turn.place: turn for turn in answers}
        facts, whole = list[Fact](), model.grade(job.task.id, None)
        for turn in sorted(_answering(turns).values(), key=lambda turn: (turn.place, turn.key)):
            judgement = said.get(_judge_place(turn))
            if judgement is None or turn.answer is None:
                verdict = model.grade(job.task.id, turn.answer)
            else:
                # A judge that was not shown everything has judged something else.
                verdict = model.read_judgement(turn.answer, "" if judgement.num_dropped else judgement.text)
            facts.append(records.verdict_fact(turn, verdict))
            if turn.answer is not None and turn.answer == outcome.answer:
                whole = verdict
        return whole, facts

    def _turns(self, outcome: Outcome) -> dict[str, Turn]:
        """All turns of an episode, by key."""
        return {key: records.read_turn(key, self._read(key)) for key in outcome.turns}

    def _worked(
        self, job: Job, outcome: Outcome, turns: Mapping[str, Turn], verdict: Verdict, given: Mapping[str, Any]
    ) -> WorkedEpisode:
        judged = {key: given.get(f"verdict/{key}") or self._journal.get(f"verdict/{key}") for key in turns}
        verdicts = {key: Verdict(**payload) for key, payload in judged.items() if payload is not None}
        return WorkedEpisode(job.task, outcome, turns, verdicts, verdict)

    def _read(self, key: str) -> dict[str, Any]:
        payload: dict[str, Any] = self._journal.get(key) or {}
        return payload

    def _reward_fact(self, name: str, reward: Reward, job: Job, episode: WorkedEpisode) -> Fact:
        values = dict(reward.score(episode))
        for key, value in values.items():
            if key not in episode.turns or not math.isfinite(value):
                raise PluginError(
                    f"the reward {name!r} gave {value!r} to {key!r}", where=job.key,
                    remedy="a reward gives finite numbers to turns of the episode",
                )  # fmt: skip
        payload = {"reward": name, "society": job.society, "task": job.task.id, "turns": values}
        return Fact(f"reward/{name}/{job.society}/{job.task.id}", "reward", payload)


def _answering(turns: Mapping[str, Turn]) -> dict[str, Turn]:
    """Those that answer the episode's task."""
    return {key: turn for key, turn in turns.items() if turn.place.purpose == "answer"}


def _judge_place(turn: Turn) -> Place:
    return turn.place._replace(purpose=JUDGE)


def _is_whole(turn: Turn) -> bool:
    """Not cut at its longest: what it would have said is not known."""
    return turn.finish == "stop"
