"""Who works what in an evaluation of a society's training, and in how few runs."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.config.load import loads
from coterie.config.schema import ExperimentConfig
from coterie.errors import ConfigError
from coterie.experiments.evaluation.cells import Questions, batches_of, rows_of

FRAME = {"seed": 1, "benchmark": {"kind": "sums"}}


def config(**changes: Any) -> ExperimentConfig:
    policy = {"model": "none", "engine": "transformers", "sampling": {"temperature": 1.0, "max_tokens": 8}}
    loaded = loads({
        "name": "school", "policies": {"small": policy, "large": {**policy, "model": "other"}},
        "seats": [{"name": "ann", "policy": "small", "persona": "easy_going"}, {"name": "bob", "policy": "large"}],
        "protocol": {"kind": "comas", "preset": "release"}, "rewards": ["interaction"],
        "learning": {"kind": "policy_gradient", "held_out": 2}, "benchmark": {"kind": "sums", "limit": 4}, **changes,
    })  # fmt: skip
    assert isinstance(loaded.config, ExperimentConfig)
    return loaded.config


WEIGHTS = {"small": "a" * 64, "large": "b" * 64}


def test_lone_agents_have_a_row_for_each_policy_and_societies_one() -> None:
    rows = rows_of(config(), WEIGHTS, Questions(("single", "debate", "comas")))
    assert [(row.protocol, row.speaker) for row in rows] == [
        ("single", "small"), ("single", "large"), ("debate", ""), ("comas", ""),
    ]  # fmt: skip
    assert [len(row.trained.seats) for row in rows] == [1, 1, 2, 2]
    assert rows[2].trained.seats[0]["persona"] == "easy_going" and not rows[0].trained.seats[0]["persona"]


def test_the_trainings_own_protocol_is_as_it_was_trained() -> None:
    [row] = rows_of(config(), WEIGHTS, Questions(("comas",)))
    assert row.trained.label == "comas-release" and row.trained.protocol["turn_order"] == "parallel_all"


def test_samples_and_temperature_are_those_asked_for() -> None:
    [first, _] = rows_of(config(), WEIGHTS, Questions(("self_consistency",), samples=3, temperature=0.7))
    assert first.trained.protocol["samples"] == 3
    assert first.untrained.policies["small"]["sampling"]["temperature"] == 0.7


def test_as_few_runs_as_can_be_work_all_cells() -> None:
    rows = rows_of(config(), WEIGHTS, Questions(("single", "self_consistency", "debate")))
    batches = list(batches_of([cell for row in rows for cell in (row.trained, row.untrained)]))
    assert [(b.main.label, b.main.is_trained, [cell.label for cell in b.others]) for b in batches] == [
        ("debate", True, ["single", "self_consistency"]), ("debate", False, ["single", "self_consistency"]),
        ("single", True, ["self_consistency"]), ("single", False, ["self_consistency"]),
    ]  # fmt: skip


def test_untrained_policies_of_one_model_are_asked_once() -> None:
    policy = {"model": "none", "engine": "transformers", "sampling": {"temperature": 1.0, "max_tokens": 8}}
    alike = config(policies={"small": policy, "large": policy})
    rows = rows_of(alike, WEIGHTS, Questions(("single",)))
    assert len({row.untrained.identify(FRAME) for row in rows}) == 1
    assert len({row.trained.identify(FRAME) for row in rows}) == 2


@pytest.mark.parametrize("change", ["weights", "seed", "samples"])
def test_whatever_answers_follow_from_tells_cells_apart(change: str) -> None:
    other = {"large": "c" * 64} if change == "weights" else {}
    frame = {**FRAME, **({"seed": 2} if change == "seed" else {})}
    samples = 4 if change == "samples" else None
    [_, one] = rows_of(config(), WEIGHTS, Questions(("self_consistency",)))
    [_, two] = rows_of(config(), WEIGHTS | other, Questions(("self_consistency",), samples=samples))
    assert one.trained.identify(FRAME) != two.trained.identify(frame)
    assert (one.untrained.identify(FRAME) == two.untrained.identify(frame)) == (change == "weights")


def test_engines_that_slept_beside_learners_do_not_in_an_evaluation() -> None:
    engine = {"kind": "vllm", "sleep": True}
    policy = {"model": "none", "engine": engine, "sampling": {"temperature": 1.0, "max_tokens": 8}}
    seats = [{"name": "ann", "policy": "small"}, {"name": "bob", "policy": "small"}]
    trained = config(policies={"small": policy}, seats=seats)
    rows = rows_of(trained, {}, Questions(("debate",)))
    [batch] = batches_of([row.untrained for row in rows])
    asked = loads(batch.config({"seed": 1, "benchmark": {"kind": "sums", "limit": 4}}, {})).config
    assert isinstance(asked, ExperimentConfig) and not getattr(asked.policies["small"].engine, "sleep", None)
    assert getattr(trained.policies["small"].engine, "sleep", None)


def test_a_protocol_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no protocol 'debat'"):
        rows_of(config(), WEIGHTS, Questions(("debat",)))
