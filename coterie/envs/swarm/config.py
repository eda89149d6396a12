"""What a swarm's world is made of. Plain data, checked when made; every number of the published runs is a field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from coterie.envs.swarm.scenarios import choose
from coterie.errors import ConfigError
from coterie.types import ObservationLayout, WorldSpec

GRACE = 1.5
"""Contacts in the first so many seconds of an episode are in no metric of its outcome."""
CELL = 1.0
"""Obstacles stand on the middles of cells of this size, m."""
MARGIN = 1.0
"""No cell is nearer to a wall than this, m."""
LAYER = 0.5
"""Vertical distance of drones that start over the same cell, m."""


def _refuse(where: str, what: str, remedy: str) -> NoReturn:
    raise ConfigError(what, where=where, remedy=remedy)


def _check(where: str, value: float, low: float, high: float = math.inf, *, above: bool = False) -> None:
    bad = isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    if bad or value < low or value > high or (above and value == low):
        limits = f"{'above' if above else 'at least'} {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
        _refuse(where, f"{where} is {value!r}", f"give a number {limits}")


@dataclass(frozen=True)
class Quadrotor:
    """One drone; the defaults are a Crazyflie 2.

    Attributes:
        mass: kg.
        inertia: About the body's axes x (forward), y (left), z (up), kg m^2.
        arm: From the centre to a motor, m. A drone is a ball of this radius.
        thrust_to_weight: All motors at full thrust, over the weight.
        torque_to_thrust: Yaw torque of a motor over its thrust, m.
        motor_lag: Time in which a motor all but reaches its command (four time constants), s.
        linear_drag: Force per velocity, N s/m.
        quadratic_drag: Force per squared velocity, N s^2/m^2.
        max_omega: Greatest angular velocity about each axis, rad/s.
        friction: Coefficient on the floor.
    """

    mass: float = 0.028
    inertia: tuple[float, float, float] = (1.36692e-5, 1.43567e-5, 2.65616e-5)
    arm: float = 0.0459619
    thrust_to_weight: float = 1.9
    torque_to_thrust: float = 0.006
    motor_lag: float = 0.15
    linear_drag: float = 0.0
    quadratic_drag: float = 0.0
    max_omega: float = 40.0
    friction: float = 0.6

    def __post_init__(self) -> None:
        for name in ("mass", "arm", "motor_lag", "max_omega"):
            _check(f"quadrotor.{name}", getattr(self, name), 0, above=True)
        _check("quadrotor.thrust_to_weight", self.thrust_to_weight, 1, above=True)
        for name in ("torque_to_thrust", "linear_drag", "quadratic_drag", "friction"):
            _check(f"quadrotor.{name}", getattr(self, name), 0)
        if len(self.inertia) != 3:
            _refuse("quadrotor.inertia", f"quadrotor.inertia is {self.inertia!r}", "give three numbers")
        for value in self.inertia:
            _check("quadrotor.inertia", value, 0, above=True)


@dataclass(frozen=True)
class Noise:
    """Standard deviations.

    Attributes:
        rotor_decay: Share of the rotors' Ornstein-Uhlenbeck noise that is lost per control step.
        rotor: Of what is added to it per control step, as a share of the command.
        position: Of the observed position, m.
        velocity: Of the observed velocity, m/s.
        omega: Of the observed angular velocity, rad/s.
    """

    rotor_decay: float = 0.15
    rotor: float = 0.01
    position: float = 0.005
    velocity: float = 0.01
    omega: float = 1.75e-4

    def __post_init__(self) -> None:
        _check("noise.rotor_decay", self.rotor_decay, 0, 1)
        for name in ("rotor", "position", "velocity", "omega"):
            _check(f"noise.{name}", getattr(self, name), 0)


@dataclass(frozen=True)
class Rewards:
    """Coefficients of the reward; all of them cost, but for being upright.

    Attributes:
        distance: Per m from the goal.
        effort: Per Euclidean norm of the raw action.
        floor: On the floor.
        upright: Earned for the vertical component of the body's vertical axis.
        spin: Per rad/s.
        time: All of the above are multiplied by this, s, in control steps of 10 ms; longer ones count in proportion.
        collision: At a contact with another drone, after a tick without.
        proximity: Greatest, for touching another drone; falls linearly to zero at `proximity_range`.
        proximity_range: In arm lengths.
        proximity_time: Proximity is multiplied by this, s, likewise.
        obstacle: At a contact with an obstacle, after a tick without.
        annealing: Agent-steps over which collision, proximity and obstacle grow from zero to these values; 0: at once.
            Published: 300,000,000.
    """

    distance: float = 1.0
    effort: float = 0.05
    floor: float = 1.0
    upright: float = 1.0
    spin: float = 0.1
    time: float = 0.005
    collision: float = 5.0
    proximity: float | None = None
    """None: 4 with obstacles, 10 without."""
    proximity_range: float = 4.0
    proximity_time: float = 0.01
    obstacle: float = 5.0
    annealing: int = 0

    def __post_init__(self) -> None:
        for name in ("distance", "effort", "floor", "upright", "spin", "time", "collision", "proximity_range",
                     "proximity_time", "obstacle", "annealing"):  # fmt: skip
            _check(f"rewards.{name}", getattr(self, name), 0)
        if self.proximity is not None:
            _check("rewards.proximity", self.proximity, 0)


@dataclass(frozen=True)
class Obstacles:
    """Upright cylinders from floor to ceiling, on the middles of cells of 1 m that keep 1 m from the walls.

    Attributes:
        density: Share of the cells that hold one; of several numbers one is drawn at each reset.
        size: Diameter, m; likewise.
        count: How many there are, instead of `density`.
    """

    density: float | tuple[float, ...] = 0.2
    size: float | tuple[float, ...] = 0.6
    count: int | None = None

    def __post_init__(self) -> None:
        for value in self.densities:
            _check("obstacles.density", value, 0, 1)
        for value in self.sizes:
            _check("obstacles.size", value, 0, CELL, above=True)
        if self.count is not None:
            _check("obstacles.count", self.count, 0)
        if not self.densities or not self.sizes:
            _refuse("obstacles", "no density or no size is given", "give at least one number for each")

    @property
    def densities(self) -> tuple[float, ...]:
        """All that may be drawn."""
        return self.density if isinstance(self.density, tuple) else (self.density,)

    @property
    def sizes(self) -> tuple[float, ...]:
        """All that may be drawn."""
        return self.size if isinstance(self.size, tuple) else (self.size,)


@dataclass(frozen=True)
class Replay:
    """Episodes that go on from shortly before a collision.

    Attributes:
        probability: That an environment with stored collisions goes on from one of them at its reset.
        size: Collisions kept per environment; the oldest makes room.
        before: How long before the contact the stored state is, s. Earlier contacts are not stored.
        every: Time between the states that are kept for this, s.
        pause: At least so long after a stored contact until the next is, s.
        uses: A collision replayed so often is dropped.
        floor_limit: Nothing is stored before episodes cost less than this for the floor, on average; None: at once.
    """

    probability: float = 0.75
    size: int = 20
    before: float = 1.5
    every: float = 0.5
    pause: float = 5.0
    uses: int = 10
    floor_limit: float | None = 1.0

    def __post_init__(self) -> None:
        _check("replay.probability", self.probability, 0, 1)
        for name in ("size", "uses"):
            _check(f"replay.{name}", getattr(self, name), 1)
        for name in ("before", "every"):
            _check(f"replay.{name}", getattr(self, name), 0, above=True)
        _check("replay.pause", self.pause, 0)
        if self.before < self.every:
            _refuse("replay.before", "replay.before is less than replay.every", "keep a state at least that often")


@dataclass(frozen=True)
class Curriculum:
    """What grows with training, linearly from the first to the second number over `steps`.

    Attributes:
        steps: Agent-steps.
        density: Multiplies the density of obstacles.
        speed: Multiplies the speed of the goals: of curves and sweeps, and how often they jump.
    """

    steps: int
    density: tuple[float, float] = (0.0, 1.0)
    speed: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        _check("curriculum.steps", self.steps, 1)
        for value in self.density:
            _check("curriculum.density", value, 0, 1)
        for value in self.speed:
            _check("curriculum.speed", value, 0, above=True)
        if len(self.density) != 2 or len(self.speed) != 2:
            _refuse("curriculum", "density or speed is no pair", "give the first and the last value")


@dataclass(frozen=True)
class SwarmConfig:
    """A swarm's world.

    Attributes:
        num_drones: N.
        num_neighbours: K, how many others a drone observes; 0: none.
        neighbour_rule: `closing`: by distance plus the change of distance in a second; `distance`: the nearest.
        neighbour_range: Farther drones are not seen, m. None: no limit to 128 drones, and 1 m beyond.
        room: Width, depth, height, m.
        seconds: Length of an episode.
        physics_hz: Physics steps per second.
        control_hz: Actions per second.
        scenario: One name, several to draw from, or `mix`.
        obstacles: None: no obstacles, and no patch in the observation.
        surroundings: What follows the observation of oneself: `height`, `walls` (distances to all six) or `none`.
            None: height with obstacles, else none.
        downwash: Drones push down what is below them.
        crash: What a contact with a drone or obstacle does beside its response: `fly_on`, or `lose`: the drone is done
            and out of the world until the next reset.
        quadrotor: The drones.
        noise: None: off.
        rewards: The coefficients.
        team_reward: Every drone earns the mean over those that were in the world: who earned it, nobody is told.
        replay: None: every reset starts a new episode.
        curriculum: None: everything as it is from the start.
        compat: `quad_swarm_rl`: with the quirks of that simulator that are told in docs/swarm.md.
    """

    num_drones: int = 8
    num_neighbours: int = 2
    neighbour_rule: Literal["closing", "distance"] = "closing"
    neighbour_range: float | None = None
    room: tuple[float, float, float] = (10.0, 10.0, 10.0)
    seconds: float = 15.0
    physics_hz: int = 200
    control_hz: int = 100
    scenario: str | tuple[str, ...] = "mix"
    obstacles: Obstacles | None = None
    surroundings: Literal["none", "height", "walls"] | None = None
    downwash: bool = True
    crash: Literal["fly_on", "lose"] = "fly_on"
    quadrotor: Quadrotor = field(default_factory=Quadrotor)
    noise: Noise | None = field(default_factory=Noise)
    rewards: Rewards = field(default_factory=Rewards)
    team_reward: bool = False
    replay: Replay | None = None
    curriculum: Curriculum | None = None
    compat: Literal["none", "quad_swarm_rl"] = "none"

    def __post_init__(self) -> None:
        for check in CHECKS:
            check(self)

    @property
    def cells(self) -> tuple[int, int]:
        """How many cells there are along the room's width and depth."""
        return max(int(self.room[0] - 2 * MARGIN), 0), max(int(self.room[1] - 2 * MARGIN), 0)

    @property
    def max_obstacles(self) -> int:
        """As many as an environment can hold."""
        if self.obstacles is None:
            return 0
        if self.obstacles.count is not None:
            return self.obstacles.count
        return int(self.cells[0] * self.cells[1] * max(self.obstacles.densities) + 1e-6)

    @property
    def scenarios(self) -> tuple[str, ...]:
        """What episodes are drawn from."""
        names = (self.scenario,) if isinstance(self.scenario, str) else tuple(self.scenario)
        return choose(names, has_obstacles=self.obstacles is not None, num_drones=self.num_drones)

    @property
    def ticks(self) -> int:
        """Control steps of an episode."""
        steps = round(self.seconds * self.control_hz)
        return steps + 1 if self.compat == "quad_swarm_rl" else steps

    @property
    def surrounding(self) -> Literal["none", "height", "walls"]:
        """`surroundings`, with None resolved."""
        return self.surroundings or ("none" if self.obstacles is None else "height")

    @property
    def self_size(self) -> int:
        """Numbers by which a drone observes itself."""
        return {"none": 18, "height": 19, "walls": 24}[self.surrounding]

    @property
    def observation_size(self) -> int:
        """Numbers that a drone observes: itself, 6 per neighbour, 9 of the patch if there are obstacles."""
        return self.spec.observation_size

    @property
    def spec(self) -> WorldSpec:
        """What a policy has to fit."""
        layout = ObservationLayout(self.self_size, self.num_neighbours, 6, 0 if self.obstacles is None else 9)
        return WorldSpec(self.num_drones, layout.size, "continuous", 4, layout)

    @property
    def pace(self) -> float:
        """How long a control step is, in the published ones of 10 ms, for which rewards per step are given."""
        return 100 / self.control_hz


