"""Episodes, engines and shards of trainings in Ray actors: the same facts, whatever dies."""

import asyncio
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import coterie
from coterie import registry
from coterie.agents.learning.ppo import LearningError
from coterie.config.load import loads
from coterie.config.plugins import import_plugins
from coterie.errors import EngineError, EnvironmentMissing, WorkerLost
from coterie.experiments.training import world
from coterie.journal import Journal
from coterie.orchestration import supervisor
from coterie.orchestration.config import RayConfig
from coterie.orchestration.crew import LocalCrew
from coterie.orchestration.protocols.config import MachineSomConfig, SingleConfig
from coterie.orchestration.shards import Shard
from coterie.orchestration.supervisor import Quiet
from coterie.orchestration.trainer import Trainer
from coterie.orchestration.training_spec import TrainingSpec
from coterie.testing.societies import play, staff
from coterie.types import Sampling

pytest.importorskip("ray")
TASKS = 4
DEBATE = MachineSomConfig(strategy=("debate", "reflect", "debate"))
SLOW = {"delay": 0.15, "max_batch": 4}
LEAKY = """
from typing import Literal
from coterie.config.references import resolve_secret
from coterie.errors import EngineError
from coterie.registry import register
from coterie.testing.config import ScriptedConfig
from coterie.testing.scripted import ScriptedEngine

class LeakyConfig(ScriptedConfig):
    kind: Literal["leaky"] = "leaky"

class LeakyEngine(ScriptedEngine):
    async def generate(self, prompts, sampling, keys):
        secret = resolve_secret("${secret:COTERIE_TEST_SECRET}")
        self.num_calls += 1
        if self.num_calls == 1:
            raise EngineError(f"refused with {secret}", where=secret, remedy=secret) from ValueError(secret)
        raise ValueError(f"refused with {secret}")

register("engine", "leaky", config=f"{__name__}:LeakyConfig", impl=f"{__name__}:LeakyEngine", summary="talks")
"""


def executor(crew=None, **config):
    from coterie.orchestration.ray.executor import RayExecutor

    return RayExecutor(RayConfig(**config), crew or staff())


@pytest.fixture(scope="module")
def digest() -> str:
    with play(DEBATE, num_tasks=TASKS) as journal:
        return journal.digest()


