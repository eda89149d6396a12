"""A few updates in a world whose episodes end, told: `python tiny_training.py DEVICE`."""

import sys

from coterie.agents.learning.ppo import PPOLearner
from coterie.agents.learning.settings import PPOSettings
from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.networks import Actor, Critic
from coterie.envs.swarm import Obstacles, SwarmConfig
from coterie.envs.swarm.training import SwarmWorld
from coterie.orchestration.crew import LocalCrew
from coterie.orchestration.shards import Shard
from coterie.orchestration.trainer import Trainer


def train(device):
    config = SwarmConfig(num_drones=2, num_neighbours=1, obstacles=Obstacles(density=0.2), seconds=0.1)
    world = SwarmWorld(config, 3, 0, device=device, threads=1)
    shape = Architecture("mlp", width=8, final_width=8, activation="relu")
    networks = Actor(shape, world.spec), Critic(shape, world.spec, central=False)
    learner = PPOLearner(*networks, PPOSettings(rollout=8, minibatch=12, epochs=1))
    trainer = Trainer(LocalCrew([Shard(world, learner, 0)], learner), 0)
    return [trainer.iterate() for _ in range(3)]


if __name__ == "__main__":
    print(*train(sys.argv[1]), sep="\n")
