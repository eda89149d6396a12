"""A society that is trained: what becomes of its weights, its versions and its facts, also when it is killed."""

import json
import signal
import sys
from pathlib import Path

import pytest

from coterie.config.load import load, loads
from coterie.config.problems import InvalidConfig
from coterie.config.tree import show
from coterie.experiments.training.society import tell_crowding
from coterie.journal import Journal
from coterie.testing.models import write_llama

sys.path.insert(0, str(Path(__file__).parent))
from society_runs import ALPHABET, coterie, outcome, start
from society_runs import LEARNING as SHARED
from society_runs import experiment as plain

PLAIN = {"temperature": 1.0}
LEARNING = {**SHARED, "sharing": "agent"}
SLEEPER = {"engine": {"kind": "vllm", "sleep": True}, "sampling": PLAIN}


def experiment(model: Path, **learning: object) -> dict[str, object]:
    return plain(model, "trained", 8, learning={**LEARNING, **learning})


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"), alphabet=ALPHABET, layers=1, width=32)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, llama) -> Path:
    cwd = tmp_path_factory.mktemp("undisturbed")
    done = start(cwd, experiment(llama))
    assert done.returncode == 0, done.stderr
    return cwd


def test_every_agent_has_weights_of_its_own_that_change_with_every_update(undisturbed):
    _, updates = outcome(undisturbed)
    hashes = [policy["weights"] for update in updates for policy in update["policies"].values()]
    assert [sorted(update["policies"]) for update in updates] == [["ann", "bob"]] * 2
    assert len(set(hashes)) == 4


def test_every_turn_says_which_version_of_its_policy_said_it(undisturbed):
    (run,) = (undisturbed / "runs").iterdir()
    with Journal.read(run / "journal.sqlite") as journal:
        turns = [fact.payload for fact in journal.facts("turn")]
    assert {(t["place"]["task"].split("@")[1].split(".")[0], t["policy_version"]) for t in turns} == {
        ("000001", 0), ("000002", 1)
    }  # fmt: skip


def test_tasks_that_are_held_out_are_never_worked(undisturbed):
    (run,) = (undisturbed / "runs").iterdir()
    with Journal.read(run / "journal.sqlite") as journal:
        worked = {fact.payload["task"].split("@")[0] for fact in journal.facts("episode")}
    assert len(worked) == 4


def test_engine_and_learner_agree_on_what_was_said(undisturbed):
    _, updates = outcome(undisturbed)
    for update in updates:
        for policy in update["policies"].values():
            assert policy["learning"]["mismatch_kl"] < 1e-6


# Of 29 commits the 17th and the 27th are those of the updates.
@pytest.mark.parametrize("commit", [18, *(pytest.param(n, marks=pytest.mark.slow) for n in (8, 11, 15, 17, 23, 27))])
def test_a_training_that_is_killed_anywhere_and_resumed_ends_with_the_same_facts_and_weights(
    tmp_path, llama, undisturbed, commit
):
    killed = start(tmp_path, experiment(llama), MORTAL=str(commit))
    assert killed.returncode == -signal.SIGKILL
    resumed = coterie("resume", "latest", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(tmp_path) == outcome(undisturbed)


@pytest.mark.slow
def test_where_a_training_was_stopped_is_no_fact_of_it(tmp_path, llama):
    config, digests = experiment(llama) | {"checkpoint_every": 2}, list[str]()
    for name, limit in (("undisturbed", {}), ("stopped", {"calls": 12})):
        (tmp_path / name).mkdir()
        first = start(tmp_path / name, config | {"budget": limit})
        if limit:
            assert len(outcome(tmp_path / name)[1]) == 1, first.stderr
            resumed = coterie("resume", "latest", "-o", "budget.calls=null", cwd=tmp_path / name)
            assert resumed.returncode == 0, resumed.stderr
        digests.append(outcome(tmp_path / name)[0])
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_updates_since_the_last_checkpoint_are_done_again_and_turns_are_not(tmp_path, llama, undisturbed):
    config = experiment(llama) | {"checkpoint_every": 5}
    killed = start(tmp_path, config, MORTAL="22")  # amid the second iteration's turns, well before its checkpoint
    assert killed.returncode == -signal.SIGKILL
    (run,) = (tmp_path / "runs").iterdir()
    assert not list(run.glob("checkpoints/*"))
    assert coterie("resume", "latest", cwd=tmp_path).returncode == 0
    hashes = [{name: p["weights"] for name, p in update["policies"].items()} for update in outcome(tmp_path)[1]]
    expected = [{name: p["weights"] for name, p in update["policies"].items()} for update in outcome(undisturbed)[1]]
    assert hashes == expected


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["policy", "agent"])
def test_adapters_are_trained_beside_one_engine(tmp_path, llama, sharing):
    done = start(tmp_path, experiment(llama, lora={"rank": 2}, sharing=sharing, iterations=1))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting transformers") == 1
    _, (update,) = outcome(tmp_path)
    assert sorted(update["policies"]) == (["ann", "bob"] if sharing == "agent" else ["base"])


