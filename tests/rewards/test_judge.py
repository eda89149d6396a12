import pytest

from coterie.rewards.judge import calibrate, read_canaries, read_rulings
from coterie.types import Outcome, Place, Turn, Verdict

PURPOSES = ("answer", "evaluate", "score")


def turn(key, seat, purpose, answer, *, task):
    return Turn(key, Place(task, 0, seat, purpose=purpose), "base", 0, (), "", answer, "stop", 9, 3)


def rule(*rows, verdicts=None, task="t"):
    """Each row: what a solver answered, the score it got, and who solved, evaluated and scored; 4 is right."""
    turns, judgements, judged = {}, [], {}
    for i, (answer, score, seats) in enumerate(rows):
        keys = [f"{task}{i}{purpose}" for purpose in PURPOSES]
        said = (answer, None, None)
        turns |= {k: turn(k, *of, task=task) for k, *of in zip(keys, seats, PURPOSES, said, strict=True)}
        judged[keys[0]] = Verdict(answer, answer == "4")
        judgements.append(dict(zip(("solution", "evaluation", "scoring"), keys, strict=True)) | {"score": score})
    outcome = Outcome(None, (), extra={"judgements": judgements})
    return read_rulings(outcome, turns, judged if verdicts is None else verdicts)


# Four right solutions with scores 3, 3, 2, 1, three wrong ones with 3, 1, 1, and one that could not be read.
ORACLE = [("4", 3, "abc"), ("4", 3, "bca"), ("4", 2, "cab"), ("4", 1, "abc"),
          ("5", 3, "bca"), ("5", 1, "cab"), (None, 1, "abc"), ("4", None, "bca")]  # fmt: skip


def test_precision_recall_and_youden_of_a_toy_society_are_those_worked_by_hand():
    found = calibrate(rule(*ORACLE)).rates()
    assert found["precision"] == 3 / 4
    assert found["recall"] == 3 / 4
    assert found["youden"] == pytest.approx(3 / 4 - 1 / 3)
    assert found["base_rate"] == 4 / 7
    assert found["unread"] == 1 / 8


def test_only_the_best_score_may_count_as_right():
    found = calibrate(rule(*ORACLE)).rates(least_right=3)
    assert (found["precision"], found["recall"]) == (2 / 3, 2 / 4)
    assert found["youden"] == pytest.approx(2 / 4 - 1 / 3)


def test_what_solvers_earn_and_how_it_goes_with_the_truth():
    found = calibrate(rule(*ORACLE)).rates()
    assert found["solver_reward"] == (1 + 1 + 0.5 + 0 + 1 + 0 + 0) / 7
    # x = 1, 1, .5, 0, 1, 0, 0 and y = 1, 1, 1, 1, 0, 0, 0: 7*2.5 - 3.5*4 over sqrt((7*3.25 - 3.5^2)(7*4 - 4^2)).
    assert found["correlation"] == pytest.approx(3.5 / (10.5 * 12) ** 0.5)


def test_a_perfect_judge_a_flatterer_and_a_coin():
    perfect = calibrate(rule(("4", 3, "abc"), ("5", 1, "bca"))).rates()
    assert perfect["youden"] == perfect["correlation"] == 1 and perfect["contradictions"] == 0
    flatterer = calibrate(rule(("4", 3, "abc"), ("5", 3, "bca"))).rates()
    assert flatterer["youden"] == 0 and flatterer["contradictions"] == 1 and flatterer["correlation"] is None
    coin = calibrate(rule(("4", 3, "abc"), ("4", 1, "bca"), ("5", 3, "cab"), ("5", 1, "abc"))).rates()
    assert coin["youden"] == coin["correlation"] == 0 and coin["contradictions"] == 1 / 4


def test_solvers_that_judge_themselves_are_counted():
    found = calibrate(rule(("4", 3, "aab"), ("4", 3, "aba"), ("4", 3, "abb"), ("4", 3, "aaa"))).rates()
    assert (found["own_evaluations"], found["own_scores"]) == (1 / 2, 1 / 2)


def test_solutions_without_an_answer_are_wrong_whatever_is_right():
    found = calibrate(rule((None, 3, "abc"), (None, 1, "bca"), (None, None, "cab"), ("4", 3, "abc"))).rates()
    assert found["unanswered_passed"] == 1 / 2


def test_canaries_have_a_score_of_their_own_and_are_in_no_other_rate():
    row = {"solution": "empty", "evaluation": "e", "scoring": "s"}
    outcome = Outcome(None, (), extra={"canaries": [row | {"score": score} for score in (1, 1, 3, None)]})
    found, without = calibrate(rule(*ORACLE), read_canaries(outcome)), calibrate(rule(*ORACLE))
    assert (found.canaries, found.rates()["canary_score"]) == ((2, 0, 1), 1 / 3)
    assert found.rates() == {**without.rates(), "canary_score": 1 / 3} and without.rates()["canary_score"] is None


def test_only_solutions_of_one_task_contradict_each_other():
    rulings = rule(("4", 3, "abc")) + rule(("5", 3, "abc"), task="u")
    assert calibrate(rulings).rates()["contradictions"] is None


def test_without_verdicts_the_rates_that_need_none_are_still_there():
    found = calibrate(rule(*ORACLE, verdicts={})).rates()
    assert found["precision"] is found["recall"] is found["youden"] is found["base_rate"] is None
    assert found["correlation"] is None
    assert found["solver_reward"] == 0.5 and found["unread"] == 1 / 8 and found["unanswered_passed"] == 0


def test_a_verdict_that_nobody_knows_is_in_no_rate():
    keys = {"t0answer": Verdict("4", False, timed_out=True), "t1answer": Verdict("5", False)}
    assert calibrate(rule(("4", 3, "abc"), ("5", 1, "bca"), verdicts=keys)).wrong == (1, 0, 0)


def test_a_run_in_which_nobody_judges_has_no_rates():
    assert set(calibrate(read_rulings(Outcome(None, ()), {}, {})).rates().values()) == {None}


def test_a_judge_that_had_to_be_asked_again_did_not_say_it_at_once():
    turns = {key: turn(key, seat, key, None, task="t") for key, seat in zip(PURPOSES, "abc", strict=True)}
    row = {"solution": "answer", "evaluation": "evaluate", "scoring": "score", "score": 3, "verdict": "asked again"}
    found = calibrate(read_rulings(Outcome(None, (), extra={"judgements": [row]}), turns, {}))
    assert found.rates()["unread"] == 1 and found.scores == (0, 0, 1)


@pytest.mark.parametrize(("missing", "own"), [("evaluation", False), ("scoring", True)])
def test_either_the_evaluation_or_the_scoring_may_be_missing(missing, own):
    turns = {key: turn(key, seat, key, None, task="t") for key, seat in zip(PURPOSES, "aab", strict=True)}
    row = {"solution": "answer", "evaluation": "evaluate", "scoring": "score", "score": 1} | {missing: None}
    (ruling,) = read_rulings(Outcome(None, (), extra={"judgements": [row]}), turns, {})
    assert (ruling.judge, ruling.is_own_evaluation, ruling.is_own_score) == ("a" if own else "b", own, own)