def _check_drones(swarm: SwarmConfig) -> None:
    _check("num_drones", swarm.num_drones, 1, 65535)


def _check_neighbours(swarm: SwarmConfig) -> None:
    _check("num_neighbours", swarm.num_neighbours, 0, 64)


def _check_range(swarm: SwarmConfig) -> None:
    if swarm.neighbour_range is not None:
        _check("neighbour_range", swarm.neighbour_range, 0, above=True)


def _check_choice(name: str, choices: tuple[str | None, ...]) -> Callable[[SwarmConfig], None]:
    def check(swarm: SwarmConfig) -> None:
        if getattr(swarm, name) not in choices:
            known = ", ".join(str(choice) for choice in choices)
            _refuse(name, f"{name} is {getattr(swarm, name)!r}", f"take one of: {known}")

    return check


def _check_control(swarm: SwarmConfig) -> None:
    _check("control_hz", swarm.control_hz, 1)


def _check_sides(swarm: SwarmConfig) -> None:
    if len(swarm.room) != 3:
        _refuse("room", f"room is {swarm.room!r}", "give width, depth and height")
    for value in swarm.room:
        _check("room", value, 2, 1000)


def _check_physics(swarm: SwarmConfig) -> None:
    _check("physics_hz", swarm.physics_hz, 1)
    if swarm.physics_hz % swarm.control_hz:
        what = f"{swarm.control_hz} actions cannot be cut from {swarm.physics_hz} physics steps per second"
        _refuse("control_hz", what, f"take {swarm.physics_hz} or a divisor of it, or set physics_hz to a multiple")


