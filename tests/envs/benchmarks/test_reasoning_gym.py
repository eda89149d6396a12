"""Questions from reasoning-gym."""

import inspect
import random
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reasoning_gym.factory import DATASETS

from coterie.envs import answers
from coterie.envs.benchmarks import reasoning_gym
from coterie.envs.benchmarks.config import ReasoningGymConfig
from coterie.envs.benchmarks.reasoning_gym import EVALUATING, HASH_ORDERED, ReasoningGym
from coterie.envs.grading import GradingPool
from coterie.errors import ConfigError
from coterie.testing.benchmarks import check_benchmark
from coterie.types import Task

ONE_DIGIT = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def build(experiment_seed: int = 0, /, **fields: Any) -> ReasoningGym:
    return ReasoningGym(ReasoningGymConfig.model_validate(fields), experiment_seed, Path())


def solve_sum(task: Task) -> str:
    found = re.search(r"(\d) ([-+]) (\d) =$", task.question)
    assert found is not None
    left, sign, right = found.groups()
    return str(int(left) + int(right) * (1 if sign == "+" else -1))


def solve_product(task: Task) -> str:
    found = re.search(r"(\d+) \* (\d+)\.", task.question)
    assert found is not None
    return str(int(found[1]) * int(found[2]))


def test_one_digit_sums_keep_the_contract() -> None:
    check_benchmark(lambda: build(task="chain_sum", limit=100, params=ONE_DIGIT), solve_sum)


def test_one_digit_products_keep_the_contract() -> None:
    check_benchmark(lambda: build(task="products", limit=60, params={"max_digits": 1}), solve_product)


def test_questions_are_different_and_a_longer_list_begins_with_the_shorter_one() -> None:
    short, long = (build(task="chain_sum", limit=n, params=ONE_DIGIT).tasks() for n in (20, 120))
    assert long[:20] == short
    assert len({task.question for task in long}) == 120


def test_the_default_seed_is_fixed_and_null_follows_the_experiment() -> None:
    assert build(1, task="gcd", limit=3).fingerprint() == build(2, task="gcd", limit=3).fingerprint()
    assert (
        build(1, task="gcd", limit=3, seed=None).fingerprint() != build(2, task="gcd", limit=3, seed=None).fingerprint()
    )


def test_examples_are_of_other_questions_and_chosen_without_the_gold_answer() -> None:
    tasks = build(task="chain_sum", limit=150, params=ONE_DIGIT).tasks()
    assert all(task.question not in task.example for task in tasks)
    assert len({task.example for task in tasks}) <= 2
    assert answers.parse(tasks[0].example, "number") is not None


def test_reprs_show_no_gold_answer() -> None:
    benchmark = build(task="basic_arithmetic", limit=1, params={"min_digits": 9, "max_digits": 9})
    gold = benchmark._items[benchmark.tasks()[0].id].gold
    assert gold not in repr(benchmark) + repr(benchmark.grader()) + repr(benchmark._items)


@pytest.mark.parametrize("name", ["list_functions", "pool_matrix", "bf"])
def test_generation_touches_no_global_generator_and_prints_nothing(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    first = build(task=name, limit=4)
    assert random.getstate() == python
    assert np.random.get_state()[1].tolist() == numpy  # type: ignore[index]
    assert first.fingerprint() == build(task=name, limit=4).fingerprint()
    assert capfd.readouterr().out == ""


# One or two of each way of grading: equality, tolerance, case, several right answers, scorers without a gold answer.
SAMPLED = ("advanced_geometry", "caesar_cipher", "calendar_arithmetic", "countdown", "dice", "jugs", "knights_knaves",
           "n_queens", "number_sorting", "simple_integration", "spiral_matrix", "sudoku", "tower_of_hanoi")  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_gold_answers_are_accepted_as_replies(name: str) -> None:
    _check_golds(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"composite"} - set(SAMPLED)))
def test_every_generator_accepts_its_gold_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    _check_golds(name)


def _check_golds(name: str) -> None:
    benchmark = build(task=name, limit=3)
    grader = benchmark.grader()
    for task in benchmark.tasks():
        gold = benchmark._items[task.id].gold
        if gold:
            reply = f"Answer:\n{gold}" if "\n" in gold else f"Answer: {gold}"
            assert grader.grade(task.id, answers.parse(reply, task.answer_type)).correct
            assert not grader.grade(task.id, "none of these").correct