@pytest.mark.slow
def test_a_checkpoint_that_is_gone_is_named(tmp_path, llama, undisturbed):
    start(tmp_path, experiment(llama), MORTAL="22")
    (run,) = (tmp_path / "runs").iterdir()
    for file in (run / "checkpoints").glob("*/checkpoint.json"):
        file.unlink()
    resumed = coterie("resume", "latest", cwd=tmp_path)
    assert resumed.returncode == 4
    assert "the checkpoint after iteration 1 cannot be read" in resumed.stderr


def test_what_is_wrong_with_a_policy_of_many_agents_is_said_once_where_it_stands(llama, tmp_path):
    file = tmp_path / "society.yaml"
    for sampling, says in (({"topp": 1, **PLAIN}, "unknown key"), ({"temperature": 0.5}, "must be 1 for a policy")):
        policy = experiment(llama)["policies"]["base"] | {"sampling": sampling}
        for section, path in (({"policies": {"base": policy}}, "policies.base"), ({"policy": policy}, "policy")):
            config = {k: v for k, v in experiment(llama).items() if k != "policies"} | section
            config["seats"] = [{"name": "ann", "count": 4} | ({"policy": "base"} if "policies" in section else {})]
            file.write_text(json.dumps(config, indent=1))
            with pytest.raises(InvalidConfig, match=says) as error:
                load(file)
            [problem] = error.value.problems
            line = file.read_text().splitlines()[problem.mark.line - 1]
            assert show(problem.path).startswith(f"{path}.sampling.")
            assert f'"{problem.path[-1]}"' in line


def test_more_processes_than_cores_are_told():
    assert "8 processes share 2 cores" in tell_crowding(8, "cpu", 2) == tell_crowding({"ann": 1, "bob": 8}, "cpu", 2)
    assert not tell_crowding(2, "cpu", 2) and not tell_crowding(8, "cuda", 2) and not tell_crowding({}, "cpu", 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rewards": []}, "no reward has a weight, .* write rewards: .interaction"),
        ({"baselines": ["single"]}, "are not for a training"),
        ({"learning": {"kind": "ippo"}}, "trains the policies of a world"),
        ({"determinism": "statistical", "policies": {"base": {"engine": "openai", "sampling": PLAIN}}}, "not give"),
        ({"policies": {"base": {"sampling": {"temperature": 0.7}}}}, "must be 1 for a policy that is trained"),
        ({"policies": {"base": {"frozen": True, "sampling": {"temperature": 1.0}}}}, "nothing to train"),
        ({"learning": {**LEARNING, "ranks": {"nobody": 2}}}, "no policy nobody is trained; those that are: ann, bob"),
        ({"benchmark": {"kind": "sums", "limit": 2}}, "2 of at most 2 tasks are held out"),
        ({"learning": SHARED, "rewards": ["co_rl"]}, "all seats have base; give seats policies of their own"),
        ({"policies": {"base": SLEEPER}}, "one engine of a process"),
        ({"policies": {"base": SLEEPER}, "learning": None}, "nothing learns here"),
        ({"learning": {**LEARNING, "canary_limit": 0.5}}, "nobody judges canaries here"),
    ],
)
def test_what_cannot_be_trained_is_refused(llama, change, says):
    config = experiment(llama) | change
    with pytest.raises(InvalidConfig, match=says):
        loads(config)