def _check_motors(swarm: SwarmConfig) -> None:
    if swarm.physics_hz * swarm.quadrotor.motor_lag < 4:
        _refuse("physics_hz", "motors would overshoot their command", "take a greater one, or a longer motor_lag")


def _check_length(swarm: SwarmConfig) -> None:
    _check("seconds", swarm.seconds, 1 / swarm.control_hz)


def _check_others(swarm: SwarmConfig) -> None:
    most = swarm.num_drones - 1
    if swarm.num_neighbours > most:
        what = f"{swarm.num_neighbours} neighbours are asked for among {swarm.num_drones} drones"
        _refuse("num_neighbours", what, f"set num_neighbours to at most {most}")


def _check_crowd(swarm: SwarmConfig) -> None:
    if swarm.obstacles is None:
        ball, volume = 4 * swarm.quadrotor.arm, swarm.room[0] * swarm.room[1] * swarm.room[2]
        if swarm.num_drones * ball**3 * 4 > volume:
            _refuse("room", f"{swarm.num_drones} drones do not fit", "take a larger room, or fewer drones")


def _check_obstacles(swarm: SwarmConfig) -> None:
    cells, most = swarm.cells[0] * swarm.cells[1], swarm.max_obstacles
    if most > cells:
        what = f"{most} obstacles are asked for, and the room has {cells} cells"
        _refuse("obstacles.count", what, "take fewer, or a larger room")


