import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from coterie.experiments.cli.main import main
from coterie.experiments.inspection.attention import sentence_labels
from coterie.experiments.inspection.attention_picture import label

TEXT = "The door is 90 cm wide. " * 9 + "Is it? Yes.\n"


@pytest.fixture(scope="module")
def model(smollm: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small untrained model with the built-in model's tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3}
    tokenizer = AutoTokenizer.from_pretrained(smollm)
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(tokenizer), num_key_value_heads=2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "note.txt"
    path.write_text(TEXT, "utf-8")
    return path


def read(folder: Path, stem: str = "note") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{stem}-attention.json").read_text("utf-8"))
    return found


def test_a_text_gets_a_picture_and_numbers(
    model: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    assert main(["inspect-attention", model, str(text), "--out", str(out)]) == 0
    wrote = [f"wrote {out / name}" for name in ("note-attention.png", "note-attention.json")]
    assert capsys.readouterr().out.splitlines() == wrote
    assert sorted(path.name for path in out.iterdir()) == ["note-attention.json", "note-attention.png"]
    picture = imread(out / "note-attention.png")
    assert picture.shape[1] > 1000 and picture.std() > 0.05
    found = read(out)
    tokens = found["tokens"]
    assert "".join(tokens["text"]) == TEXT
    assert {len(column) for column in tokens.values()} == {len(tokens["id"])} == {found["tokens_of_text"]}
    assert tokens["logprobs"][0] is None and all(value < 0 for value in tokens["logprobs"][1:])
    assert tokens["fai"][-10:] == [None] * 10 and None not in tokens["fai"][:-10]
    assert [(head["layer"], head["head"]) for head in found["heads"]] == [(i, j) for i in range(3) for j in range(4)]
    roles = [role for head in found["heads"] for role in head["roles"] if role in ("local", "global")]
    assert sorted(roles) == ["global"] * 2 + ["local"] * 2


def test_stdin_is_a_text_too(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["inspect-attention", model, "-", "--out", str(tmp_path), "--without-sink"]) == 0
    assert read(tmp_path, "stdin")["without_sink"] is True


def test_signals_are_read_from_the_heads_that_were_asked_for(model: str, text: Path, tmp_path: Path) -> None:
    arguments = ["--heads", "0.1,2.3", "--window", "4", "--horizon", "2", "6", "--max-tokens", "20"]
    assert main(["inspect-attention", model, str(text), "--out", str(tmp_path), *arguments]) == 0
    found = read(tmp_path)
    assert len(found["tokens"]["id"]) == 20 < found["tokens_of_text"]
    assert (found["window"], found["horizon"]) == (4, [2, 6])
    assert max(found["tokens"]["waad"]) <= 4 and found["tokens"]["fai"][17] is not None
    signalled = [(h["layer"], h["head"]) for h in found["heads"] if {"local", "global"} <= set(h["roles"])]
    assert signalled == [(0, 1), (2, 3)]


def test_any_text_can_be_shown(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.txt"
    path.write_text("$x^2$ \x1b[31m \u202e \U0001f600 \u4f60\u597d \\frac \x00 %s {0} <b>\n\n\t\ud7a3", "utf-8")
    assert main(["inspect-attention", model, str(path), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


BAD: dict[str, tuple[list[str], int, str]] = {
    "model": (["./no/such/model", "TEXT"], 3, "no model folder"),
    "hub": (["no-org/no-model", "TEXT"], 3, "cannot load the model no-org/no-model"),
    "file": (["MODEL", "missing.txt"], 2, "cannot read: No such file"),
    "empty": (["MODEL", "EMPTY"], 2, "too short"),
    "binary": (["MODEL", "BINARY"], 2, "no text in UTF-8"),
    "layers": (["MODEL", "TEXT", "--layers", "1,x"], 2, "layers are numbers"),
    "no layer": (["MODEL", "TEXT", "--layers", "9"], 2, "layer 9"),
    "heads": (["MODEL", "TEXT", "--heads", "1"], 2, "heads are pairs"),
    "no head": (["MODEL", "TEXT", "--heads", "1.4"], 2, "head < 4"),
    "head of no layer": (["MODEL", "TEXT", "--heads", "3.0"], 2, "layer < 3"),
    "horizon": (["MODEL", "TEXT", "--horizon", "9", "2"], 2, "horizon"),
    "no layers": (["MODEL", "TEXT", "--layers", ""], 2, "layers are numbers"),
    "no heads": (["MODEL", "TEXT", "--heads", ""], 2, "heads are pairs"),
    # Before the model, which is not there.
    "out": (["./no/such/model", "TEXT", "--out", "TEXT"], 2, "cannot write"),
    "out below a file": (["./no/such/model", "TEXT", "--out", "empty/made"], 2, "cannot write"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_message_and_nothing_is_written(
    name: str,
    model: str,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    before = sorted(tmp_path.rglob("*"))
    arguments, code, words = BAD[name]
    places = {"MODEL": model, "TEXT": str(text), "EMPTY": "empty", "BINARY": "binary"}
    assert main(["inspect-attention", *(places.get(word, word) for word in arguments)]) == code
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_sentences_end_with_marks_and_lines() -> None:
    pieces = ["A", " door", ".", " It", " is", "\n", "\n", "3", ".", "5", ' wide."', " End", "."]
    assert sentence_labels(pieces) == [0, 0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (" door", "door"),
        ("\n", "\u21b5"),
        ("   ", "\u00b7\u00b7\u00b7"),
        ("incomprehensible", "incomprehe\u2026"),
        ("\x1b[0m", ""),
    ],
)
def test_tokens_are_shown_short_and_visible(piece: str, shown: str) -> None:
    assert label(piece) == shown
