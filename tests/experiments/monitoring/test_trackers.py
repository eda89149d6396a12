from __future__ import annotations

import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from coterie import registry
from coterie.config.base import KindConfig
from coterie.errors import EnvironmentMissing
from coterie.experiments.monitoring import trackers as module
from coterie.experiments.monitoring.config import MlflowConfig, TensorboardConfig, WandbConfig
from coterie.experiments.monitoring.tally import Audience, Standing, Tally
from coterie.experiments.monitoring.tracker_backends import MlflowTracker, TensorboardTracker, WandbTracker, flatten
from coterie.experiments.monitoring.trackers import Trackers, metrics_of

STANDING = Standing({"debate": ("calm", "bold"), "single": ("solo",)}, 4)
EXPERIMENT = {"name": "trial", "seats": [{"name": "calm", "count": 2}], "budget": {"tokens": 1000}}


class Recorder:
    """A tracker in memory; `fails` names the calls that raise, `gate` makes `log` wait."""

    def __init__(self, fails: tuple[str, ...] = (), gate: threading.Event | None = None) -> None:
        self.fails, self.gate, self.points, self.calls, self.summary = fails, gate, [], [], {}

    def start(self, run_name: str, config: Any, folder: Path) -> None:
        self._call("start")

    def log(self, metrics: Any, step: int) -> None:
        if self.gate:
            self.gate.wait(10)
        self._call("log")
        self.points.append((step, dict(metrics)))

    def finish(self, summary: Any) -> None:
        self._call("finish")
        self.summary = dict(summary)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise RuntimeError(f"cannot {name}\nsecond line")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers recorders as trackers for one test; gives their configs."""

    def register(**recorders: Recorder) -> list[KindConfig]:
        monkeypatch.setattr(registry, "impl", lambda kind, name: lambda config: recorders[name])
        return [KindConfig(kind=name) for name in recorders]

    return register


def feed(observer: Any, events: Any) -> None:
    for event in events:
        for turn, verdict in zip(event.turns, event.verdicts, strict=True):
            observer.on_turn(turn, verdict)
        observer.on_episode(event.job, event.outcome, event.verdict)


def test_the_metrics_are_accuracies_progress_tokens_and_the_unparsed_rate(events: Any) -> None:
    tally = Tally()
    tally.begin(STANDING)
    feed(tally, events)
    metrics = metrics_of(tally.view())
    del metrics["tokens/generated_per_second"]
    assert metrics == {
        "accuracy/debate": 0.75, "accuracy/single": 0.25, "progress/turns": 20, "progress/episodes": 8,
        "progress/failures": 0, "tokens/prompt": 200, "tokens/generated": 80, "unparsed_rate": 0.35,
    }  # fmt: skip


def test_points_are_sent_once_a_second_and_at_the_end(use: Any, events: Any, tmp_path: Path) -> None:
    recorder, now = Recorder(), [0.0]
    with Trackers(use(a=recorder), tmp_path, EXPERIMENT, print, clock=lambda: now[0]) as trackers:
        trackers.begin(STANDING)
        for event in events:
            now[0] += 0.5
            feed(trackers, [event])
        trackers.status = "finished"
    steps = [step for step, _ in recorder.points]
    assert steps == sorted(steps)
    assert (len(steps), steps[-1]) == (5, 20)
    assert recorder.summary["status"] == "finished"
    assert recorder.summary["accuracy/debate"] == 0.75


def test_a_resumed_run_goes_on_at_the_step_where_it_stopped(use: Any, events: Any, tmp_path: Path) -> None:
    recorder = Recorder()
    with Trackers(use(a=recorder), tmp_path, EXPERIMENT, print) as trackers:
        trackers.begin(Standing(STANDING.agents, 4, turns=100, tokens=400))
        feed(trackers, events[:1])
    assert recorder.points[-1][0] == 104


def test_a_tracker_that_cannot_start_fails_the_run_and_closes_the_others(use: Any, tmp_path: Path) -> None:
    first, second = Recorder(), Recorder(fails=("start",))
    with pytest.raises(EnvironmentMissing, match="the tracker b cannot start: RuntimeError: cannot start\n"):
        Trackers(use(a=first, b=second), tmp_path, EXPERIMENT, print).__enter__()
    assert first.calls == ["start", "finish"]
    assert first.summary["status"] == "failed"


def test_a_tracker_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.summary", None)
    with pytest.raises(EnvironmentMissing) as caught:
        Trackers([TensorboardConfig()], tmp_path, EXPERIMENT, print).__enter__()
    assert caught.value.exit_code == 3
    assert 'pip install "coterie[tensorboard]"' in caught.value.remedy


def test_a_tracker_that_fails_later_is_reported_once_and_the_others_go_on(
    use: Any, events: Any, tmp_path: Path
) -> None:
    good, bad, said, now = Recorder(), Recorder(fails=("log", "finish")), [], [0.0]
    with Trackers(use(good=good, bad=bad), tmp_path, EXPERIMENT, said.append, clock=lambda: now[0]) as trackers:
        trackers.begin(STANDING)
        for event in events:
            now[0] += 2.0
            feed(trackers, [event])
    assert len(good.points) == 9
    assert said == ["tracker bad failed: RuntimeError: cannot log (the run goes on; the journal has everything)"]


def test_a_hanging_tracker_holds_nothing_up(
    use: Any, events: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    gate, said, now = threading.Event(), [], [0.0]
    with Trackers(use(a=Recorder(gate=gate)), tmp_path, EXPERIMENT, said.append, clock=lambda: now[0]) as trackers:
        trackers.begin(STANDING)
        for _ in range(20):
            now[0] += 2.0
            feed(trackers, events)
    assert len(said) == 1
    gate.set()


def test_a_run_that_raises_is_tracked_as_failed(use: Any, events: Any, tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(KeyError), Trackers(use(a=recorder), tmp_path, EXPERIMENT, print) as trackers:
        trackers.begin(STANDING)
        trackers.status = "finished"
        raise KeyError
    assert recorder.summary["status"] == "failed"


def test_an_audience_tells_everybody(events: Any) -> None:
    one, two = Tally(), Tally()
    for tally in (one, two):
        tally.begin(STANDING)
    feed(Audience(one, two), events)
    assert one.view().turns == two.view().turns == 20


def test_the_section_track_takes_names_and_mappings() -> None:
    from typing import Annotated

    from coterie.config.base import OneOf

    track = TypeAdapter(list[Annotated[KindConfig, OneOf("tracker")]])
    configs = track.validate_python(["tensorboard", {"kind": "wandb", "mode": "offline"}, "mlflow"])
    assert [type(c).__name__ for c in configs] == ["TensorboardConfig", "WandbConfig", "MlflowConfig"]


def test_nested_configs_are_flattened_to_paths() -> None:
    assert list(flatten(EXPERIMENT)) == [
        ("name", "trial"), ("seats.0.name", "calm"), ("seats.0.count", 2), ("budget.tokens", 1000),
    ]  # fmt: skip


def test_tensorboard_reads_what_was_logged_also_over_two_attempts(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util.tensor_util import make_ndarray

    for step in (5, 9):
        tracker = TensorboardTracker(TensorboardConfig())
        tracker.start("trial", EXPERIMENT, tmp_path)
        tracker.log({"accuracy/debate": step / 10}, step)
        tracker.finish({"status": "stopped"})
    seen = []
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        events = accumulator.EventAccumulator(str(file))
        events.Reload()
        seen += [(e.step, round(float(make_ndarray(e.tensor_proto)), 3)) for e in events.Tensors("accuracy/debate")]
    assert sorted(seen) == [(5, 0.5), (9, 0.9)]


def test_wandb_offline_writes_into_the_run_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb")
    tracker = WandbTracker(WandbConfig(mode="offline"))
    tracker.start("trial-20260101-000000-ab12", EXPERIMENT, tmp_path)
    tracker.log({"accuracy/debate": 0.5}, 5)
    tracker.finish({"status": "finished", "accuracy/debate": 0.5})
    assert list(tmp_path.glob("wandb/offline-run-*/run-trial-20260101-000000-ab12.wandb"))
    assert capfd.readouterr().out == ""


def test_wandb_online_without_credentials_is_refused_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(EnvironmentMissing, match="does not know you"):
        Trackers([WandbConfig()], tmp_path, EXPERIMENT, print).__enter__()


def test_an_mlflow_server_that_cannot_be_reached_is_refused_soon(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(EnvironmentMissing, match="the tracker mlflow cannot start"):
        Trackers([MlflowConfig(uri="http://127.0.0.1:9")], tmp_path, EXPERIMENT, print).__enter__()


def test_the_address_of_mlflow_may_be_a_secret_that_no_message_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("TRACKING", "nosuch://hush-hush-123")
    with pytest.raises(EnvironmentMissing) as caught:
        Trackers([MlflowConfig(uri="${secret:TRACKING}")], tmp_path, EXPERIMENT, print).__enter__()
    shown = "".join(traceback.format_exception(caught.value))
    assert "nosuch" not in shown and "***" in shown


@pytest.mark.slow
def test_mlflow_keeps_a_database_in_the_run_folder_and_continues_its_run(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    for step in (5, 9):
        tracker = MlflowTracker(MlflowConfig())
        tracker.start("trial", EXPERIMENT, tmp_path)
        tracker.log({"accuracy/debate+": step / 10}, step)
        tracker.finish({"status": "finished"})
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("coterie").experiment_id])
    history = client.get_metric_history(run.info.run_id, "accuracy/debate_")
    assert [(m.step, m.value) for m in history] == [(5, 0.5), (9, 0.9)]
    assert run.data.params["seats.0.name"] == "calm"
    assert (run.info.status, run.info.run_name) == ("FINISHED", "trial")