def _check_starts(swarm: SwarmConfig) -> None:
    if swarm.obstacles is None:
        return
    cells, most = swarm.cells[0] * swarm.cells[1], swarm.max_obstacles
    layers = int((swarm.room[2] - 2) / LAYER) + 1
    if (cells - most) * layers < swarm.num_drones:
        _refuse(
            "obstacles.density",
            f"{most} obstacles in {cells} cells leave no place for {swarm.num_drones} drones to start from",
            "take a lower density, fewer drones or a larger room",
        )


def _check_scenarios(swarm: SwarmConfig) -> None:
    swarm.scenarios  # noqa: B018  # raises for one that is not there


def _check_replay(swarm: SwarmConfig) -> None:
    if swarm.replay is not None and swarm.replay.before >= swarm.seconds:
        _refuse("replay.before", "it is not shorter than an episode", "make episodes longer, or this shorter")


CHECKS: tuple[Callable[[SwarmConfig], None], ...] = (
    _check_drones, _check_neighbours, _check_range, _check_control, _check_sides,
    _check_choice("neighbour_rule", ("closing", "distance")),
    _check_choice("surroundings", (None, "none", "height", "walls")),
    _check_choice("crash", ("fly_on", "lose")), _check_choice("compat", ("none", "quad_swarm_rl")),
    _check_physics, _check_motors, _check_length, _check_others, _check_crowd, _check_obstacles, _check_starts,
    _check_scenarios, _check_replay,
)  # fmt: skip
"""What a swarm is refused for, each by a `ConfigError`: first single values, then what does not go together."""