@pytest.fixture
def address(nodes, monkeypatch) -> str:
    """Of the shared cluster, which this process may join."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(nodes.token))
    return nodes.address


class AtTurn(Quiet):
    """Does something once, in the driver, when a number of turns is committed."""

    def __init__(self, number: int, action: Callable[[], None]) -> None:
        self.left, self.action = number, action

    def on_turn(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            self.action()


def codes(journal) -> set[str]:
    return {note.payload["code"] for note in journal.notes("failure")}


def test_a_private_cluster_gives_the_same_facts_and_leaves_nothing_behind(digest, monkeypatch):
    # A cluster of its own: what is tested is that one starts, lets nobody else in, and ends.
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/of/the/user")
    tokens: list[Path] = []
    look = AtTurn(1, lambda: tokens.append(Path(os.environ["RAY_AUTH_TOKEN_PATH"])))
    with play(DEBATE, num_tasks=TASKS, executor=executor(workers=2, replicas=2), observer=look) as journal:
        assert journal.digest() == digest
        assert not codes(journal)
    assert tokens[0].parent.name.startswith("coterie-ray-")
    assert not tokens[0].parent.exists()
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/of/the/user"


def test_a_cluster_of_two_nodes_gives_the_same_facts(nodes, address, digest):
    nodes.wait(2)
    host, found = executor(address=address), {}
    look = AtTurn(1, lambda: found.update(host.describe()))
    with play(DEBATE, num_tasks=TASKS, executor=host, observer=look) as journal:
        assert journal.digest() == digest
    assert found["nodes"] == 2


@pytest.mark.parametrize("victim", ["ray::WorkerActor", "ray::EngineActor"])
def test_a_killed_actor_changes_no_fact(nodes, address, digest, victim):
    kill = AtTurn(5, lambda: nodes.signal(victim, signal.SIGKILL))
    with play(DEBATE, num_tasks=TASKS, executor=executor(staff(SLOW), address=address), observer=kill) as journal:
        assert journal.digest() == digest
        # An engine that dies between two calls is back before it is missed.
        assert codes(journal) == {"E_WORKER_LOST"} if "Worker" in victim else codes(journal) <= {"E_ENGINE"}


@pytest.mark.parametrize(("victim", "code"), [("ray::WorkerActor", "E_WORKER_LOST"), ("ray::EngineActor", "E_TIMEOUT")])
@pytest.mark.slow
def test_an_actor_that_hangs_is_named_and_replaced(nodes, address, monkeypatch, victim, code):
    monkeypatch.setattr(supervisor, "_GRACE", 2.0)
    monkeypatch.setattr("coterie.orchestration.ray.replicas._CLOSE_SECONDS", 1.0)
    with play(DEBATE, num_tasks=2) as journal:
        digest = journal.digest()
    stop = AtTurn(5, lambda: nodes.signal(victim, signal.SIGSTOP))
    host = executor(staff(SLOW), address=address, deadline=4.0, workers=1)
    with play(DEBATE, num_tasks=2, executor=host, observer=stop) as journal:
        assert journal.digest() == digest
        assert codes(journal) == {code}


def test_a_node_that_ends_changes_no_fact(nodes, address, digest):
    nodes.wait(2)
    host, ended = executor(staff(SLOW), address=address, replicas=2), list[str]()
    end = AtTurn(5, lambda: ended.extend(nodes.end_last()))
    with play(DEBATE, num_tasks=TASKS, executor=host, observer=end) as journal:
        assert journal.digest() == digest
        # Who is not asked again before it is back, or before its work is done, is not missed.
        assert "E_WORKER_LOST" not in codes(journal) or any("ray::WorkerActor" in title for title in ended)
    assert any("Actor" in title for title in ended)
    nodes.join()


def test_secrets_of_an_engine_stay_in_its_actor(nodes, address, tmp_path):
    (plugin := tmp_path / "leaky.py").write_text(LEAKY)
    import_plugins([str(plugin)], tmp_path)
    crew, config = staff(), registry.load(registry.get("engine", "leaky").config)()
    engines = {name: dataclasses.replace(spec, config=config) for name, spec in crew.engines.items()}
    host = executor(dataclasses.replace(crew, engines=engines, imports=(str(plugin),)), address=address)
    path = tmp_path / "journal.sqlite"
    with (
        pytest.raises(RuntimeError, match=r"ValueError: refused with \*\*\*") as caught,
        play(SingleConfig(), executor=host, path=path),
    ):
        pass
    assert nodes.SECRET not in "".join(traceback.format_exception(caught.value))
    with Journal.read(path) as journal:
        failures = [note.payload for note in journal.notes("failure")]
    assert failures == [{"code": "E_ENGINE", "what": "refused with ***", "where": "***"}]


def test_a_cluster_without_a_token_is_refused(make_nodes, monkeypatch):
    # A cluster of its own: whether it asks for a token is settled when it starts. Refused before an actor is made.
    nodes = make_nodes("")
    nodes.start(1)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with (
        pytest.raises(EnvironmentMissing, match="lets in anybody"),
        play(DEBATE, num_tasks=TASKS, executor=executor(address=nodes.address)),
    ):
        pass
    nodes.close()


class Recalled:
    """An engine actor whose calls end as told, one after the other."""

    def __init__(self, *ends):
        self.ends, self.encode = list(ends), self

    async def remote(self, *_):
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


def test_encoding_waits_for_an_actor_that_is_gone_but_not_for_an_engine_that_refuses():
    from ray.exceptions import ActorUnavailableError, RayTaskError

    from coterie.orchestration.ray.actors import RayClient

    gone = ActorUnavailableError("gone", None)
    assert asyncio.run(RayClient(Recalled(gone, ["coded"]), {}).encode([], Sampling())) == ["coded"]
    refused = RayTaskError("encode", "", EngineError("too long", where="here"))
    with pytest.raises(EngineError, match="too long"):
        asyncio.run(RayClient(Recalled(gone, refused), {}).encode([], Sampling()))


def test_an_engine_that_was_started_again_says_nothing_with_its_old_weights():
    from coterie.orchestration.ray.actors import EngineActor

    (spec,) = staff().engines.values()
    engine = EngineActor(spec.pack(), (), 60.0)
    with pytest.raises(EngineError, match="has not the weights that were published"):
        asyncio.run(engine.generate([], Sampling(), [], {"": 1}))
    assert asyncio.run(engine.generate([], Sampling(), [], {})) == []


def test_joining_without_a_token_says_which_variable_is_missing(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    with (
        pytest.raises(EnvironmentMissing, match="RAY_AUTH_TOKEN_PATH"),
        play(DEBATE, num_tasks=TASKS, executor=executor(address="127.0.0.1:1")),
    ):
        pass


# Trainings of worlds

POINTS = str(Path(__file__).parents[1] / "data" / "points_world.py")
WORLD = {
    "name": "points", "seed": 1, "imports": [POINTS], "checkpoint_every": 2, "env": {"kind": "points"},
    "policy": {"kind": "mlp", "preset": "micro"},
    "learning": {"kind": "mappo", "agent_steps": 5 * 12 * 2 * 16, "rollout": 16, "minibatch": 96, "epochs": 2,
                 "shards": 3},
}  # fmt: skip


def crew_of(config, on_loss=lambda lost: None, **executor):
    from coterie.orchestration.ray.crew import RayCrew

    spec = TrainingSpec.of(loads(config).config)
    return RayCrew(RayConfig(**executor), spec, [POINTS], on_loss)


def local_crew_of(config):
    spec = TrainingSpec.of(loads(config).config)
    worlds = [spec.make_world(index) for index in range(spec.num_shards)]
    learner = spec.make_learner(worlds[0][0].spec, "cpu")
    return LocalCrew([Shard(world, learner, spec.seed, first) for world, first in worlds], learner)


def train(crew, count=5, folder=None):
    """The facts of so many iterations, each with a checkpoint; in `folder` the last."""
    try:
        trainer, records = Trainer(crew, 1), []
        for _ in range(count):
            records.append(trainer.iterate())
            if folder is not None and trainer.iteration % 2 == 0:
                trainer.save(folder)
        return records
    finally:
        crew.close()


@pytest.fixture(scope="module")
def learnt():
    """What is learnt in this process."""
    return train(local_crew_of(WORLD))


def test_a_worker_learns_what_this_process_learns(nodes, address, learnt):
    nodes.wait(2)
    crew = crew_of(WORLD, address=address, workers=1)
    assert crew.describe() == {"kind": "ray", "shards": 3, "workers": 1, "nodes": 2}
    assert train(crew) == learnt


class Killing:
    """A crew, one of whose workers gets a signal before a call of a method, counted from 1."""

    def __init__(self, crew, nodes, *places, sent=signal.SIGKILL):
        self.crew, self.nodes, self.places, self.sent, self.calls = crew, nodes, places, sent, Counter()

    def __getattr__(self, name):
        self.calls[name] += 1
        if (name, self.calls[name]) in self.places:
            self.nodes.signal("ray::ShardActor", self.sent)
        return getattr(self.crew, name)


def check_killed(nodes, address, learnt, folder, *places):
    lost = []
    crew = crew_of(WORLD, lost.append, address=address)
    assert train(Killing(crew, nodes, *places), folder=folder) == learnt
    assert [error.code for error in lost] == ["E_WORKER_LOST"] * len(places)


@pytest.mark.slow
def test_killed_workers_change_nothing_that_is_learnt(nodes, address, learnt, tmp_path):
    check_killed(nodes, address, learnt, tmp_path / "last", ("differentiate", 9), ("collect", 4))


@pytest.mark.slow
@pytest.mark.parametrize("place", [("begin", 1), ("prepare", 2), ("states", 2)], ids=str)
def test_a_worker_may_be_killed_at_any_time(nodes, address, learnt, tmp_path, place):
    check_killed(nodes, address, learnt, tmp_path / "last", place)


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(nodes, address, learnt):
    lost = []
    crew = crew_of(WORLD, lost.append, address=address, deadline=3.0)
    assert train(Killing(crew, nodes, ("differentiate", 9), sent=signal.SIGSTOP)) == learnt
    assert "did not answer within 3 s" in lost[0].what


@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_training(nodes, address):
    def kill_the_next(lost):  # which is not there yet
        threading.Thread(target=nodes.signal, args=("ray::ShardActor", signal.SIGKILL), daemon=True).start()

    with pytest.raises(WorkerLost):
        train(Killing(crew_of(WORLD, kill_the_next, address=address, workers=1), nodes, ("collect", 2)))


def test_what_is_wrong_in_a_worker_is_said_as_in_one_process(nodes, address):
    config = {**WORLD, "env": {"kind": "points", "poison": 16 * 4 * 2 * 3 + 20}}
    told = []
    for crew in (local_crew_of(config), crew_of(config, address=address, workers=1)):
        with pytest.raises(LearningError) as caught:
            train(crew)
        told.append(str(caught.value))
    assert told[0] == told[1] and "environment" in told[0]


def test_a_run_begun_on_ray_is_what_one_process_learns_and_goes_on_there(nodes, address, tmp_path, monkeypatch):
    ray = {"kind": "ray", "address": address, "workers": 2}
    learning = {name: value for name, value in WORLD["learning"].items() if name != "shards"}
    here = coterie.run(WORLD | {"learning": learning | {"shards": 2}}, runs=tmp_path / "here")
    # As many shards as workers, if nothing else is said.
    with monkeypatch.context() as patched:
        patched.setattr(world._Attempt, "_reason_to_stop", lambda self, _: "enough" if self.iterations == 3 else "")
        moved = coterie.run(WORLD | {"learning": learning, "executor": ray}, runs=tmp_path / "moved")
    assert moved.status == "stopped" and len(moved.iterations()) == 3
    coterie.resume(moved, executor="local")
    assert moved.status == "finished" and moved.iterations() == here.iterations()


# Trainings of societies

REWARD = str(Path(__file__).parents[1] / "data" / "mortal_training.py")


def society(model, executor="local", **learning):
    # Workers batch their own episodes, and the last bits of log-probabilities depend on what is batched together.
    engine = {"kind": "transformers", "dtype": "float32", "context": 512, "max_batch": 1}
    sampling = {"temperature": 1.0, "max_tokens": 8}
    return {
        "name": "trained", "seed": 5, "determinism": "exact", "imports": [REWARD], "device": "cpu",
        "policies": {"base": {"engine": engine, "model": str(model), "sampling": sampling}},
        "seats": [{"name": "ann", "policy": "base"}, {"name": "bob", "policy": "base"}],
        "protocol": {"kind": "comas", "rounds": 1}, "benchmark": {"kind": "sums", "limit": 6},
        "rewards": [{"kind": "digits"}],
        "learning": {"kind": "policy_gradient", "iterations": 2, "tasks": 2, "episodes_per_task": 2,
                     "learning_rate": 0.01, "updates": 2, "sharing": "agent", "held_out": 2,
                     "advantage": {"kind": "rae"}, "mask_cut": False,
                     **learning},
        "executor": executor,
    }  # fmt: skip


def taught(run) -> tuple[str, list]:
    """The digest of a training and its updates, and nothing that was said twice."""
    with Journal.read(run.folder.journal) as journal:
        assert journal.verify() == []
        return journal.digest(), [fact.payload for fact in journal.facts("update")]


def failures_of(run) -> list[dict[str, str]]:
    with Journal.read(run.folder.journal) as journal:
        return [note.payload for note in journal.notes("failure")]


def on_ray(address, **fields):
    return {"kind": "ray", "address": address, "workers": 2, **fields}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    from coterie.testing.models import write_llama

    return write_llama(tmp_path_factory.mktemp("llama"), alphabet="0123456789 +-=.\nScore:Answer", layers=1, width=32)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, llama) -> tuple[str, list]:
    """What a society learns in one process."""
    return taught(coterie.run(society(llama), runs=tmp_path_factory.mktemp("alone")))


def before(monkeypatch, owner, method, number, action):
    """Does something before the how-manieth call of a method."""
    left, real = [number], getattr(owner, method)

    def call(self, *arguments, **named):
        left[0] -= 1
        if left[0] == 0:
            action()
        return real(self, *arguments, **named)

    monkeypatch.setattr(owner, method, call)


@pytest.mark.slow
def test_a_society_learns_in_actors_what_it_learns_in_one_process(nodes, address, llama, tmp_path):
    learning = {"lora": {"rank": 2}, "advantage": "gae"}
    here = coterie.run(society(llama, **learning), runs=tmp_path / "here")
    there = coterie.run(society(llama, on_ray(address), **learning), runs=tmp_path / "there")
    assert taught(there) == taught(here)
    assert not failures_of(there)


CREDITS = {
    "token": {"token": {"kind": "coupled", "least_layers": 1, "least_tokens": 1, "horizon": [1, 4]}},
    "agent": {"agent": "attention"},
    "values": {"token": {"kind": "spo", "cut": "tokens", "every": 4, "draws": 1}},
}


@pytest.mark.slow
@pytest.mark.parametrize("credit", CREDITS.values(), ids=CREDITS)
def test_credit_in_actors_is_what_it_is_in_one_process(nodes, address, llama, tmp_path, credit):
    here = coterie.run(society(llama) | {"credit": credit}, runs=tmp_path / "here")
    there = coterie.run(society(llama, on_ray(address)) | {"credit": credit}, runs=tmp_path / "there")
    assert taught(there) == taught(here)
    assert not failures_of(there)


@pytest.mark.slow
def test_policies_with_learners_of_their_own_learn_beside_each_other_what_they_learn_in_one_process(
    nodes, address, alone, llama, tmp_path
):
    run = coterie.run(society(llama, on_ray(address, replicas=2)), runs=tmp_path)
    assert taught(run) == alone
    assert not failures_of(run)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["WorkerActor", "EngineActor", "LearnerActor"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_what_becomes_of_an_actor_changes_nothing_that_is_learnt(
    nodes, address, alone, llama, tmp_path, monkeypatch, victim, number
):
    from coterie.orchestration.ray.learners import RayLearner

    place = (RayLearner, "update", 3) if victim == "LearnerActor" else (Journal, "commit", 20)
    struck = []
    before(monkeypatch, *place, lambda: struck.append(nodes.signal(f"ray::{victim}", number)))
    run = coterie.run(society(llama, on_ray(address, heartbeat=3.0)), runs=tmp_path)
    assert taught(run) == alone
    # An engine's actor is brought back by Ray itself: one that is killed between two calls is nobody's failure.
    if number == signal.SIGKILL and victim != "EngineActor":
        assert "process" in failures_of(run)[0]["what"]
    elif number == signal.SIGSTOP:
        # On a busy machine another, such as one that is still importing, may not answer for so long either.
        named = [told["where"] for told in failures_of(run) if "did not answer for 3 s" in told["what"]]
        right = [where for where in named if f" on {platform.node()} " in where and where.endswith(f" {struck[0]}")]
        assert len(right) == 1, named


@pytest.mark.slow
def test_a_training_on_ray_whose_driver_is_killed_goes_on(nodes, address, alone, llama, tmp_path):
    (tmp_path / "society.yaml").write_text(json.dumps(society(llama, on_ray(address))))
    command = [sys.executable, "-m", "coterie", "run", "society.yaml", "--no-report", "--display", "plain"]
    killed = subprocess.run(command, cwd=tmp_path, env=os.environ | {"MORTAL": "20"}, capture_output=True, timeout=600)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert taught(coterie.resume(folder)) == alone


@pytest.mark.slow
def test_an_engine_that_is_lost_between_two_calls_has_its_weights_again(
    nodes, address, alone, llama, tmp_path, monkeypatch
):
    from coterie.orchestration.society_trainer import SocietyTrainer

    before(monkeypatch, SocietyTrainer, "save", 1, lambda: nodes.signal("ray::EngineActor", signal.SIGKILL))
    run = coterie.run(society(llama, on_ray(address, replicas=2)), runs=tmp_path)
    assert taught(run) == alone
