import pytest

from coterie.errors import ConfigError, PluginError
from coterie.rewards.base import WorkedEpisode
from coterie.rewards.config_rewards import InteractionConfig
from coterie.rewards.interaction import Interaction
from coterie.types import Outcome, Place, Task, Turn, Verdict


def turn(key, answer=None, *, text="said", finish="stop", number=0):
    """`ann/answer` is what ann answered."""
    seat, purpose = key.split("/")
    return Turn(key, Place("t", number, seat, purpose=purpose), "base", 0, (), text, answer, finish, 9, 3)


def worked(judgements, answers=None, verdicts=None, extra=None, turns=()):
    answers = answers or {"ann": "4", "bob": "4", "cleo": "5"}
    every = [turn(f"{name}/answer", answer) for name, answer in answers.items()]
    every += [turn(f"{name}/{purpose}") for name in answers for purpose in ("evaluate", "score")]
    known = {t.key: t for t in [*every, *turns]}
    judged = {f"{name}/answer": Verdict(answer, answer == "4") for name, answer in answers.items()}
    rows = [dict(zip(("solution", "evaluation", "scoring", "score", "verdict"), row)) for row in judgements]  # noqa: B905
    outcome = Outcome("4", (), extra={"judgements": rows} if extra is None else extra)
    return WorkedEpisode(Task("t", "?"), outcome, known, judged if verdicts is None else verdicts, Verdict("4", True))


def score(episode, **fields):
    return dict(Interaction(InteractionConfig(**fields)).score(episode))


ONE = ("ann/answer", "bob/evaluate", "cleo/score")


@pytest.mark.parametrize(("given", "solution", "evaluation"), [(1, 0, 1), (2, 0.5, 0.5), (3, 1, 0)])
def test_solution_and_evaluation_share_one(given, solution, evaluation):
    expected = {"ann/answer": solution, "bob/evaluate": evaluation, "cleo/score": 0}
    assert score(worked([(*ONE, given)])) == expected


@pytest.mark.parametrize("given", [None, 0, 4, 2.5, "3"])
def test_a_score_that_cannot_be_read_costs_the_scorer_one_and_pays_nobody(given):
    assert score(worked([(*ONE, given)])) == {"ann/answer": 0, "bob/evaluate": 0, "cleo/score": -1}


def test_what_an_unread_score_was_about_may_get_nothing_at_all():
    assert score(worked([(*ONE, None)]), unread="nothing") == {"cleo/score": -1}


def test_the_price_of_an_unread_score_is_a_field():
    assert score(worked([(*ONE, None)]), failed=-0.25)["cleo/score"] == -0.25


def test_a_solution_is_worth_the_mean_over_its_evaluations():
    rows = [(*ONE, 3), ("ann/answer", "cleo/evaluate", "bob/score", 2)]
    assert score(worked(rows))["ann/answer"] == 0.75
    assert score(worked([rows[0], (*rows[1][:3], None)]))["ann/answer"] == 0.5
    assert score(worked([rows[0], (*rows[1][:3], None)]), unread="nothing")["ann/answer"] == 1


AGREES = [(3, "ann", 1), (2, "ann", 1), (1, "ann", 0), (3, "cleo", 0), (1, "cleo", 1)]


@pytest.mark.parametrize(("given", "solution", "agrees"), AGREES)
def test_a_scorer_may_be_paid_for_agreeing_with_the_verdict(given, solution, agrees):
    rows = [(f"{solution}/answer", "bob/evaluate", "bob/score", given)]
    assert score(worked(rows), scorer="verdict")["bob/score"] == agrees


@pytest.mark.parametrize("verdict", [None, Verdict("4", False, timed_out=True), Verdict("4", False, labels={})])
def test_where_no_verdict_is_known_the_scorer_gets_nothing(verdict):
    verdicts = {} if verdict is None else {"ann/answer": verdict}
    assert "cleo/score" not in score(worked([(*ONE, 3)], verdicts=verdicts), scorer="verdict")


def test_an_unread_score_costs_whoever_the_scorer_is_paid_for_agreeing_with():
    assert score(worked([(*ONE, None)]), scorer="verdict")["cleo/score"] == -1


def test_a_scorer_may_be_paid_for_agreeing_with_the_other_solvers():
    # Without the solver itself: bob and dan say 4 of ann's 5.
    answers = {"ann": "5", "bob": "4", "cleo": None, "dan": "4"}
    rows = [("ann/answer", "bob/evaluate", "cleo/score", 3), ("bob/answer", "ann/evaluate", "dan/score", 3)]
    found = score(worked(rows, answers, verdicts={}), scorer="majority")
    assert found["cleo/score"] == 0 and "dan/score" not in found


def test_a_preset_fills_in_what_is_not_given():
    mended = {"unread": "nothing", "scorer": "majority", "check_evaluations": True}
    assert InteractionConfig(preset="improved") == InteractionConfig(preset="improved", **mended)
    assert InteractionConfig(preset="improved", scorer="verdict").scorer == "verdict"
    assert InteractionConfig() == InteractionConfig(preset="faithful", unread="zero", scorer="format")


def test_a_scorer_that_had_to_be_asked_again_has_failed_but_its_score_counts():
    assert score(worked([(*ONE, 3, "cleo/verdict")])) == {"ann/answer": 1, "bob/evaluate": 0, "cleo/score": -1}


def test_without_evaluations_the_scoring_gets_what_the_solution_does_not():
    assert score(worked([("ann/answer", None, "cleo/score", 1)])) == {"ann/answer": 0, "cleo/score": 1}
    assert score(worked([("ann/answer", None, "cleo/score", None)])) == {"ann/answer": 0, "cleo/score": -1}


def test_without_scorings_the_evaluation_is_paid_for_its_format():
    assert score(worked([("ann/answer", "bob/evaluate", None, 3)])) == {"ann/answer": 1, "bob/evaluate": 0}
    assert score(worked([("ann/answer", "bob/evaluate", None, None)])) == {"ann/answer": 0, "bob/evaluate": -1}


def test_an_evaluation_that_says_nothing_may_be_checked():
    silent, cut = turn("bob/evaluate", text=" - "), turn("cleo/evaluate", finish="length")
    episode = worked([(*ONE, 1), ("bob/answer", "cleo/evaluate", "ann/score", 1)], turns=(silent, cut))
    assert score(episode)["bob/evaluate"] == score(episode)["cleo/evaluate"] == 1
    checked = score(episode, check_evaluations=True)
    assert checked["bob/evaluate"] == checked["cleo/evaluate"] == -1
    assert checked["ann/answer"] == 0 and checked["cleo/score"] == 0


def test_an_episode_in_which_nobody_judges_is_refused():
    with pytest.raises(ConfigError, match="finds no judgements"):
        score(worked([], extra={}))


def test_an_episode_that_its_own_limit_ended_gives_nothing():
    assert score(worked([], extra={"cut_short": "task_tokens"})) == {}


def test_a_judgement_without_its_turns_is_refused():
    for row in ({"solution": "ann/answer"}, dict(solution="ann/answer", evaluation=None, scoring=None, score=3), 5):
        with pytest.raises(PluginError, match="cannot be read"):
            score(worked([], extra={"judgements": [row]}))
