"""Scenarios: where goals are, and how they move. One row of data each; the moves themselves are in `goals`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coterie.errors import ConfigError

Move = Literal[
    "hold", "jump", "reshape", "sweep", "permute", "exchange", "lissajous", "bezier", "run_away", "independent",
    "free_square"
]  # fmt: skip
MOVES: tuple[Move, ...] = (
    "hold", "jump", "reshape", "sweep", "permute", "exchange", "lissajous", "bezier", "run_away", "independent",
    "free_square"
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """What an episode asks of the drones.

    Attributes:
        summary: One line for people.
        move: What happens to the goals every `period`: `hold` nothing; `jump` the shared goal is somewhere else;
            `reshape` another formation at another place; `sweep` the formation grows and shrinks; `permute` goals
            change hands; `exchange` two formations change places; `lissajous` and `bezier` a curve; `run_away` the
            first two drones get goals of others; `independent` each drone has its own free cell; `free_square` one
            goal in the middle of the largest square without obstacles.
        in_formation: Goals make a formation; otherwise there is one for all.
        spacing: Least and greatest distance between neighbouring goals of a formation, m.
        period: Least and greatest time between moves, s; zeros: never.
        among_obstacles: Starts and goals are over free cells; otherwise around the middle of the room.
        reach: A drone whose mean distance over five ticks is below this, m, has reached its goal.
    """

    summary: str
    move: Move = "hold"
    in_formation: bool = False
    spacing: tuple[float, float] = (0.0, 0.0)
    period: tuple[float, float] = (0.0, 0.0)
    among_obstacles: bool = False
    reach: float = 0.5


SCENARIOS: dict[str, Scenario] = {
    "static_same_goal": Scenario("one goal for all, which stays", reach=1.0),
    "static_diff_goal": Scenario("a formation, which stays", in_formation=True, spacing=(0.25, 0.5)),
    "dynamic_same_goal": Scenario("one goal for all, which jumps", "jump", period=(4, 6), reach=1.0),
    "dynamic_diff_goal": Scenario("formations that come and go", "reshape", True, (0.25, 0.5), (4, 6)),
    "dynamic_formations": Scenario("a formation that grows and shrinks", "sweep", True, (0.0, 1.0)),
    "swap_goals": Scenario("a formation whose goals change hands", "permute", True, (0.4, 0.8), (4, 6)),
    "swarm_vs_swarm": Scenario("two formations that change places", "exchange", True, (0.25, 0.5), (4, 6)),
    "ep_lissajous3D": Scenario("one goal for all on a Lissajous curve", "lissajous", period=(0.01, 0.01), reach=1.0),
    "ep_rand_bezier": Scenario("one goal for all on Bezier curves", "bezier", period=(5, 5), reach=1.0),
    "run_away": Scenario("two drones visit the goals of others", "run_away", True, (0.25, 0.5), (1, 1)),
    "o_random": Scenario("each drone from one free cell to another", "independent", among_obstacles=True),
    "o_static_same_goal": Scenario(
        "one goal in the largest free square", "free_square", among_obstacles=True, reach=1.0
    ),
    "o_dynamic_same_goal": Scenario(
        "one goal for all, over free cells, which jumps", "jump", period=(4, 6), among_obstacles=True, reach=1.0
    ),
    "o_swap_goals": Scenario("goals over free cells that change hands", "permute", period=(4, 6), among_obstacles=True),
    "o_ep_rand_bezier": Scenario(
        "one goal for all on Bezier curves between free cells", "bezier", period=(6, 6), among_obstacles=True, reach=1.0
    ),
}
"""By name. A scenario of your own is one more entry, made before a world is."""

MIXES: dict[bool, tuple[str, ...]] = {
    False: (
        "static_same_goal", "static_diff_goal", "dynamic_same_goal", "dynamic_diff_goal", "dynamic_formations",
        "swap_goals", "swarm_vs_swarm", "ep_lissajous3D", "ep_rand_bezier",
    ),
    True: ("o_random", "o_static_same_goal"),
}  # fmt: skip
"""What `mix` draws from, without and with obstacles: what quad-swarm-rl trains on."""

_SINGLE: tuple[str, ...] = (
    "static_same_goal", "static_diff_goal", "dynamic_same_goal", "ep_lissajous3D", "ep_rand_bezier",
)  # fmt: skip


def choose(names: tuple[str, ...], *, has_obstacles: bool, num_drones: int) -> tuple[str, ...]:
    """The names of the scenarios that episodes are drawn from. Raises ConfigError for one that cannot be."""
    chosen: list[str] = []
    for name in names:
        if name == "mix":
            mix = ("o_random",) if num_drones == 1 and has_obstacles else MIXES[has_obstacles]
            chosen += _SINGLE if num_drones == 1 and not has_obstacles else mix
            continue
        if name not in SCENARIOS:
            known = ", ".join(["mix", *SCENARIOS])
            raise ConfigError(f"there is no scenario {name!r}", where="scenario", remedy=f"take one of: {known}")
        if SCENARIOS[name].among_obstacles != has_obstacles:
            fitting = ", ".join(key for key, row in SCENARIOS.items() if row.among_obstacles == has_obstacles)
            what = "with" if has_obstacles else "without"
            raise ConfigError(
                f"scenario {name!r} does not go {what} obstacles",
                where="scenario",
                remedy=f"change `obstacles`, or take one of: {fitting}",
            )
        if name in ("run_away", "swarm_vs_swarm") and num_drones < 2:
            raise ConfigError(f"scenario {name!r} needs two drones", where="num_drones", remedy="set it to 2 or more")
        chosen.append(name)
    if not chosen:
        raise ConfigError("no scenario is given", where="scenario", remedy="name one, or `mix`")
    return tuple(dict.fromkeys(chosen))
