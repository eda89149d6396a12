"""What is measured in the iterations of a society's training, and how it is shown."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from coterie.experiments.monitoring.display import RichDisplay
from coterie.experiments.monitoring.display_plain import PlainDisplay, describe
from coterie.experiments.monitoring.display_updates import describe_update, show
from coterie.experiments.monitoring.sparklines import sparkline
from coterie.experiments.monitoring.tally import Audience, Meter, Standing, Tally
from coterie.experiments.monitoring.trackers import metrics_of, metrics_of_update
from coterie.experiments.records.updates import Update, curves, make_update, measure, read_updates, shares
from coterie.journal import Journal

AGENTS = {"debate": ("calm", "bold")}


def standing(found: list[Update], iterations: int) -> Standing:
    done = {"debate": {str(i): True for i in range(4 * len(found))}}
    return Standing(AGENTS, 4 * iterations, done, updates=found, iterations=iterations)


def test_a_curve_is_as_long_as_it_has_values_and_never_wider_than_its_place() -> None:
    assert [ord(c) - 0x2581 for c in sparkline([0.0, 0.5, 1.0], 8)] == [0, 4, 7]
    assert len(sparkline([float(i) for i in range(100)], 24)) == 24
    assert sparkline([None, 1.0, float("nan"), 2.0], 8)[0::2] == "  "
    assert sparkline([None, None], 8) == sparkline([], 8) == ""


def test_what_never_changes_is_a_flat_line() -> None:
    assert len(set(sparkline([3.0] * 5, 8))) == 1


def test_every_quantity_of_an_iteration_has_a_key_and_a_place(updates: Any) -> None:
    [update] = updates(1)
    found = measure(update)
    assert found["reward/answer"] == 1.0 and found["reward/evaluate"] == 0.0 and found["judge/youden"] == 0.5
    assert found["speed/tokens_per_second"] == 16.0 and found["speed/lag"] == 0.0
    assert found["learning/entropy"] == 1.0 and "judge/unanswered_passed" not in found
    times = [value for key, value in found.items() if key.startswith("time/")]
    assert found["time/rollout"] == 0.6 and sum(times) == pytest.approx(1.0)
    labels = [curve.label for curve in curves([update]) if curve.group == "reward"]
    assert labels == ["solver", "evaluator", "scorer"]


def test_policies_that_did_not_learn_are_in_no_mean(updates: Any) -> None:
    [update] = updates(1)
    policies = {**update.facts["policies"], "cy": {"weights": "", "learning": {}}}
    assert measure(make_update({**update.facts, "policies": policies}, {}))["learning/entropy"] == 1.0


def test_an_iteration_that_nobody_timed_has_no_speed_and_no_shares(updates: Any) -> None:
    update = make_update(updates(1)[0].facts, {})
    assert not {key for key in measure(update) if key.startswith(("time/", "speed/tokens"))}
    assert shares([update]) == {}


def test_tokens_that_were_generated_before_a_stop_are_in_no_speed(updates: Any) -> None:
    update = make_update(updates(1)[0].facts, {"rollout": 2.0, "tokens": 10})
    assert measure(update)["speed/tokens_per_second"] == 5.0


def test_a_journal_gives_back_its_iterations(make_school: Any, updates: Any) -> None:
    with Journal.read(make_school(3).journal) as journal:
        found = read_updates(journal)
        start = Standing.read(journal)
    assert [update.iteration for update in found] == [1, 2, 3] == [update.iteration for update in start.updates]
    assert found[0].seconds == updates(1)[0].seconds and start.iterations == 8


def test_a_terminal_shows_every_iteration_as_curves_within_eighty_columns(updates: Any) -> None:
    display = RichDisplay(Console(file=io.StringIO()))
    display.begin(standing(updates(5), 8))
    display.on_update(updates(6)[-1])
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(display.render())
    shown = console.export_text()
    for part in ("6/8 iterations", "20/32 episodes", "solver", "evaluator", "scorer", "Youden's J", "entropy",
                 "engine mismatch, KL", "tokens/s", "lag, versions", "rollout 60%", "\u2588"):  # fmt: skip
        assert part in shown, part
    assert "\u2026" not in shown and max(map(len, shown.splitlines())) <= 80


def test_a_training_shows_no_accuracy_over_all_its_versions(updates: Any) -> None:
    tally = Tally()
    tally.begin(standing(updates(5), 8))
    assert "100%" not in describe(tally.view()) and "5/8 iterations" in describe(tally.view())
    assert not [key for key in metrics_of(tally.view()) if key.startswith("accuracy")]


def test_a_log_has_a_line_for_each_iteration(updates: Any) -> None:
    out = io.StringIO()
    display = PlainDisplay(out)
    display.begin(standing([], 8))
    display.on_update(updates(8)[3])
    line = out.getvalue().splitlines()[-1]
    for part in ("iteration 4/8", "solvers right 25.0%", "society 50.0%", "solver 0.5, evaluator 0.5, scorer -0.5",
                 "with truth +0.50", "precision 75.0%", "youden +0.25", "entropy 1.5", "16 tokens/s",
                 "lag 0"):  # fmt: skip
        assert part in line, part


def test_a_line_of_an_iteration_without_judges_or_learning_is_whole(updates: Any) -> None:
    facts = {**updates(1)[0].facts, "judge": None, "policies": {"ann": {"weights": "", "learning": {}}}, "roles": {}}
    facts["solver"] = dict.fromkeys(facts["solver"])
    line = describe_update(make_update({**facts, "accuracy": None}, {}), 1)
    assert line == "iteration 1/1 | solvers right -, society - | reward -, with truth - | lag 0"


def test_trackers_get_the_same_numbers_and_each_policy_by_itself(updates: Any) -> None:
    update = updates(8)[7]
    found = metrics_of_update(update)
    assert measure(update).items() <= found.items()
    assert found["policy/ann/entropy"] == found["policy/bob/entropy"] == 1.0 and found["progress/iterations"] == 8.0


def test_a_meter_counts_what_is_generated_and_everybody_is_told(updates: Any, events: Any) -> None:
    meter, tally = Meter(), Tally()
    everybody = Audience(tally, meter)
    for turn, verdict in zip(events[0].turns, events[0].verdicts, strict=True):
        everybody.on_turn(turn, verdict)
    everybody.on_update(updates(1)[0])
    assert meter.tokens == tally.view().tokens == 16 and len(tally.view().updates) == 1


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(0.123, "share", "12.3%"), (-0.5, "signed", "-0.50"), (-0.0, "number", "0"), (1234.5, "number", "1234"),
     (None, "share", ""), (1e-6, "number", "1e-06")],
)  # fmt: skip
def test_numbers_are_written_as_people_write_them(value: Any, form: Any, text: str) -> None:
    assert show(value, form) == text
