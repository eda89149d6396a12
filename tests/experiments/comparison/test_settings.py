"""What runs are called that stand side by side."""

from collections.abc import Mapping
from typing import Any

from coterie.experiments.comparison.settings import sort_facts


def facts(name: str, seed: int = 0, **config: Any) -> dict[str, Any]:
    return {"config": {"name": name, "seed": seed, **config}, "templates": {}, "plugins": {}}


def labels(*found: Mapping[str, Any]) -> list[str]:
    return [label for label, _ in sort_facts(found, pool=True)[0]]


def test_experiments_of_different_names_are_called_by_them() -> None:
    assert labels(facts("a", seats=[1, {"x": 2}]), facts("b", seats=[3])) == ["a", "b"]


def test_settings_of_one_experiment_are_called_by_what_differs() -> None:
    assert labels(facts("a", k=1), facts("a", k=2)) == ["k=1", "k=2"]


def test_among_several_experiments_both_are_said_where_both_are_needed() -> None:
    assert labels(facts("a", k=1), facts("b", k=3), facts("a", k=2)) == ["a, k=1", "b", "a, k=2"]


def test_a_mode_stands_for_the_fields_that_follow_from_it() -> None:
    paper = {"kind": "selforg", "mode": "paper", "cut": "rise", "contribution": {"kind": "psi"}}
    release = {"kind": "selforg", "mode": "release", "cut": "lightest", "contribution": {"kind": "softmax_psi"}}
    assert labels(facts("a", protocol=paper), facts("a", protocol=release)) == ["mode=paper", "mode=release"]


def test_repeats_under_other_seeds_are_one_setting_called_by_the_experiment() -> None:
    assert labels(facts("a", 1), facts("a", 2)) == ["a"]


def test_a_part_that_some_lack_is_called_by_its_kind() -> None:
    assert labels(facts("a", credit=None), *(facts("a", credit={"agent": None, "token": t}) for t in (
        {"kind": "coupled", "top": 0.4}, {"kind": "entropy", "high": 1.0}
    ))) == ["token=null", "token=coupled", "token=entropy"]  # fmt: skip


def test_settings_of_one_kind_are_told_apart_beside_those_of_another() -> None:
    found = [facts("a", policy={"kind": k, "width": w}) for k, w in (("mlp", 8), ("attention", 8), ("mlp", 16))]
    assert labels(*found) == ["policy=mlp, width=8", "policy=attention, width=8", "policy=mlp, width=16"]
