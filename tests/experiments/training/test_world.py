"""A training run: what it keeps, and that stopping, killing and breaking it change nothing of it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

import coterie
from coterie import rng
from coterie.agents.learning.ppo import LearningError
from coterie.config.load import loads
from coterie.envs.config import PettingZooConfig
from coterie.errors import EnvironmentMissing, ResumeError
from coterie.experiments.cli.main import main
from coterie.experiments.folder import RunFolder
from coterie.experiments.measures.training_summary import training_telemetry
from coterie.experiments.monitoring.display_training import PlainTraining, RichTraining
from coterie.experiments.monitoring.training_tally import Step
from coterie.experiments.records.audit import audit
from coterie.experiments.records.training import TrainingRecord, read_training
from coterie.experiments.report.training_terminal import print_training
from coterie.experiments.training.assembly import preparation_of
from coterie.journal import Journal, Note

PLUGIN = str(Path(__file__).parents[2] / "data" / "mortal_swarm.py")
NUM_STEPS = 80  # 5 iterations of 16


def read(folder: RunFolder) -> TrainingRecord:
    with Journal.read(folder.journal) as journal:
        assert journal.verify() == []
        return read_training(journal)


def learnt(folder: RunFolder) -> tuple[str, str]:
    """The digest of all facts, and the weights in the last checkpoint."""
    record = read(folder)
    assert record.last is not None
    return record.digest, (folder.checkpoints / record.last.name / "weights.safetensors").read_bytes().hex()


def state(folder: RunFolder) -> dict:
    return json.loads(folder.status.read_text())


@pytest.fixture(scope="session")
def make_mortal(make_tiny):
    """Makes configs of the tiny training in a world that can be told to die."""

    def make():
        config = make_tiny()
        config["env"]["kind"] = "mortal_swarm"
        return {**config, "imports": [PLUGIN]}

    return make


@pytest.fixture(scope="module")
def undisturbed(make_mortal, tmp_path_factory) -> tuple[str, str]:
    return learnt(coterie.run(make_mortal(), runs=tmp_path_factory.mktemp("undisturbed")).folder)


def test_iterations_are_facts_with_their_checkpoints(trained):
    record = read(trained)
    assert [row["iteration"] for row in record.iterations] == [1, 2, 3, 4, 5]
    assert [row["agent_steps"] for row in record.iterations] == [128 * n for n in range(1, 6)]
    assert ["checkpoint" in row for row in record.iterations] == [False, True, False, True, True]
    assert [checkpoint.iteration for checkpoint in record.checkpoints] == [2, 4, 5]
    assert record.is_complete and audit(trained) == (record.digest, [])


def test_the_last_and_the_best_checkpoint_are_kept(trained):
    record = read(trained)
    assert record.best is not None and record.last is not None
    kept = {record.best[0].name, record.last.name}
    assert {path.name for path in trained.checkpoints.iterdir()} == kept
    assert state(trained)["status"] == "finished" and state(trained)["agent_steps"] == 640


def test_no_time_is_in_the_facts_and_all_of_it_is_in_the_notes(trained):
    with Journal.read(trained.journal) as journal:
        notes = [note.payload for note in journal.notes("iteration")]
    assert len(notes) == 5
    assert all({"seconds", "simulator", "policy", "learner"} <= set(note) for note in notes)
    assert "seconds" not in json.dumps([dict(row) for row in read(trained).iterations])


def test_the_same_training_gives_the_same_facts(trained, make_tiny, tmp_path):
    again = coterie.run(make_tiny(), runs=tmp_path)
    assert again.status == "finished"
    assert learnt(again.folder) == learnt(trained)


def test_another_seed_gives_another_training(trained, make_tiny, tmp_path):
    assert learnt(coterie.run(make_tiny(), runs=tmp_path, seed=2).folder) != learnt(trained)


# Stopping in order


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_iteration_with_a_checkpoint(number, make_mortal, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("MORTAL", f"40 0 {int(number)}")  # in the third iteration
    run = coterie.run(make_mortal(), runs=tmp_path)
    assert run.status == "stopped" and state(run.folder)["reason"] == "interrupted"
    record = read(run.folder)
    assert [row["iteration"] for row in record.iterations] == [1, 2, 3]
    assert record.last is not None and record.last.iteration == 3 and "checkpoint" not in record.iterations[2]
    monkeypatch.delenv("MORTAL")
    coterie.resume(run)
    assert learnt(run.folder) == undisturbed


def test_a_spent_budget_stops_in_order_and_more_of_it_goes_on(make_mortal, undisturbed, tmp_path):
    run = coterie.run(make_mortal(), runs=tmp_path, **{"budget.seconds": 1e-3})
    assert run.status == "stopped" and "budget of 0.001 seconds" in state(run.folder)["reason"]
    coterie.resume(run, **{"budget.seconds": 600})
    assert learnt(run.folder) == undisturbed


def test_a_training_begins_with_what_its_results_will_not_show(make_tiny, tmp_path, capsys):
    coterie.run(make_tiny(), runs=tmp_path, display="plain", **{"budget.seconds": 1e-3})
    assert capsys.readouterr().err.count("env.seconds: contacts in the first 1.5 s of an episode are no") == 1


def coterie_command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coterie", *arguments], cwd=cwd, env=os.environ | environment, capture_output=True,
        text=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_an_interrupted_command_says_how_to_go_on(make_mortal, tmp_path):
    (tmp_path / "a.yaml").write_text(json.dumps(make_mortal()))
    stopped = coterie_command("run", "a.yaml", cwd=tmp_path, MORTAL=f"40 0 {int(signal.SIGINT)}")
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped: interrupted\ngo on with: coterie resume" in stopped.stderr
    assert "making the report, which --no-report leaves out\n" in stopped.stderr
    assert "Traceback" not in stopped.stderr and "3 iterations" in stopped.stdout


# Being killed


@pytest.mark.slow
@pytest.mark.parametrize("point", range(6))
def test_killing_it_anywhere_and_resuming_gives_the_same_facts_and_weights(point, make_mortal, undisturbed, tmp_path):
    (tmp_path / "a.yaml").write_text(json.dumps(make_mortal()))
    draws = rng.uniforms(0, "kill a training", point, count=2)
    when = f"{1 + int(draws[0] * NUM_STEPS)} {draws[1] * 0.1:.4f} {int(signal.SIGKILL)}"
    killed = coterie_command("run", "a.yaml", cwd=tmp_path, MORTAL=when)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = coterie.Run(next((tmp_path / "runs").iterdir()))
    # A fast machine may have finished before a late kill.
    assert run.status in ("killed", "finished")
    assert coterie.resume(run).status == "finished"
    assert learnt(run.folder) == undisturbed
    assert audit(run.folder)[1] == []


def test_what_a_kill_left_between_checkpoint_and_journal_is_done_again(make_mortal, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("MORTAL", f"40 0 {int(signal.SIGINT)}")
    run = coterie.run(make_mortal(), runs=tmp_path)
    monkeypatch.delenv("MORTAL")
    # A checkpoint that is whole on disk, and that no commit tells of.
    shutil.copytree(run.folder.checkpoints / "00000003", run.folder.checkpoints / "00000004")
    (run.folder.checkpoints / ".unfinished-00000005").mkdir()
    assert coterie.resume(run).status == "finished"
    assert learnt(run.folder) == undisturbed
    assert not (run.folder.checkpoints / ".unfinished-00000005").exists()


# Breaking


def test_a_number_that_is_none_ends_the_run_and_the_last_checkpoint_stays(make_mortal, tmp_path, monkeypatch):
    monkeypatch.setenv("BROKEN", "40")
    with pytest.raises(LearningError) as caught:
        coterie.run(make_mortal(), runs=tmp_path)
    assert "iteration 3" in caught.value.where and "seed 1" in caught.value.where
    run = coterie.Run(next(tmp_path.iterdir()))
    assert run.status == "failed" and "E_LEARNING" in state(run.folder)["reason"]
    record = read(run.folder)
    assert record.last is not None and record.last.iteration == 2 and len(record.iterations) == 2
    monkeypatch.delenv("BROKEN")
    assert coterie.resume(run).status == "finished"


@pytest.fixture
def stopped(make_mortal, tmp_path, monkeypatch) -> coterie.Run:
    """After three of five iterations."""
    monkeypatch.setenv("MORTAL", f"40 0 {int(signal.SIGINT)}")
    run = coterie.run(make_mortal(), runs=tmp_path)
    monkeypatch.delenv("MORTAL")
    return run


def test_a_damaged_checkpoint_is_refused(stopped):
    file = stopped.folder.checkpoints / "00000003" / "world.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ResumeError, match="not what was written"):
        coterie.resume(stopped)


@pytest.mark.parametrize("damage", ["gone", "another"])
def test_another_checkpoint_than_the_journalled_one_is_refused(stopped, damage):
    file = stopped.folder.checkpoints / "00000003" / "checkpoint.json"
    file.unlink() if damage == "gone" else file.write_text(file.read_text() + " ")
    with pytest.raises(ResumeError, match="checkpoint after iteration 3"):
        coterie.resume(stopped)
    assert audit(stopped.folder)[1] != []


def test_another_world_policy_or_learner_is_refused_field_by_field(stopped):
    with pytest.raises(ResumeError) as caught:
        coterie.resume(stopped, **{"env.num_drones": 3, "learning.clip": 0.1, "policy.preset": "small"})
    for change in (
        "config.env.num_drones: was 2, is 3",
        "config.learning.clip: was 0.2, is 0.1",
        "config.policy.preset",
    ):
        assert change in caught.value.what


def test_a_finished_training_has_nothing_to_do(trained, capsys):
    before = learnt(trained)
    coterie.resume(trained.path, display="plain")
    assert "nothing to do" in capsys.readouterr().err and learnt(trained) == before


def test_resuming_a_finished_run_says_that_its_checkpoint_is_gone(trained, tmp_path, capsys):
    there = shutil.copytree(trained.path, tmp_path / "run")
    shutil.rmtree(there / "checkpoints")
    assert main(["resume", str(there), "--display", "plain", "--no-report"]) == 0
    assert "but the checkpoint after iteration 5 cannot be read: No such file or directory" in capsys.readouterr().err


def test_a_world_that_cannot_be_made_leaves_no_folder(make_tiny, tmp_path):
    config = make_tiny() | {"env": {"kind": "pettingzoo", "id": "nowhere.to_be_found"}}
    with pytest.raises(coterie.CoterieError, match="the package nowhere is not installed"):
        coterie.run(config, runs=tmp_path)
    assert list(tmp_path.iterdir()) == []


# Trackers and displays


def test_trackers_get_every_iteration_with_its_agent_steps(make_tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = coterie.run(make_tiny(), runs=tmp_path, track=["tensorboard"])
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Tensors("learning/kl")] == [128 * n for n in range(1, 6)]
    assert {"reward", "episode/success", "episode/count", "speed/agent_steps_per_second"} <= set(
        events.Tags()["tensors"]
    )


def steps(record: TrainingRecord) -> list[Step]:
    return [Step(row, 2.0, {"simulator": 0.5, "policy": 0.5, "learner": 1.0}) for row in record.iterations]


def begin(record: TrainingRecord, count: int) -> TrainingRecord:
    return TrainingRecord(record.facts, "", record.iterations[:count], ())


def test_the_plain_display_tells_steps_speed_and_success(trained):
    record, out, now = read(trained), io.StringIO(), [0.0]
    with PlainTraining(out, lambda: now[0]) as display:
        display.begin(begin(record, 0), limit=60)
        for step in steps(record):
            now[0] += 2
            display.on_iteration(step)
    lines = out.getvalue().splitlines()
    assert lines[0] == "0/640 steps (0%), 0:00"
    assert lines[1].startswith("384/640 steps (60%), 0:06, 64 steps/s, 0:04 left | success ")
    assert lines[-1].startswith("640/640 steps (100%), 0:10, 64 steps/s, 0:00 left | success ")


def test_a_display_goes_on_where_the_journal_ends(trained):
    record, out = read(trained), io.StringIO()
    with PlainTraining(out, lambda: 0.0) as display:
        display.begin(begin(record, 4))
    assert out.getvalue().startswith("512/640 steps (80%), 0:00 | success")


def test_the_live_display_shows_the_same_and_where_the_time_goes(trained):
    record, console = read(trained), Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    display = RichTraining(console, lambda: 0.0)
    display.begin(begin(record, 0), limit=60)
    for step in steps(record):
        display.on_iteration(step)
    console.print(display.render())
    shown = console.file.getvalue()
    for words in ("640/640 agent-steps", "steps/s", "success", "collision", "reward", "iteration 5", "0:00 of 1:00",
                  "learner 50%"):  # fmt: skip
        assert words in shown, words


def test_who_waits_for_the_first_iteration_is_told_for_how_long_and_why(trained):
    out, record = io.StringIO(), read(trained)
    with PlainTraining(out, patience=0.02) as display:
        display.say("making the world")
        time.sleep(0.1)
        display.begin(begin(record, 0))
        time.sleep(0.1)
        display.on_iteration(steps(record)[0])
        told = out.getvalue()
        time.sleep(0.1)
    assert "0:00 gone, still at: making the world" in told
    assert "0:00 gone, still at: the first iteration\n" in told
    assert out.getvalue()[len(told) :].count("still at") <= 1  # one may have been on its way


def test_only_a_swarm_says_that_it_is_compiled_and_only_ray_that_it_starts(make_tiny):
    def said(**changes):
        return preparation_of(loads(make_tiny() | changes).config)

    ray, other = {"kind": "ray", "workers": 3}, {"kind": "pettingzoo", "id": "pettingzoo.butterfly.pistonball_v6"}
    assert said() == "making the world; a swarm's kernels are compiled at their first use, for about a minute"
    assert said(executor=ray).startswith("starting Ray and at most 3 workers, which make the world; a swarm's kernels")
    assert preparation_of(SimpleNamespace(executor=SimpleNamespace(kind="local"), env=PettingZooConfig(**other))) == (
        "making the world"
    )


def test_the_live_display_counts_the_seconds_until_the_first_iteration(trained):
    record, now = read(trained), [0.0]
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    display = RichTraining(console, lambda: now[0])
    display.say("making the world")
    now[0] = 30
    console.print(display.render())
    display.begin(begin(record, 0))
    now[0] = 75
    console.print(display.render())
    shown = console.file.getvalue()
    assert "making the world (0:30)" in shown and "the first iteration (0:45)" in shown
    display.on_iteration(steps(record)[0])
    console.print(display.render())
    assert "the first iteration" not in console.file.getvalue()[len(shown) :]


def test_the_time_of_a_killed_attempt_counts_up_to_its_last_sign_of_life(tmp_path):
    with Journal.create(tmp_path / "journal.sqlite") as journal:
        journal.commit(notes=[Note("attempt", "1", {"number": 1, "start": 20.0})])
        time.sleep(0.2)
        step = {"seconds": 0.1, "simulator": 0.1, "policy": 0.0, "learner": 0.0, "agent_steps": 5, "iteration": 1}
        journal.commit(notes=[Note("iteration", "iteration/00000001", step)])
        time.sleep(0.2)
        journal.commit(notes=[Note("attempt", "2", {"number": 2, "start": 1.0})])
        journal.commit(notes=[Note("attempt-end", "2", {"number": 2, "status": "stopped", "reason": "", "seconds": 7})])
        found = training_telemetry(journal)
    killed, stopped = found["attempts"]
    assert (killed["status"], stopped["seconds"]) == ("killed", 7) and 20.2 <= killed["seconds"] < 20.39
    assert found["totals"]["seconds"] == pytest.approx(killed["seconds"] + 7)
    assert found["totals"]["start_seconds"] == pytest.approx(killed["seconds"] + 7 - 0.1)


def test_the_summary_parts_the_start_from_the_rest_of_the_time(trained):
    out = io.StringIO()
    print_training(coterie.Run(trained.path).summary(), Console(file=out, width=200))
    time_line, start, rest = [line for line in out.getvalue().splitlines() if line[:5] in ("Time:", "Start", "Of th")]
    assert time_line.endswith(" in 1 attempt") and "killed" not in time_line
    assert start.startswith("Start: ") and start.endswith(" agent-steps/s") and "; after it " in start
    assert rest.startswith("Of the rest: simulator ")


def test_a_training_in_which_no_episode_ended_is_told_what_to_do(make_tiny, tmp_path):
    config = make_tiny()
    config["learning"] |= {"agent_steps": 64}
    config["env"] |= {"seconds": 15.0}
    del config["env"]["replay"]
    run = coterie.run(config, runs=tmp_path)
    out = io.StringIO()
    print_training(run.summary(), Console(file=out, width=300))
    steps_of_all = 1500 * config["env"]["num_envs"] * config["env"]["num_drones"]
    told = " ".join(out.getvalue().split())
    assert "No episode ended" in told and "raise `learning.agent_steps`" in told
    assert f"{steps_of_all:,}".replace(",", " ") in told.replace("\u202f", " ").replace("\xa0", " ")


def test_without_a_gpu_cuda_is_one_clear_error_that_leaves_nothing(make_tiny, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (tmp_path / "a.yaml").write_text(json.dumps(make_tiny() | {"device": "cuda"}))
    assert main(["run", str(tmp_path / "a.yaml"), "--runs", str(tmp_path / "runs"), "--display", "none"]) == 3
    err = capsys.readouterr().err
    assert err.count("E_ENVIRONMENT") == 1 and "device: cuda" in err and "device: cpu" in err
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_may_go_on_on_another_device(make_tiny, tmp_path):
    run = coterie.run(make_tiny() | {"device": "cpu", "budget": {"seconds": 1e-6}}, runs=tmp_path)
    assert main(["resume", str(run.path), "-o", "device=auto", "-o", "budget.seconds=null", "--display", "none"]) == 0
    with Journal.read(run.folder.journal) as journal:
        attempts = [note.payload for note in journal.notes("attempt")]
        assert "device" not in journal.get("run")["config"]
    assert state(run.folder)["status"] == "finished" and attempts[-1]["device"] in ("cpu", "cuda")


def test_a_rollout_larger_than_the_memory_is_refused_before_anything_is_made(make_tiny, tmp_path):
    config = make_tiny()
    config["env"]["num_envs"], config["learning"]["rollout"] = 1_048_576, 65_536
    with pytest.raises(EnvironmentMissing, match="a rollout takes"):
        coterie.run(config, runs=tmp_path)
    assert list(tmp_path.iterdir()) == []
