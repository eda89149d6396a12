"""A short flight with noise, contacts, a wall and the floor, saved: `python wild_flight.py DEVICE FILE`."""

import sys

import numpy as np

from coterie.envs.swarm import Obstacles, SwarmConfig, VecSwarm

CROWDED = [[[0, 0, 5], [0.08, 0, 5], [0.04, 0, 0.05]], [[4.999, 0, 5], [0, 0, 0.05], [0.03, 0.03, 0.2]]]


def fly(device, steps=6):
    """Two environments of three drones: what they observe, are rewarded and hold, and the start of another episode."""
    world = VecSwarm(SwarmConfig(num_drones=3, obstacles=Obstacles(density=0.2)), 2, seed=4, device=device)
    first, rng = np.array(world.reset().tolist()), np.random.default_rng(0)
    world.set_state(pos=CROWDED, vel=[[[0, 0, 0], [-0.5, 0, 0], [0, 0, 0]], [[2, 0, 0], [0, 0, 0], [0, 0, 0]]])
    rewards = []
    for _ in range(steps):
        step = world.step(rng.uniform(-0.3, 0.4, (2, 3, 4)).astype(np.float32))
        rewards.append(step.reward.tolist())
    kept, last = world.state_dict(), np.array(world.observation.tolist())
    world.reset(np.array([False, True]))
    again = np.array(world.observation.tolist())
    return {"first": first, "last": last, "again": again, "rewards": np.array(rewards), **kept}


if __name__ == "__main__":
    np.savez(sys.argv[2], **fly(sys.argv[1]))
