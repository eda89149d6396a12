import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from points import Points

from coterie.agents.learning.ppo import LearningError, PPOLearner
from coterie.agents.learning.settings import PPOSettings
from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.networks import Actor, Critic
from coterie.envs.joined import JoinedWorld
from coterie.errors import ResumeError
from coterie.orchestration.crew import LocalCrew
from coterie.orchestration.shards import Shard
from coterie.orchestration.trainer import Trainer

TINY = {"rollout": 16, "minibatch": 256, "epochs": 2}


def trainer(*worlds, seed=1, **settings):
    """Of one world, or of one for each shard."""
    worlds = worlds or (Points(),)
    spec, chosen = worlds[0].spec, PPOSettings(**{**TINY, **settings})
    shape = Architecture("mlp", width=16, final_width=16, initial_std=0.5)
    actor, critic = Actor(shape, spec, seed), Critic(shape, spec, central=chosen.central, seed=seed)
    learner, first, shards = PPOLearner(actor, critic, chosen), 0, []
    for world in worlds:
        shards.append(Shard(world, learner, seed, first))
        first += world.num_envs
    return Trainer(LocalCrew(shards, learner), seed)


def test_a_record_holds_the_facts_of_an_iteration():
    made = trainer()
    made.iterate()
    record = made.iterate()
    assert (record.iteration, record.agent_steps, record.episodes) == (2, 2 * 16 * 16 * 2, 16)
    assert set(record.metrics) == {"distance"} and set(record.learning) >= {"kl", "entropy", "explained_variance"}
    assert all(isinstance(value, float) for value in record.learning.values())


@pytest.mark.parametrize(("discrete", "central"), [(False, False), (True, False), (False, True)])
def test_points_learn_to_go_to_the_middle(discrete, central):
    made = trainer(
        Points(num_envs=32, discrete=discrete), learning_rate=2e-3, max_learning_rate=2e-3, epochs=6, central=central
    )
    records = [made.iterate() for _ in range(12)]
    assert records[-1].metrics["distance"] < 0.5 * records[1].metrics["distance"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    first, second, other = trainer(), trainer(), trainer(seed=2)
    records = [[one.iterate() for _ in range(3)] for one in (first, second, other)]
    assert records[0] == records[1]
    assert records[0][-1].weights != records[2][-1].weights


@pytest.mark.parametrize("shards", [1, 2])
def test_the_number_of_threads_changes_nothing(shards):
    def train(count):
        worlds = [JoinedWorld([Points(seed=3 * shard + part) for part in range(3)]) for shard in range(shards)]
        made = trainer(*worlds, minibatch=8192)
        made.learner.threads.count = count
        return [made.iterate() for _ in range(3)]

    assert train(1) == train(3)


def test_what_agents_do_after_they_are_done_teaches_nothing():
    def train(noise):
        made = trainer(Points(deaths=True))
        made.iterate()
        shard = made.crew.shards[0]
        rollout = shard._rollout
        assert not rollout.alive.all()
        rollout.reward[~rollout.alive] = noise
        rollout.action[~rollout.alive] = noise
        shard._collected = shard._judge([], 0)
        return made._learn([shard._collected]), made.learner.weights()["actor.output.weight"].clone()

    (first, weights), (second, others) = train(0.0), train(99.0)
    assert first == second and torch.equal(weights, others)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"central": True}, {"normalise_observations": False, "target_kl": None}])
def test_a_trainer_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, settings, shards):
    def make():
        return trainer(*(Points(seed=shard, deaths=True) for shard in range(shards)), **settings)

    made = make()
    for _ in range(3):
        made.iterate()
    saved = made.save(tmp_path / "three")
    expected = [made.iterate() for _ in range(3)]
    again = make()
    again.load(tmp_path / "three")
    assert again.save(tmp_path / "same") == saved
    assert [again.iterate() for _ in range(3)] == expected


def test_a_checkpoint_of_other_networks_is_refused(tmp_path):
    trainer().save(tmp_path / "one")
    with pytest.raises(ResumeError, match="other networks"):
        trainer(Points(discrete=True)).load(tmp_path / "one")


def test_a_checkpoint_of_another_seed_is_refused(tmp_path):
    trainer().save(tmp_path / "one")
    with pytest.raises(ResumeError, match="seed"):
        trainer(seed=2).load(tmp_path / "one")


@pytest.mark.parametrize(("saved", "here"), [(1, 2), (2, 1), (2, 3)])
def test_a_checkpoint_of_another_number_of_shards_is_refused(tmp_path, saved, here):
    trainer(*(Points() for _ in range(saved))).save(tmp_path / "one")
    with pytest.raises(ResumeError, match="shards"):
        trainer(*(Points() for _ in range(here))).load(tmp_path / "one")


def test_a_reward_that_is_no_number_names_step_environment_and_seed(tmp_path):
    world = Points()
    made = trainer(world)
    made.iterate()
    before = made.save(tmp_path / "good")
    world.poison = world.agent_steps + 4 * world.terminated.size
    with pytest.raises(LearningError) as caught:
        made.iterate()
    assert "iteration 2" in caught.value.where and "seed 1" in caught.value.where
    assert "step 3 of the rollout, environment 3" in caught.value.where
    again = trainer()
    again.load(tmp_path / "good")
    assert again.save(tmp_path / "same") == before


def test_weights_that_are_no_numbers_end_the_training():
    made = trainer()
    made.iterate()
    with torch.no_grad():
        made.learner.critic.output.bias.fill_(torch.nan)
    with pytest.raises(LearningError, match="value"):
        made.iterate()


def test_training_is_done_after_as_many_steps_as_were_asked_for():
    made = trainer(agent_steps=1000)
    while not made.is_done:
        made.iterate()
    assert made.agent_steps == 1024


def test_every_shard_is_told_of_the_steps_of_all():
    worlds = Points(num_envs=4), Points(num_envs=6)
    made = trainer(*worlds)
    made.iterate()
    made.crew.states(made.agent_steps)
    assert made.agent_steps == worlds[0].agent_steps == worlds[1].agent_steps == 10 * 2 * 16


ITERATIONS = 10
_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_trainer import Points, trainer
made, folder = trainer(Points(deaths=True)), Path(sys.argv[2])
names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
if names:
    made.load(folder / names[-1])
while made.iteration < int(sys.argv[3]):
    record = made.iterate()
    made.save(folder / f"{made.iteration:03d}")
    print(record.weights, flush=True)
"""


def test_a_training_that_is_killed_and_resumed_ends_with_the_same_weights(tmp_path):
    def start():
        command = [sys.executable, "-c", _CHILD, str(Path(__file__).parent), str(tmp_path), str(ITERATIONS)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    undisturbed = trainer(Points(deaths=True))
    expected = [undisturbed.iterate().weights for _ in range(ITERATIONS)]
    child = start()
    said = [child.stdout.readline().strip() for _ in range(3)]
    child.send_signal(signal.SIGKILL)
    said += child.communicate()[0].split()
    assert len(said) < ITERATIONS
    said += start().communicate(timeout=120)[0].split()
    assert said[-1] == expected[-1] and set(said) == set(expected)


def test_records_are_plain_facts():
    record = asdict(trainer().iterate())
    flat = [*record.values(), *record.pop("metrics").values(), *record.pop("learning").values()]
    assert all(isinstance(value, int | float | str) for value in flat if not isinstance(value, dict))
