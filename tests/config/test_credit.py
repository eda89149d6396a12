"""The section `credit` of a society's file, in all the ways it may be written."""

from pathlib import Path

import pytest

from coterie.config.load import json_schema, load
from coterie.config.problems import InvalidConfig

SOCIETY = """\
name: credited
policy: {engine: transformers, model: none, sampling: {temperature: 1.0}}
seats: S1
protocol: machinesom
benchmark: {kind: sums, limit: 4}
rewards: [verifier]
learning: policy_gradient
"""


def read(folder: Path, credit: str, society: str = SOCIETY):
    (folder / "society.yaml").write_text(f"{society}{credit}\n")
    return load(folder / "society.yaml").config.credit


@pytest.mark.parametrize(
    "credit",
    [
        "credit: random",
        "credit: {kind: random}",
        "credit: {token: random}",
        "credit: {token: {kind: random, top: 0.4}}",
    ],
)
def test_a_token_rule_may_stand_for_the_whole_section(tmp_path, credit):
    found = read(tmp_path, credit)
    assert found.agent is None and found.token.kind == "random"


def test_without_the_section_or_with_null_there_is_no_credit(tmp_path):
    assert read(tmp_path, "") is None
    assert read(tmp_path, "credit: null") is None


@pytest.mark.parametrize(
    ("credit", "says"),
    [
        ("credit: couplet", ':8:9 credit  unknown token_credit "couplet"'),
        ("credit: {kind: coupled, top: 3}", ":8:30 credit.top  must be at most 1"),
        ("credit: {kind: coupled, topp: 0.3}", ":8:25 credit.topp  unknown key"),
        ("credit: {token: {kind: entropy, high: -1}}", ":8:39 credit.token.high  must be at least 0"),
        ("credit: {tokens: coupled}", ":8:10 credit.tokens  unknown key"),
        ("credit: {kind: coupled, horizon: [50, 10]}", "the horizon ends before it begins"),
    ],
)
def test_a_mistake_is_told_at_its_place(tmp_path, credit, says):
    with pytest.raises(InvalidConfig) as caught:
        read(tmp_path, credit)
    assert says in str(caught.value)


def test_credit_without_learning_is_refused(tmp_path):
    with pytest.raises(InvalidConfig, match="there is no `learning`"):
        read(tmp_path, "credit: coupled", SOCIETY.replace("learning: policy_gradient\n", ""))


def test_editors_are_told_of_the_short_forms():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    section = {"$ref": "#/$defs/CreditConfig", "$defs": schema["$defs"]}
    validator = jsonschema.Draft202012Validator(section)
    for written in ("coupled", {"kind": "coupled", "top": 0.3}, {"token": "entropy"}, {"agent": "equal"}, {}):
        assert validator.is_valid(written), written
    for wrong in ("couplet", {"kind": "coupled", "topp": 0.3}, {"tokens": "entropy"}, 3):
        assert not validator.is_valid(wrong), wrong