def test_another_right_answer_than_the_gold_one_is_accepted() -> None:
    benchmark = build(task="countdown", limit=1)
    task = benchmark.tasks()[0]
    assert benchmark.grader().grade(task.id, f"0 + ({benchmark._items[task.id].gold})").correct is False
    assert benchmark.grader().grade(task.id, f"(({benchmark._items[task.id].gold}))").correct


def test_an_exact_answer_in_another_case_is_wrong() -> None:
    benchmark = build(task="word_sorting", limit=1)
    task = benchmark.tasks()[0]
    gold = benchmark._items[task.id].gold
    assert task.answer_type == "exact"
    assert benchmark.grader().grade(task.id, gold).correct
    assert not benchmark.grader().grade(task.id, gold.casefold()).correct


def test_a_scorer_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = GradingPool("coterie.envs.benchmarks.reasoning_gym:is_right", cpu_seconds=0.0001)
    monkeypatch.setattr(reasoning_gym, "pool", lambda: impatient)
    benchmark = build(task="countdown", limit=1)
    task = benchmark.tasks()[0]
    gold = benchmark._items[task.id].gold
    assert benchmark.grader().grade(task.id, gold).correct
    assert impatient.num_killed == 0
    late = benchmark.grader().grade(task.id, f"(({gold}))")
    assert (late.correct, late.timed_out) == (False, True)
    assert impatient.num_killed == 1
    impatient.close()


def test_scorers_that_run_answers_as_code_are_all_known() -> None:
    runs_code = re.compile(r"(?:\beval|\bexec|parse_expr|sympify)\((?:answer|user|predicted)")
    found = {
        name for name, (dataset, _) in DATASETS.items() if runs_code.search(inspect.getsource(dataset.score_answer))
    }
    assert found == set(EVALUATING)


@pytest.mark.parametrize("name", sorted(set(EVALUATING) - HASH_ORDERED))
def test_an_answer_is_never_run_as_code(name: str, tmp_path: Path) -> None:
    benchmark = build(task=name, limit=1)
    mark = tmp_path / "mark"
    attack = f"__import__('pathlib').Path('{mark}').touch()"
    for answer in (attack, f"[{attack}]", "9**9**9**9**9", "factorial(9999999)"):
        assert not benchmark.grader().grade(benchmark.tasks()[0].id, answer).correct
    assert not mark.exists()


def test_grading_works_outside_the_main_thread() -> None:
    benchmark = build(task="chain_sum", limit=1)
    task = benchmark.tasks()[0]
    found: list[bool] = []
    gold = benchmark._items[task.id].gold
    thread = threading.Thread(target=lambda: found.append(benchmark.grader().grade(task.id, gold).correct))
    thread.start()
    thread.join()
    assert found == [True]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task": "chain_sums"}, "did you mean chain_sum"),
        ({"task": "chain_sum", "params": {"max_term": 2}}, "did you mean max_terms"),
        ({"task": "chain_sum", "params": {"max_digits": 0}}, "refuses these parameters"),
        ({"task": "chain_sum", "params": {"seed": 3}}, "no parameter 'seed'"),
        ({"task": "chain_sum", "params": ONE_DIGIT, "limit": 300}, "different questions"),
        ({"task": "composite"}, "refuses these parameters"),
    ],
)
def test_a_wrong_config_says_what_to_do(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(**fields)
    assert words in str(error.value)


def test_a_generator_that_follows_the_hash_seed_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(ConfigError, match="process to process"):
        build(task="word_ladder")


def test_what_was_accepted_once_is_checked_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path))
    ReasoningGym.check(ReasoningGymConfig(task="chain_sum", params={"max_terms": 3}), 0, Path())
    code = """
        import sys
        from pathlib import Path
        from coterie.envs.benchmarks.config import ReasoningGymConfig
        from coterie.envs.benchmarks.reasoning_gym import ReasoningGym
        ReasoningGym.check(ReasoningGymConfig(task="chain_sum", params={"max_terms": 3}), 0, Path())
        print("reasoning_gym" in sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_what_was_refused_is_refused_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path))
    for _ in range(2):
        with pytest.raises(ConfigError, match="max_terms must be"):
            ReasoningGym.check(ReasoningGymConfig(task="chain_sum", params={"max_terms": 1}), 0, Path())


def test_config_imports_nothing_heavy() -> None:
    code = (
        "import sys, coterie.envs.benchmarks.config; "
        "print([m for m in ('numpy', 'reasoning_gym', 'sympy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
