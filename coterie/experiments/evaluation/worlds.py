"""The worlds in which a policy is evaluated: that of its training, with other scenarios, densities or numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coterie import registry
from coterie.config.base import KindConfig
from coterie.errors import ConfigError
from coterie.types import ObservationLayout, World, WorldSpec

if TYPE_CHECKING:
    from coterie.envs.swarm.config import SwarmConfig

_OPTIONS = {"scenario": "--scenario", "obstacles": "--density", "num_drones": "--drones", "room": "--drones"}


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is flown; each combination of scenario, density and number of drones is a cell. Empty: as in the training.

    Attributes:
        scenarios: Names.
        densities: Shares of the cells that hold an obstacle.
        drones: How many fly together.
        episodes: In each cell.
        seed: Of the episodes.
        is_deterministic: The likeliest action; else one is drawn, as in training.
        checkpoint: `last` or `best`.
    """

    scenarios: tuple[str, ...] = ()
    densities: tuple[float, ...] = ()
    drones: tuple[int, ...] = ()
    episodes: int = 100
    seed: int = 0
    is_deterministic: bool = True
    checkpoint: str = "last"


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination.

    Attributes:
        place: `scenario`, `density` and `agents`, as far as the world has them.
        make: From a number of environments and a seed to its world.
    """

    place: dict[str, Any]
    make: Callable[[int, int], World]

    def __str__(self) -> str:
        scenario, density = self.place["scenario"], self.place["density"]
        parts = [scenario if isinstance(scenario, str) else " ".join(scenario)] if scenario else []
        parts += [f"density {show_density(density)}"] if density is not None else []
        agents = self.place["agents"]
        parts += [f"{agents} agent{'s' if agents > 1 else ''}"] if agents else []
        return ", ".join(parts)


def show_density(density: float | Sequence[float]) -> str:
    """One share, or several of which one is drawn."""
    return "/".join(f"{value:.0%}" for value in ([density] if isinstance(density, int | float) else density))


def cells_of(env: KindConfig, conditions: Conditions) -> list[Cell]:
    """All combinations, of which nothing is made yet.

    Raises:
        ConfigError: the conditions do not go with the world.
    """
    build = getattr(env, "build", None)
    if build is not None:
        return list(_swarms(build(), conditions))
    for name in ("scenarios", "densities", "drones"):
        if getattr(conditions, name):
            option = {"scenarios": "--scenario", "densities": "--density"}.get(name, "--drones")
            raise ConfigError(f"a world of {env.kind} has no {name}", where=option, remedy="leave it out")
    place = {"scenario": getattr(env, "id", env.kind), "density": None, "agents": None}
    return [Cell(place, lambda num_envs, seed: _make(env, num_envs, seed))]


def trained_in(env: KindConfig) -> WorldSpec:
    """What the policy was built for."""
    if (spec := getattr(env, "spec", None)) is not None:
        found: WorldSpec = spec()
        return found
    world = _make(env, 1, 0)
    world.close()
    return world.spec


def _make(env: KindConfig, num_envs: int, seed: int) -> World:
    world: World = registry.impl("env", env.kind)(env.model_copy(update={"num_envs": num_envs}), seed)
    return world


def _swarms(trained: SwarmConfig, conditions: Conditions) -> Iterator[Cell]:
    if conditions.densities and trained.obstacles is None:
        raise ConfigError(
            "the policy was trained without obstacles, and does not see any", where="--density",
            remedy="leave it out, or train with `obstacles`",
        )  # fmt: skip
    for scenario, density, drones in product(
        conditions.scenarios or (trained.scenario,), conditions.densities or (None,),
        conditions.drones or (trained.num_drones,),
    ):  # fmt: skip
        config = _vary(trained, scenario, density, drones)
        place = {"scenario": scenario, "density": _density(config), "agents": drones}
        yield Cell(place, _maker(config, trained.num_neighbours))


def _density(config: SwarmConfig) -> float | tuple[float, ...] | None:
    """Shares of the cells that hold an obstacle; None without obstacles."""
    if config.obstacles is None or config.obstacles.count is None:
        return None if config.obstacles is None else config.obstacles.density
    return config.obstacles.count / max(config.cells[0] * config.cells[1], 1)


def _maker(config: SwarmConfig, num_neighbours: int) -> Callable[[int, int], World]:
    def make(num_envs: int, seed: int) -> World:
        from coterie.envs.swarm.training import SwarmWorld

        world = SwarmWorld(config, num_envs, seed)
        return world if config.num_neighbours == num_neighbours else FewerNeighbours(world, num_neighbours)

    return make


def _vary(trained: SwarmConfig, scenario: str | tuple[str, ...], density: float | None, drones: int) -> SwarmConfig:
    """The world of an evaluation: nothing is replayed, and everything is as hard as it gets.

    Raises:
        ConfigError: there is no such world; `where` is the option.
    """
    try:
        obstacles = trained.obstacles
        if obstacles is not None and density is not None:
            obstacles = replace(obstacles, density=density, count=None)
        return replace(
            trained, scenario=scenario, obstacles=obstacles, num_drones=drones, replay=None, curriculum=None,
            num_neighbours=max(min(trained.num_neighbours, drones - 1), 0),
            rewards=replace(trained.rewards, annealing=0),
        )  # fmt: skip
    except ConfigError as error:
        # Obstacles that were there in the training leave no room for more drones.
        part = error.where.partition(".")[0]
        option = "--drones" if part == "obstacles" and density is None else _OPTIONS.get(part, error.where)
        raise ConfigError(error.what, where=option, remedy=error.remedy) from None


class FewerNeighbours:
    """A world of fewer agents than a policy observes neighbours: it sees empty slots in the place of those missing.

    Args:
        world: The world, whose layout is known.
        num_neighbours: How many slots the policy has.
    """

    def __init__(self, world: World, num_neighbours: int) -> None:
        layout = world.spec.layout
        assert layout is not None
        self._world, self._at = world, layout.self_size + layout.num_neighbours * layout.neighbour_size
        self._missing = (num_neighbours - layout.num_neighbours) * layout.neighbour_size
        full = replace(layout, num_neighbours=num_neighbours)
        assert isinstance(full, ObservationLayout)
        self.spec: WorldSpec = replace(world.spec, observation_size=full.size, layout=full)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def _fill(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        empty = np.zeros((*observation.shape[:2], self._missing), np.float32)
        return np.concatenate([observation[..., : self._at], empty, observation[..., self._at :]], 2)

    def reset(self, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """See `World`."""
        return self._fill(self._world.reset(mask))

    def step(self, actions: Any) -> Any:
        """See `World`."""
        step = self._world.step(actions)
        return step._replace(observation=self._fill(step.observation))
