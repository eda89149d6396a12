import json
from typing import Any

import pytest

from coterie import registry
from coterie.agents.engines import models
from coterie.agents.tiny import folder, measure, train

RECORD = json.loads((folder() / "coterie.json").read_text())


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return measure.measure(folder(), 32, seed=5)


def test_it_is_a_built_in_model_of_at_most_six_megabytes() -> None:
    assert registry.impl("model", "coterie-tiny")() == folder()
    assert models.resolve("coterie-tiny") == str(folder())
    assert models.fingerprint(str(folder())) == RECORD["sha256"][:16]
    assert (folder() / "model.safetensors").stat().st_size < 6_000_000


def test_two_cores_make_it_in_a_quarter_of_an_hour() -> None:
    assert RECORD["cpu_seconds"] / RECORD["settings"]["threads"] < 900


def test_the_record_says_that_it_errs_and_that_it_can_be_read() -> None:
    assert 0.25 <= RECORD["measured"]["accuracy"] <= 0.45
    assert RECORD["measured"]["scores_parsed"] >= 0.85
    assert RECORD["measured"]["scorer"]["youden"] > 0.1


def test_the_record_has_the_settings_of_the_script() -> None:
    assert train.Settings(**RECORD["settings"]) == train.Settings(), "run `make tiny`"


def test_it_solves_some_sums_and_not_others(measured: dict[str, Any]) -> None:
    assert 0.2 <= measured["accuracy"] <= 0.5
    assert measured["answers_parsed"] >= 0.9


def test_its_verdicts_can_be_read_and_differ(measured: dict[str, Any]) -> None:
    assert measured["scores_parsed"] >= 0.85
    assert measured["scores"]["1"] > 0.1 and measured["scores"]["3"] > 0.1


@pytest.mark.parametrize("role", ["answer", "evaluate", "score"])
def test_its_replies_are_of_some_length_and_end(measured: dict[str, Any], role: str) -> None:
    assert 60 <= measured["tokens"][role]["p5"] and measured["tokens"][role]["p95"] <= 220
    assert measured["tokens"][role]["unended"] <= 0.05
