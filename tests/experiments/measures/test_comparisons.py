"""Paired comparisons, families of tests, and repeats."""

import numpy as np
import pytest

from coterie.experiments.measures.comparisons import compare, correct_family
from coterie.experiments.statistics.inference import (
    detectable_difference,
    mcnemar_exact,
    paired_bootstrap,
    sign_flip_test,
)


def test_tasks_that_stand_once_and_are_right_or_wrong_are_tested_by_mcnemar() -> None:
    a, b = {("x", 0): 1.0, ("y", 0): 1.0, ("z", 0): 0.0}, {("x", 0): 0.0, ("y", 0): 1.0, ("w", 0): 1.0}
    row = compare(a, b, 0)
    assert (row["tasks"], row["pairs"], row["only_a"], row["only_b"], row["test"]) == (2, 2, 1, 0, "mcnemar")
    assert row["p"] == mcnemar_exact([True, True], [False, True]).p
    assert row["difference"] == 0.5


def test_an_expected_accuracy_is_tested_by_sign_flips_and_its_interval_is_the_bootstraps() -> None:
    a, b = {(str(i), 0): 1.0 for i in range(9)}, {(str(i), 0): i / 10 for i in range(9)}
    row = compare(a, b, 3)
    mine, theirs = list(a.values()), list(b.values())
    expected = paired_bootstrap(mine, theirs, 3)
    assert (row["difference"], row["interval"]) == (expected.value, [expected.low, expected.high])
    assert (row["p"], row["test"]) == (sign_flip_test(mine, theirs, 3), "sign_flip") == (2 ** (1 - 9), "sign_flip")
    assert row["detectable"] == detectable_difference(mine, theirs)
    assert "only_a" not in row


@pytest.mark.parametrize(("n", "p"), [(1, 1.0), (3, 0.25)])
def test_few_tasks_prove_nothing_however_often_they_are_repeated(n: int, p: float) -> None:
    items = [(str(task), repeat) for task in range(n) for repeat in range(5)]
    assert compare(dict.fromkeys(items, 1.0), dict.fromkeys(items, 0.0), 0)["p"] == p


@pytest.mark.parametrize(("value", "other"), [(1.0, 1.0), (1.0, 0.0)])
def test_few_tasks_that_all_differ_alike_leave_much_open(value: float, other: float) -> None:
    items = [(str(task), 0) for task in range(3)]
    low, high = compare(dict.fromkeys(items, value), dict.fromkeys(items, other), 0)["interval"]
    assert low <= value - other <= high and high - low > 0.5


def test_repeats_are_averaged_by_task_before_tasks_are_resampled() -> None:
    generator = np.random.default_rng(0)
    tasks = generator.integers(0, 2, 40)
    # Four repeats that tell nothing new: the interval must not shrink.
    once = compare(
        {(f"{t:02d}", 0): float(v) for t, v in enumerate(tasks)}, {(f"{t:02d}", 0): 0.5 for t in range(40)}, 0
    )
    often = compare(
        {(f"{t:02d}", r): float(v) for t, v in enumerate(tasks) for r in range(4)},
        {(f"{t:02d}", r): 0.5 for t in range(40) for r in range(4)}, 0,
    )  # fmt: skip
    assert (often["tasks"], often["pairs"]) == (40, 160)
    assert often["interval"] == pytest.approx(once["interval"])
    assert often["detectable"] == pytest.approx(once["detectable"])


def test_nothing_in_common_is_no_comparison() -> None:
    row = compare({("x", 0): 1.0}, {("y", 0): 1.0}, 0)
    assert row["difference"] is row["p"] is row["detectable"] is None


def test_a_family_is_corrected_together_and_leaves_out_what_was_not_tested() -> None:
    rows = [{"p": 0.02}, {"p": None}, {"p": 0.03}]
    correct_family(rows)
    assert [row.get("p_holm") for row in rows] == [0.04, None, 0.04]
