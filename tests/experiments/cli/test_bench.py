import json

import pytest

from coterie.attention import bench
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
