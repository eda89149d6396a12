import json

import pytest

from coterie.attention import bench, bench_mechanisms
from coterie.attention.choice import choose
from coterie.experiments.cli.main import main

SMALL = ["--device", "cpu", "--repeats", "1", "--tokens", "128", "--agents", "64"]


def test_every_kernel_is_compared_with_a_named_rival(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "attention", *SMALL, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"].split(",")[0] for row in rows] == ["stats", "neighbor", "neighbor"]
    for row in rows:
        assert row["is_correct"] and row["rival"] and row["ratio"] == row["rival_milliseconds"] / row["milliseconds"]


def test_a_kernel_that_computes_something_else_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "LIMIT", -1.0)
    assert main(["bench", "attention", *SMALL]) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["WRONG"] * 3


@pytest.mark.parametrize(("device", "code"), [("toaster", 2), ("cuda:77", 3)])
def test_a_device_that_is_not_there_is_one_message(device: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "attention", "--device", device]) == code
    err = capsys.readouterr().err
    assert f"--device {device}" in err and "Traceback" not in err


def test_a_mechanism_is_timed_at_each_length_and_says_from_where_it_pays(capsys: pytest.CaptureFixture[str]) -> None:
    race = ["bench", "attention", "--mechanism", "long_short", "-o", "window=8", "-o", "short=1.0", "--device", "cpu"]
    assert main([*race, "--repeats", "1", "--lengths", "64,32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_correct"] and found["options"] == {"window": 8, "short": 1.0}
    assert [(row["tokens"], row["share"]) for row in found["lengths"]] == [(32, 8 / 32), (64, 8 / 64)]
    for row in found["lengths"]:
        assert row["gain"] == row["dense_forward"] / row["forward"] > 0 and row["training_gain"] > 0
    assert main([*race, "--repeats", "1", "--lengths", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("long_short: Long-short heads") and "equals its formula" in lines[1]
    assert lines[3].split()[:2] == ["32", "25.0%"] and lines[-1].startswith("with_backward: faster than dense SDPA")


@pytest.mark.parametrize(
    ("lengths", "gains", "since"),
    [([1, 2, 3], [0.5, 2.0, 3.0], 2), ([1, 2, 3], [2.0, 0.5, 3.0], 3), ([1, 2], [2.0, 1.0], None), ([1], [2.0], 1)],
)
def test_a_mechanism_pays_from_where_it_is_faster_for_good(
    lengths: list[int], gains: list[float], since: int | None
) -> None:
    assert bench_mechanisms.crossover(lengths, gains) == since


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--mechanism", "alibl"], "did you mean alibi?"),
        (["--mechanism", "gna", "-o", "windows=3"], "did you mean window?"),
        (["--mechanism", "gna", "-o", "window=[3, x]"], "window of gna is 'x'"),
        (["--mechanism", "gna", "-o", "window"], "expected option=value"),
        (["--mechanism", "gna", "--lengths", "512,many"], "are no lengths"),
        (["--mechanism", "hilo", "--causal"], "hilo has no causal form"),
        (["--causal", "-o", "foo=2"], "without --mechanism this changes nothing\n  where: -o, --causal"),
        (["--lengths", "64"], "without --mechanism this changes nothing\n  where: --lengths"),
        (["--mechanism", "gated", "--tokens", "4096"], "with --mechanism this changes nothing\n  where: --tokens"),
    ],
)
def test_what_cannot_be_raced_is_one_message(given: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "attention", "--device", "cpu", *given]) == 2
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err


@pytest.mark.parametrize("kind", ["pgqa", "routing", "ggem"])
def test_a_mechanism_is_raced_as_in_evaluation(kind: str) -> None:
    """Noise and centres that change in training would differ from the formula at every call."""
    assert bench_mechanisms.Race(choose(kind, {}), "cpu").is_correct


def test_a_mechanism_that_does_not_equal_its_formula_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_mechanisms, "LIMIT", -1.0)
    assert main(["bench", "attention", "--mechanism", "gated", "--device", "cpu"]) == 1
    assert "WRONG" in capsys.readouterr().out


ENDLESS = 1 << 50
"""No machine has memory for so many tokens."""


def test_of_an_option_that_is_given_twice_the_last_holds(capsys: pytest.CaptureFixture[str]) -> None:
    race = ["bench", "attention", "--mechanism", "gated", "--device", "cpu", "--repeats", "1", "--lengths", "16"]
    assert main([*race, "--json", "-o", "by_head=true", "-o", "by_head=false"]) == 0
    assert json.loads(capsys.readouterr().out)["options"] == {"by_head": False}


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_length_that_does_not_fit_into_the_memory_is_one_message_after_what_was_measured(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    race = ["bench", "attention", "--mechanism", "gated", "--device", "cpu", "--repeats", "1", *flags]
    assert main([*race, "--lengths", f"{ENDLESS},16"]) == 3
    out, err = capsys.readouterr()
    assert f"E_ENVIRONMENT: a sequence of {ENDLESS} tokens does not fit into the memory" in err
    assert f"--lengths {ENDLESS},16" in err and "leave out this length" in err and "Traceback" not in err
    rows = [row["tokens"] for row in json.loads(out)["lengths"]] if flags else [int(out.splitlines()[3].split()[0])]
    assert rows == [16]


def test_kernels_that_do_not_fit_into_the_memory_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "attention", "--device", "cpu", "--json", "--tokens", str(ENDLESS)]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out) == [] and f"--tokens {ENDLESS}" in err and "Traceback" not in err
