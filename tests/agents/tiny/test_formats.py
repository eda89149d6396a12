import re

import pytest

from coterie import rng
from coterie.agents.tiny import formats, lessons
from coterie.agents.tiny.arithmetic import CHECKER, SOLVER, Faults, draw_sum, draw_terms, work
from coterie.envs import answers
from coterie.envs.benchmarks.config import ReasoningGymConfig
from coterie.envs.benchmarks.reasoning_gym import ReasoningGym

FAULTLESS = Faults(slip=0.0, sign=0.0)
SUMS = [draw_terms(rng.stream(1, "test", i)) for i in range(300)]


def test_working_without_faults_gives_the_sum() -> None:
    stream = rng.stream(1, "test")
    assert all(work(terms, FAULTLESS, stream).answer == sum(terms) for terms in SUMS)


def test_solvers_err_more_often_than_checkers_and_checkers_do_err() -> None:
    four = [draw_sum(rng.stream(2, "test", i), 4, 2) for i in range(500)]

    def share(faults: Faults) -> float:
        return sum(work(t, faults, rng.stream(3, "test", i)).answer == sum(t) for i, t in enumerate(four)) / len(four)

    assert 0.5 < share(SOLVER) < share(CHECKER) < 0.95


def test_the_answer_of_a_solution_is_read_as_the_benchmark_reads_it() -> None:
    for i, terms in enumerate(SUMS):
        solution = formats.solve(work(terms, SOLVER, rng.stream(4, "test", i)))
        assert answers.parse(solution.text, "number") == str(solution.working.answer)


def test_an_evaluation_without_faults_objects_to_wrong_answers_alone() -> None:
    for i, terms in enumerate(SUMS):
        solution = formats.solve(work(terms, SOLVER, rng.stream(5, "test", i)))
        evaluation = formats.evaluate(solution, work(terms, FAULTLESS, rng.stream(6, "test")))
        assert (evaluation.finding == "mistake") == (solution.working.answer != sum(terms)), evaluation.text


def test_scores_follow_from_the_scorers_own_sum() -> None:
    for i, terms in enumerate(SUMS):
        solution = formats.solve(work(terms, SOLVER, rng.stream(7, "test", i)))
        own = work(terms, FAULTLESS, rng.stream(8, "test"))
        evaluation = formats.evaluate(solution, own)
        wanted = {"mistake": "1", "slip": "2", "none": "3"}[evaluation.finding]
        assert formats.score(solution, evaluation, own).endswith(f"\nScore: {wanted}")


def test_a_solution_that_lacks_its_end_is_refused() -> None:
    own = work((12, 34, -5), FAULTLESS, rng.stream(9, "test"))
    cut = formats.Solution(own, formats.solve(own).text.split("\n")[0], 1)
    evaluation = formats.evaluate(cut, own)
    assert evaluation.text.endswith("Mistake: there is no answer.")
    assert formats.score(cut, evaluation, own).endswith("Score: 1")


def test_the_question_is_worded_as_the_benchmark_words_it(tmp_path: object) -> None:
    config = ReasoningGymConfig.model_validate(
        {"kind": "reasoning_gym", "task": "chain_sum", "limit": 5,
         "params": {"min_terms": 4, "max_terms": 4, "min_digits": 2, "max_digits": 2}}
    )  # fmt: skip
    for task in ReasoningGym(config, 1, tmp_path).tasks():  # type: ignore[arg-type]
        words = re.findall(r"[+-] |[0-9]+", f"+ {task.question}")
        terms = [int(words[i].strip() + words[i + 1]) for i in range(0, len(words), 2)]
        assert formats.ask(tuple(terms)) == task.question


@pytest.mark.parametrize("seed", [1, 2])
def test_lessons_are_functions_of_seed_and_number(seed: int) -> None:
    drawn = [lessons.draw_lesson(seed, i) for i in range(20)]
    assert drawn == [lessons.draw_lesson(seed, i) for i in range(20)]
    assert drawn != [lessons.draw_lesson(seed + 2, i) for i in range(20)]
