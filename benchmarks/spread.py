"""IPPO or MAPPO on mpe2's `simple_spread_v3`: Coterie beside BenchMARL, if that is installed.

Coterie trains by examples/spread.yaml, BenchMARL by its own defaults; both in the same environment, with as many
agent-steps, in one process on one thread. Then the likeliest actions of each play the same episodes. Time is CPU time
of this process, so that what else runs on the machine takes no share of it; the start is counted, evaluation is not.

Correct first: the same policy plays the same episodes twice, to the bit.

    python benchmarks/spread.py [--agent-steps 3000000] [--seeds 1,2,3] [--learner mappo]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from _common import save

import coterie
from coterie import rng

EXPERIMENT = Path(__file__).parents[1] / "examples" / "spread.yaml"
PARAMS = {"continuous_actions": True, "max_cycles": 25}
TEAM = 3
FIRST_EPISODE = 1_000_000
"""Seed of the first episode that is played: training sees none of them."""

Act = Callable[[NDArray[np.float32]], NDArray[Any]]
"""From observations [3, D] to actions [3, 5] in [0, 1]."""


def play(act: Act, episodes: int) -> float:
    """Mean over episodes of an agent's summed reward."""
    from mpe2 import simple_spread_v3

    env, total = simple_spread_v3.parallel_env(**PARAMS), 0.0
    for number in range(episodes):
        seen, _ = env.reset(seed=FIRST_EPISODE + number)
        while env.agents:
            names = list(env.agents)
            actions = act(np.stack([seen[name] for name in names]).astype(np.float32))
            seen, rewards, *_ = env.step(dict(zip(names, np.asarray(actions, np.float32), strict=True)))
            total += sum(rewards.values()) / TEAM
    env.close()
    return total / episodes


def at_random(seen: NDArray[np.float32]) -> NDArray[Any]:
    """Actions that follow from what is seen, and from nothing that was learnt."""
    return rng.stream(0, "spread", int(abs(seen.sum()) * 1e6)).random((len(seen), 5))


def ours(learner: str, seed: int, agent_steps: int) -> tuple[Act, float]:
    """What was learnt, and the CPU seconds for it."""
    import torch

    start = time.process_time()
    changes = {"learning.kind": learner, "learning.agent_steps": agent_steps, "seed": seed, "device": "cpu"}
    with tempfile.TemporaryDirectory() as runs:
        run = coterie.run(EXPERIMENT, runs=runs, **changes)  # type: ignore[arg-type]  # overrides are of any type
        seconds, policy = time.process_time() - start, run.policy()

    @torch.no_grad()
    def act(seen: NDArray[np.float32]) -> NDArray[Any]:
        return policy(torch.from_numpy(seen)).clamp(-1, 1).numpy() / 2 + 0.5

    return act, seconds


def benchmarl(learner: str, seed: int, agent_steps: int) -> tuple[Act, float]:
    """As `ours`; frames are steps of the whole team."""
    import torch
    from benchmarl.algorithms import IppoConfig, MappoConfig
    from benchmarl.environments.pettingzoo.common import PettingZooClass
    from benchmarl.experiment import Experiment, ExperimentConfig
    from benchmarl.models.mlp import MlpConfig
    from tensordict import TensorDict
    from torchrl.envs.libs.pettingzoo import PettingZooWrapper
    from torchrl.envs.utils import ExplorationType, set_exploration_type

    class Spread(PettingZooClass):  # type: ignore[misc]  # has no types
        """The environment of the package mpe2; BenchMARL's own asks for one that PettingZoo has moved there."""

        def get_env_fun(self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any) -> Any:
            from mpe2 import simple_spread_v3

            return lambda: PettingZooWrapper(simple_spread_v3.parallel_env(**PARAMS), seed=seed, device=device)

        def has_state(self) -> bool:
            return False

        def __reduce__(self) -> tuple[Any, ...]:
            return str, ("spread",)  # kept beside the experiment, and never read

    config = ExperimentConfig.get_from_yaml()
    config.max_n_frames, config.evaluation, config.loggers = agent_steps // TEAM, False, []
    config.render = config.create_json = False
    algorithm = {"ippo": IppoConfig, "mappo": MappoConfig}[learner].get_from_yaml()
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        task = Spread("SIMPLE_SPREAD", {"max_cycles": PARAMS["max_cycles"]})
        model = MlpConfig.get_from_yaml()
        experiment = Experiment(task=task, algorithm_config=algorithm, model_config=model, seed=seed, config=config)
        experiment.run()
    seconds = time.process_time() - start
    assert experiment.total_frames * TEAM == agent_steps, f"BenchMARL made {experiment.total_frames * TEAM} agent-steps"

    @torch.no_grad()
    def act(seen: NDArray[np.float32]) -> NDArray[Any]:
        given = TensorDict({"agent": TensorDict({"observation": torch.from_numpy(seen)}, [TEAM])}, [])
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            return np.asarray(experiment.policy(given)["agent", "action"])

    return act, seconds


def trained(
    train: Callable[[str, int, int], tuple[Act, float]], learner: str, seeds: Sequence[int], steps: int, episodes: int
) -> dict[str, Any]:
    """Trainings under several seeds: each one's return, and the mean with its interval over seeds."""
    returns, rates = [], []
    for seed in seeds:
        act, seconds = train(learner, seed, steps)
        returns.append(play(act, episodes))
        rates.append(steps / seconds)
        told = f"{train.__name__}, seed {seed}: return {returns[-1]:.2f}, {rates[-1]:.0f} agent-steps per CPU second"
        print(told, file=sys.stderr, flush=True)
    low, high = interval(returns)
    return {
        "return": round(statistics.fmean(returns), 2), "low": low, "high": high,
        "returns by seed": [round(one, 2) for one in returns],
        "agent-steps per CPU second": round(statistics.median(rates)),
    }  # fmt: skip


def interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """95 % of the mean by Student's t."""
    from scipy import stats

    if len(values) < 2:
        return None, None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return round(statistics.fmean(values) - half, 2), round(statistics.fmean(values) + half, 2)


def measure(learner: str, seeds: Sequence[int], agent_steps: int, episodes: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    assert play(at_random, 2) == play(at_random, 2)
    result: dict[str, Any] = {
        "learner": learner, "agent-steps": agent_steps, "seeds": list(seeds), "episodes": episodes,
        "return at random": round(play(at_random, episodes), 2),
        "coterie": trained(ours, learner, seeds, agent_steps, episodes),
    }  # fmt: skip
    if importlib.util.find_spec("benchmarl") is None:
        print("BenchMARL is not installed and left out (pip install benchmarl)", file=sys.stderr)
        return result
    result["benchmarl"] = trained(benchmarl, learner, seeds, agent_steps, episodes)
    packages = ("benchmarl", "torchrl", "tensordict", "mpe2", "pettingzoo")
    return {**result, "packages": {name: metadata.version(name) for name in packages}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent-steps", type=int, default=3_000_000, help="BenchMARL wants multiples of 18,000.")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--learner", choices=("ippo", "mappo"), default="ippo")
    parser.add_argument("--episodes", type=int, default=200)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    save(f"spread-{options.learner}", measure(options.learner, seeds, options.agent_steps, options.episodes))
