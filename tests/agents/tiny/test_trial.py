import json
from pathlib import Path

import pytest

from coterie.agents.tiny import trial

SMALL = "layers: 1\nwidth: 32\nheads: 2\nsteps: 2\nlessons: 2\nunseen: 2\n"


def run(folder: Path, text: str) -> int:
    path = folder / "trial.yaml"
    path.write_text(text, "utf-8")
    return trial.main([str(path)])


def test_a_small_llama_learns_with_the_attention_of_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, SMALL) == 0
    assert run(tmp_path, SMALL + "attention: gated\n") == 0
    assert run(tmp_path, SMALL + "attention: {kind: gated, by_head: true}\n") == 0
    plain, gated, by_head = map(json.loads, capsys.readouterr().out.splitlines())
    assert gated["parameters"] - plain["parameters"] == 32 * 32
    assert by_head["parameters"] - plain["parameters"] == 32 * 2
    assert by_head["attention"] == {"kind": "gated", "by_head": True} and plain["attention"] is None
    assert len({row["loss"] for row in (plain, gated, by_head)}) == 3


def test_losses_of_the_mechanism_are_learnt_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for load in (0, 100):
        assert run(tmp_path, SMALL.replace("heads: 2", "heads: 4") + f"attention: {{kind: moh, load: {load}}}\n") == 0
    without, with_load = map(json.loads, capsys.readouterr().out.splitlines())
    assert without["loss"] != with_load["loss"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("attention: gna", "gna does not fit a language model: gna needs a grid"),
        ("attention: hilo", "hilo has no causal form"),
        ("attention: gatde", 'did you mean "gated"?'),
        ("attention: {kind: gated, by_heads: true}", 'did you mean "by_head"?'),
        ("step: 3", 'did you mean "steps"?'),
        ("steps: 0", "trial.yaml:7:8 steps  must be at least 1, got 0"),
        ("attention: {window: 3}", "attention.kind  is required"),
    ],
)
def test_what_does_not_fit_is_one_message(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, f"{SMALL.replace('steps: 2', '') if text.startswith('step') else SMALL}{text}\n") == 2
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err


def test_every_file_is_checked_before_one_is_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(SMALL, "utf-8")
    Path("typed.yaml").write_text("steps: 0\nattention: gatde\nheads: 3\n", "utf-8")
    Path("options.yaml").write_text("layers: 1\nattention: {kind: gated, by_heads: true}\n", "utf-8")
    assert trial.main(["good.yaml", "nope.yaml", "typed.yaml", "options.yaml"]) == 2
    out, err = capsys.readouterr()
    places = ["nope.yaml ", "typed.yaml:1:8 ", "typed.yaml:2:12 ", "typed.yaml:3:8 ", "options.yaml:2:26 "]
    told = [line for line in err.splitlines() if ".yaml" in line.split(" ")[0]]
    assert not out and err.endswith("5 errors, nothing was started.\n")
    assert all(line.startswith(place) for line, place in zip(told, places, strict=True)), err


def test_values_are_compared_once_each_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "width: wide\nheads: 3\n") == 2
    assert capsys.readouterr().err.endswith("1 error, nothing was started.\n")


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), ([], 2)])
def test_how_it_is_called_is_told(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        trial.main(arguments)
    assert ended.value.code == code and "usage: python -m coterie.agents.tiny.trial" in "".join(capsys.readouterr())
