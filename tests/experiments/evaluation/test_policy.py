"""The policy of a run: for Python, and for what is exported."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch

import coterie
from coterie.errors import ConfigError, ResumeError
from coterie.experiments.evaluation import policy
from coterie.experiments.folder import RunFolder
from coterie.experiments.records.training import Checkpoint

PAGE = Path(__file__).parents[3] / "docs" / "swarm-policies.md"


def test_a_run_gives_the_policy_of_its_checkpoints(trained: RunFolder) -> None:
    run = coterie.Run(trained.path)
    size = policy.trained_in(policy.find_checkpoint(trained, "last")[0].env).observation_size
    observations = torch.linspace(-1, 1, 3 * size).view(3, size)
    for which in policy.CHECKPOINTS:
        trained_policy = run.policy(which)
        assert next(trained_policy.parameters()).device.type == "cpu" and trained_policy(observations).shape == (3, 4)
    assert torch.equal(run.policy()(observations), run.policy("last")(observations))


def test_what_is_no_checkpoint_is_refused(trained: RunFolder) -> None:
    with pytest.raises(ConfigError, match="there is no checkpoint 'first'"):
        coterie.Run(trained.path).policy("first")


def test_the_page_shows_how_a_run_is_exported(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / trained.path.name).symlink_to(trained.path)
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text().partition("## On a drone")[2]
    (tmp_path / "page.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL)))
    runpy.run_path("page.py")
    assert "void coterie_policy(" in Path("policy.c").read_text() and Path("policy.onnx").stat().st_size > 1000


def test_a_checkpoint_that_a_going_run_has_replaced_gives_way_to_the_newer_one(
    trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, newer = policy.find_checkpoint(trained, "last")
    found = iter([Checkpoint(1, "0" * 64), newer])
    monkeypatch.setattr(policy, "find_checkpoint", lambda folder, which: (config, next(found)))
    assert policy.load_trained(trained, "last")[1] == newer


def test_a_checkpoint_that_is_gone_for_good_is_an_error(trained: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = policy.find_checkpoint(trained, "last")
    monkeypatch.setattr(policy, "find_checkpoint", lambda folder, which: (config, Checkpoint(1, "0" * 64)))
    with pytest.raises(ResumeError, match="cannot be read"):
        policy.load_trained(trained, "last")


def test_a_damaged_checkpoint_names_the_other_one_that_is_kept(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    config, last = policy.find_checkpoint(folder, "last")
    (folder.checkpoints / last.name / "weights.safetensors").write_bytes(b"")
    found = {"last": last, "best": last}
    monkeypatch.setattr(policy, "find_checkpoint", lambda folder, which: (config, found[which]))
    with pytest.raises(ResumeError, match="not what was written") as alone:
        policy.load_trained(folder, "last")
    assert alone.value.remedy == "put it back, or start a new run"
    found["best"] = Checkpoint(1, "0" * 64)
    with pytest.raises(ResumeError, match="not what was written") as two:
        policy.load_trained(folder, "last")
    assert two.value.remedy.endswith("or take the other checkpoint: --checkpoint best")
