"""A plugin: a swarm whose process gets a signal, or whose physics breaks, when it is told to.

MORTAL="<step> <seconds> <signal>" sends the signal so many seconds after that step of the world in this process began;
BROKEN="<step>" makes a reward of that step no number. Without the variables nothing happens.
"""

import os
import threading
from typing import Literal

import numpy as np

from coterie import register
from coterie.envs.config import QuadSwarmConfig
from coterie.envs.swarm.training import SwarmWorld


class MortalConfig(QuadSwarmConfig):
    """Like the swarm."""

    kind: Literal["mortal_swarm"] = "mortal_swarm"


class MortalSwarm(SwarmWorld):
    """See the module."""

    def __init__(self, config, seed, first_env=0):
        super().__init__(config.build(), config.num_envs, seed, first_env=first_env)
        self.num_steps = 0

    def step(self, actions):
        self.num_steps += 1
        step, seconds, number = (float(x) for x in os.environ.get("MORTAL", "-1 0 0").split())
        if self.num_steps == step:
            threading.Timer(seconds, os.kill, (os.getpid(), int(number))).start()
        taken = super().step(actions)
        if self.num_steps == int(os.environ.get("BROKEN", "-1")):
            taken.reward[0, 0] = np.nan
        return taken


register("env", "mortal_swarm", config=f"{__name__}:MortalConfig", impl=f"{__name__}:MortalSwarm", summary="dies")
