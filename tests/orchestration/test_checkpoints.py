import json

import pytest
import torch

from coterie.errors import ResumeError
from coterie.orchestration import checkpoints

FILES = {"weights": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(True)}, "world": {"c": torch.zeros(0, 3)}}


def test_what_is_written_is_read(tmp_path):
    checkpoints.write(tmp_path / "one", FILES, {"iteration": 3, "rate": 0.1})
    files, facts = checkpoints.read(tmp_path / "one")
    assert facts == {"iteration": 3, "rate": 0.1}
    assert torch.equal(files["weights"]["a"], FILES["weights"]["a"]) and bool(files["weights"]["b"])
    assert files["world"]["c"].shape == (0, 3)


def test_equal_checkpoints_have_equal_hashes(tmp_path):
    facts = {"iteration": 1}
    first, second = (checkpoints.write(tmp_path / name, FILES, facts) for name in ("one", "two"))
    other = checkpoints.write(tmp_path / "three", {"weights": {"a": torch.ones(1)}}, facts)
    assert first == second != other


def test_one_file_can_be_read_alone(tmp_path):
    checkpoints.write(tmp_path / "one", FILES, {})
    (tmp_path / "one" / "world.safetensors").unlink()
    assert set(checkpoints.read(tmp_path / "one", ["weights"])[0]["weights"]) == {"a", "b"}


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "facts"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    checkpoints.write(tmp_path / "one", FILES, {})
    path = tmp_path / "one" / ("checkpoint.json" if damage == "facts" else "weights.safetensors")
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage != "changed" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ResumeError):
        checkpoints.read(tmp_path / "one")


def test_one_that_was_never_finished_is_not_there(tmp_path):
    folder = tmp_path / ".unfinished-one"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"half")
    with pytest.raises(ResumeError):
        checkpoints.read(tmp_path / "one")
    checkpoints.write(tmp_path / "one", FILES, {})
    checkpoints.read(tmp_path / "one")


def test_writing_again_replaces(tmp_path):
    checkpoints.write(tmp_path / "one", FILES, {"iteration": 1})
    checkpoints.write(tmp_path / "one", {"weights": {"a": torch.ones(1)}}, {"iteration": 2})
    files, facts = checkpoints.read(tmp_path / "one")
    assert facts == {"iteration": 2} and set(files) == {"weights"}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_pruning_keeps_what_is_named_and_what_is_no_checkpoint(tmp_path):
    for name in ("one", "two", "three"):
        checkpoints.write(tmp_path / name, FILES, {})
    (tmp_path / ".unfinished-four").mkdir()
    (tmp_path / "notes").mkdir()
    checkpoints.prune(tmp_path, {"two"})
    assert {path.name for path in tmp_path.iterdir()} == {"two", "notes"}


def test_the_digest_sees_names_types_and_shapes():
    numbers = torch.zeros(4)
    digests = [checkpoints.digest(x) for x in (
        {"a": numbers}, {"b": numbers}, {"a": numbers.view(2, 2)}, {"a": numbers.int()}, {"a": numbers, "b": numbers},
    )]  # fmt: skip
    assert len(set(digests)) == len(digests)
    assert json.dumps(digests[0])
