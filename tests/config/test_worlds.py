# ruff: noqa: E501 - a table
"""Experiment files of worlds: what is read, and what is refused, at its place and all at once."""

import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from coterie import registry
from coterie.config.base import Config, KindConfig
from coterie.config.load import json_schema, load, loads
from coterie.config.mirror import mirrors, restore
from coterie.config.problems import InvalidConfig
from coterie.config.schema import ExperimentConfig, WorldConfig
from coterie.envs.config import QuadSwarmConfig
from coterie.envs.swarm.config import SwarmConfig
from coterie.envs.swarm.training import SwarmWorld
from coterie.experiments.cli.options import settle

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = [
    "name: good",
    "env: {kind: quad_swarm_v0}",
    "policy: {kind: attention, preset: small}",
    "learning: {kind: ippo, agent_steps: 1000}",
]
SOCIETY = [
    "name: good",
    "policy: {engine: scripted}",
    "seats: [{name: a}]",
    "protocol: machinesom",
    "benchmark: sums",
]


def write(folder: Path, lines: list[str], number: int = 0, line: str = "") -> Path:
    """A file with one line replaced (or, behind the last, added)."""
    lines = [*lines, ""]
    if number:
        lines[number - 1] = line
    (path := folder / "a.yaml").write_text("\n".join(lines))
    return path


def refuse(path: Path, *overrides: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(path, list(overrides))
    return str(caught.value).replace(f"{path}:", "")


def test_a_file_with_env_is_a_world_and_one_with_benchmark_a_society(tmp_path: Path) -> None:
    assert isinstance(load(write(tmp_path, GOOD)).config, WorldConfig)
    assert isinstance(load(write(tmp_path, SOCIETY)).config, ExperimentConfig)


def test_an_empty_env_is_the_world_with_its_own_defaults() -> None:
    assert QuadSwarmConfig().build() == SwarmConfig()


def test_episodes_in_which_no_contact_can_count_are_cautioned_of(tmp_path: Path) -> None:
    world = write(tmp_path, GOOD)
    caution = load(world, ["env.seconds=1.5"]).caution
    assert caution.startswith("env.seconds: contacts in the first 1.5 s") and "give more seconds" in caution
    assert load(world, ["env.seconds=1.6"]).caution == load(write(tmp_path, SOCIETY)).caution == ""


def test_the_config_of_the_world_has_every_field_of_the_world() -> None:
    assert {part.name for part in fields(SwarmConfig)} | {"kind", "num_envs"} == set(QuadSwarmConfig.model_fields)


def test_parts_are_written_as_mappings_and_switched_off_by_a_word(tmp_path: Path) -> None:
    env = (
        "env: {kind: quad_swarm_v0, noise: off, obstacles: {density: [0.1, 0.2]}, replay: {}, quadrotor: {mass: 0.03}}"
    )
    built = load(write(tmp_path, GOOD, 2, env)).config.env.build()
    assert built.noise is None and built.replay is not None and built.curriculum is None
    assert built.obstacles.densities == (0.1, 0.2) and built.quadrotor.mass == 0.03


def test_a_world_is_the_same_after_it_was_written_down(tmp_path: Path) -> None:
    env = "env: {kind: quad_swarm_v0, noise: off, obstacles: {}, room: [8, 8, 6], scenario: [o_random, mix]}"
    config = load(write(tmp_path, GOOD, 2, env)).config
    assert loads(config.model_dump(mode="json")).config == config


# What replaces which line of GOOD (5: is added), where the error is, and what it says.
CASES = {
    "negative drones": (2, "env: {kind: quad_swarm_v0, num_drones: -3}", "2:40", "env.num_drones  num_drones is -3; give a number at least 1"),
    "density over 1": (2, "env: {kind: quad_swarm_v0, obstacles: {density: 1.5}}", "2:49", "env.obstacles.density  obstacles.density is 1.5; give a number at least 0 and at most 1"),
    "more obstacles than the room holds": (2, "env: {kind: quad_swarm_v0, obstacles: {count: 100}}", "2:47", "env.obstacles.count  100 obstacles are asked for, and the room has 64 cells"),
    "no place to start from": (2, "env: {kind: quad_swarm_v0, obstacles: {density: 1.0}}", "2:49", "leave no place for 8 drones"),
    "unknown scenario": (2, "env: {kind: quad_swarm_v0, scenario: static_dif_goal}", "2:38", 'did you mean "static_diff_goal"?'),
    "unknown scenario in a list": (2, "env: {kind: quad_swarm_v0, scenario: [mix, o_randm]}", "2:44", 'env.scenario[1]  unknown scenario "o_randm"'),
    "a scenario that needs obstacles": (2, "env: {kind: quad_swarm_v0, scenario: o_random}", "2:38", "does not go without obstacles"),
    "too many neighbours": (2, "env: {kind: quad_swarm_v0, num_drones: 2}", "2:6", "env.num_neighbours  2 neighbours are asked for among 2 drones"),
    "fractional drones": (2, "env: {kind: quad_swarm_v0, num_drones: 2.5}", "2:40", "expected a whole number, got 2.5"),
    "misspelt field": (2, "env: {kind: quad_swarm_v0, num_dorones: 8}", "2:28", 'did you mean "num_drones"?'),
    "misspelt field of a part": (2, "env: {kind: quad_swarm_v0, obstacles: {densty: 0.2}}", "2:40", 'env.obstacles.densty  unknown key\n        did you mean "density"?'),
    "a room of two numbers": (2, "env: {kind: quad_swarm_v0, room: [10, 10]}", "2:34", "env.room"),
    "unknown world": (2, "env: quad_swarm", "2:6", 'did you mean "quad_swarm_v0"?'),
    "no environments": (2, "env: {kind: quad_swarm_v0, num_envs: 0}", "2:38", "env.num_envs  must be at least 1, got 0"),
    "a curriculum without its length": (2, "env: {kind: quad_swarm_v0, curriculum: {}}", "2:40", "env.curriculum.steps  is required"),
    "no module": (2, "env: {kind: pettingzoo, id: simple spread}", "2:29", "env.id"),
    "pettingzoo without a module": (2, "env: pettingzoo", "2:6", "env.id  is required"),
    "unknown policy": (3, "policy: atention", "3:9", 'did you mean "attention"?'),
    "unknown learner": (4, "learning: ppo", "4:11", 'did you mean "ippo"?'),
    "no policy": (3, "seed: 1", "1:1", "policy  is required"),
    "no learning": (4, "seed: 1", "1:1", "learning  is required"),
    "misspelt env": (2, "evn: {kind: quad_swarm_v0}", "2:1", 'evn  unknown key\n        did you mean "env"?'),
    "no checkpoints": (5, "checkpoint_every: 0", "5:19", "must be at least 1"),
    "a budget of tokens": (5, "budget: {tokens: 5}", "5:10", "budget.tokens  unknown key"),
    "seats": (5, "seats: [{name: a}]", "5:1", "seats  belongs to a society"),
    "a protocol": (5, "protocol: machinesom", "5:1", "protocol  belongs to a society"),
    "policies": (5, "policies: {base: {}}", "5:1", "policies  belongs to a society"),
    "a benchmark too": (5, "benchmark: sums", "2:1", "env  stands beside `benchmark`"),
    "no such device": (5, "device: gpu", "5:9", 'device  expected one of "auto", "cpu", "cuda", got "gpu"'),
    "a number that is none": (2, "env: {kind: quad_swarm_v0, obstacles: {density: .nan}}", "2:49", "numbers must be finite"),
    "a text for a number": (2, "env: {kind: quad_swarm_v0, num_drones: eight}", "2:40", 'expected a whole number, got "eight"'),
    "an episode without end": (2, "env: {kind: quad_swarm_v0, seconds: 1e9}", "2:37", "env.seconds  an episode has 1e+11 ticks"),
    "a mass that is no mass": (2, "env: {kind: quad_swarm_v0, quadrotor: {mass: 1e-300}}", "2:46", "env.quadrotor.mass  1e-300 is too small to compute with; keep between 1e-12 and 1e+12"),
    "a huge reward": (2, "env: {kind: quad_swarm_v0, rewards: {distance: 1e39}}", "2:48", "env.rewards.distance  1e+39 is too large to compute with"),
    "a number for a part": (2, "env: {kind: quad_swarm_v0, obstacles: 0.2}", "2:39", "expected a mapping, got 0.2"),
    "replicas of engines": (5, "executor: {kind: ray, replicas: 2}", "5:33", "executor.replicas  is for societies"),
    "more shards than environments": (4, "learning: {kind: ippo, shards: 300}", "4:32", "learning.shards  300 shards cannot be cut from 256"),
}  # fmt: skip


@pytest.mark.parametrize(("number", "line", "place", "words"), CASES.values(), ids=CASES)
def test_a_mistake_in_a_world_is_one_error_at_its_place(
    number: int, line: str, place: str, words: str, tmp_path: Path
) -> None:
    message = refuse(write(tmp_path, GOOD, number, line))
    assert message.startswith(f"{place} "), message
    assert words in message
    assert message.endswith("1 error, nothing was started."), message


SPREAD = "env: {kind: pettingzoo, id: mpe2.simple_spread_v3}"
# What replaces which lines of GOOD, where the error is, and what it says.
ELSEWHERE = {
    "nothing for attention": ({2: "env: {kind: quad_swarm_v0, num_neighbours: 0}"}, "3:16", "policy.kind  a policy of kind attention needs neighbours or obstacles"),
    "nothing to attend to": ({2: "env: {kind: quad_swarm_v0, num_neighbours: 0}", 3: "policy: paper"}, "3:9", "policy.kind  a policy of kind paper needs neighbours or obstacles"),
    "attention where nothing is known of observations": ({2: SPREAD}, "3:16", "policy.kind  a policy of kind attention must know where"),
    "a misspelt environment": ({2: SPREAD.replace("spread", "spred")}, "2:29", "did you mean mpe2.simple_spread_v3?"),
    "no package": ({2: SPREAD.replace("mpe2", "no_such_package")}, "2:29", "the package no_such_package is not installed; pip install"),
    "no parallel environment": ({2: SPREAD.replace("mpe2.simple_spread_v3", "json")}, "2:29", "json has no parallel_env"),
    "a parameter that it does not take": ({2: SPREAD[:-1] + ", params: {max_cycls: 9}}"}, "2:60", "env.params  parallel_env(max_cycls=9) fails: TypeError"),
    "a parameter that it cannot take": ({2: SPREAD[:-1] + ", params: {N: -3}}"}, "2:60", "env.params  parallel_env(N=-3) fails"),
    "less than a team for mappo": ({2: SPREAD, 3: "policy: mlp", 4: "learning: {kind: mappo, minibatch: 2}"}, "4:36", "is less than a team of 3"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "place", "words"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_what_a_run_would_refuse_is_refused_before_it(
    changes: dict[int, str], place: str, words: str, tmp_path: Path
) -> None:
    pytest.importorskip("mpe2")
    lines = [changes.get(number, line) for number, line in enumerate(GOOD, 1)]
    message = refuse(write(tmp_path, lines))
    assert message.startswith(f"{place} ") and words in message, message
    assert message.endswith("1 error, nothing was started."), message


def test_an_environment_that_is_there_is_no_mistake(tmp_path: Path) -> None:
    pytest.importorskip("mpe2")
    lines = [GOOD[0], SPREAD, "policy: mlp", "learning: mappo"]
    assert load(write(tmp_path, lines)).config.env.spec().num_agents == 3


def test_a_world_says_what_a_policy_has_to_fit_before_it_is_made() -> None:
    for given in ({}, {"num_drones": 1, "num_neighbours": 0}, {"obstacles": {}, "surroundings": "walls"}):
        config = QuadSwarmConfig.model_validate(given)
        world = SwarmWorld(config.build(), 1, 0)
        assert config.spec() == world.spec
        world.close()


def test_the_mistakes_of_all_parts_are_told_at_once(tmp_path: Path) -> None:
    env = "env: {kind: quad_swarm_v0, num_drones: -1, obstacles: {density: 2, size: 5}, replay: {uses: 0}, seed: 1}"
    message = refuse(write(tmp_path, GOOD, 2, env.replace(", seed: 1", "")), "sed=3", "policy.preset=smal")
    for path in (
        "env.num_drones",
        "env.obstacles.density",
        "env.obstacles.size",
        "env.replay.uses",
        "sed",
        "policy.preset",
    ):
        assert path in message, path
    assert "6 errors" in message


def test_types_limits_and_rules_between_sections_are_told_in_one_answer(tmp_path: Path) -> None:
    lines = [
        GOOD[0],
        "env: {kind: quad_swarm_v0, num_drones: -3, obstacles: {density: 1.5, size: big}, scenario: none, num_envs: 8}",
        "policy: {kind: attention, initial_std: 0.1, width: wide}",
        "learning: {kind: mappo, minibatch: 0, shards: 9, min_learning_rate: 0.5}",
        "executor: {kind: ray, replicas: 2}",
        "device: gpu",
    ]
    message = refuse(write(tmp_path, lines))
    for path, words in {
        "env.num_drones": "num_drones is -3", "env.obstacles.density": "is 1.5", "env.obstacles.size": 'got "big"',
        "env.scenario": 'unknown scenario "none"', "policy.initial_std": "0.1 is less than learning.min_std of 0.15",
        "policy.width": 'got "wide"', "learning.minibatch": "must be at least 1, got 0",
        "learning.shards": "9 shards cannot be cut from 8", "executor.replicas": "is for societies", "device": "got",
        "learning.learning_rate": "0.0005 is beyond min_learning_rate of 0.5",
    }.items():  # fmt: skip
        assert f" {path}  " in message and words in message, path
    assert "11 errors" in message


def test_a_rule_is_silent_where_a_value_it_reads_is_wrong_in_itself(tmp_path: Path) -> None:
    env = "env: {kind: quad_swarm_v0, num_drones: many, num_neighbours: 20, obstacles: {density: 1.0}, num_envs: few}"
    learning = "learning: {kind: mappo, shards: 500, minibatch: 2}"
    message = refuse(write(tmp_path, [*GOOD[:1], env, GOOD[2], learning]))
    assert "2 errors" in message and "env.num_drones" in message and "env.num_envs" in message


def test_several_things_that_do_not_go_together_are_told_at_once(tmp_path: Path) -> None:
    env = "env: {kind: quad_swarm_v0, num_drones: 2, physics_hz: 150, replay: {before: 20}, obstacles: {count: 90}}"
    message = refuse(write(tmp_path, GOOD, 2, env))
    for path in ("env.num_neighbours", "env.control_hz", "env.replay.before", "env.obstacles.count"):
        assert f" {path}  " in message, path
    assert "4 errors" in message


def test_a_smaller_deviation_than_the_least_is_no_mistake_where_actions_are_discrete(tmp_path: Path) -> None:
    pytest.importorskip("mpe2")
    path = write(tmp_path, [GOOD[0], SPREAD, "policy: {kind: mlp, initial_std: 0.1}", "learning: ippo"])
    assert load(path).config.policy.initial_std == 0.1
    assert "policy.initial_std" in refuse(path, "env.params={continuous_actions: true}")


def test_a_file_of_neither_a_world_nor_a_society_is_told_of_both(tmp_path: Path) -> None:
    message = refuse(write(tmp_path, [GOOD[0]]))
    assert "benchmark  is required, and missing; a file has `benchmark` (a society), or `env` with" in message
    assert "(a world)" in message


def test_the_option_executor_is_named_as_it_was_given(tmp_path: Path) -> None:
    message = refuse(write(tmp_path, GOOD), *settle(["seed=1"], "ray2", unsafe=False))
    assert message.startswith('--executor ray2 executor.kind  unknown executor "ray2"') and "1 error" in message
    assert load(write(tmp_path, GOOD), settle(None, "ray", unsafe=False)).config.executor.kind == "ray"


def test_all_packages_that_an_environment_lacks_are_named_at_once(tmp_path: Path) -> None:
    lacking = (
        "import sys\n"
        "for name in ('pettingzoo', 'gymnasium', 'mpe2'): sys.modules[name] = None\n"
        "import importlib.util as util\n"
        "from coterie.experiments.cli.main import main\n"
        f"main(['validate', {str(EXAMPLES / 'spread.yaml')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", lacking], capture_output=True, text=True)
    assert "env.kind  the packages pettingzoo, gymnasium, mpe2 are not installed" in done.stderr
    assert "pip install pettingzoo gymnasium mpe2" in done.stderr and "1 error" in done.stderr


def test_learning_in_a_society_is_refused(tmp_path: Path) -> None:
    message = refuse(write(tmp_path, SOCIETY, 6, "learning: ippo"))
    assert "ippo trains the policies of a world" in message and "1 error" in message


@pytest.mark.parametrize("line", ["policy: {kind: attention}", "policy: attention"])
def test_a_policy_of_worlds_in_a_society_is_refused(line: str, tmp_path: Path) -> None:
    message = refuse(write(tmp_path, SOCIETY, 2, line))
    assert "is a policy of worlds (files with `env`)" in message and "1 error" in message


def test_overrides_reach_into_parts_that_the_file_leaves_out(tmp_path: Path) -> None:
    changes = [
        "env.num_drones=16",
        "env.obstacles.density=0.4",
        "env.noise=off",
        "policy.kind=mlp",
        "budget.seconds=60",
    ]
    config = load(write(tmp_path, GOOD), changes).config
    built = config.env.build()
    assert (built.num_drones, built.obstacles.density, built.noise) == (16, 0.4, None)
    assert (config.policy.kind, config.budget.seconds) == ("mlp", 60)


def test_what_an_override_breaks_is_said_at_the_option(tmp_path: Path) -> None:
    message = refuse(write(tmp_path, GOOD), "env.num_drones=-1")
    assert message.startswith("-o env.num_drones=-1 env.num_drones  num_drones is -1")
    message = refuse(write(tmp_path, GOOD), "env.num_drones=2")
    assert message.startswith("-o env.num_drones=2 env.num_neighbours  2 neighbours")


def test_a_sweep_varies_policies_and_seeds(tmp_path: Path) -> None:
    path = write(
        tmp_path, GOOD, 5, "sweep: {seed: [1, 2, 3], policy.kind: [attention, mlp], env.obstacles: [{density: 0.2}]}"
    )
    points = load(path).points
    assert [(p.config.seed, p.config.policy.kind) for p in points[:3]] == [
        (1, "attention"),
        (1, "mlp"),
        (2, "attention"),
    ]
    assert len(points) == 6 and points[0].config.env.build().obstacles.density == 0.2
    assert "policy.kind" in refuse(write(tmp_path, GOOD, 5, "sweep: {policy.kind: [attention, ml]}"))


def test_the_json_schema_takes_worlds_and_refuses_what_the_loader_refuses() -> None:
    from jsonschema import Draft202012Validator
    from ruamel.yaml import YAML

    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    data = YAML(typ="safe").load("\n".join(GOOD))
    assert list(validator.iter_errors(data)) == []
    assert list(validator.iter_errors(data | {"env": {"kind": "quad_swarm_v0", "noise": "off"}})) == []
    for spoilt in ({"sed": 3}, {"seats": "S1"}, {"policy": "nobody"}, {"env": {"kind": "quad_swarm_v0", "drones": 3}}):
        assert list(validator.iter_errors(data | spoilt)), spoilt
    society = YAML(typ="safe").load("\n".join(SOCIETY))
    assert list(validator.iter_errors(society)) == []
    assert list(validator.iter_errors(society | {"learning": "ippo"}))


@pytest.mark.parametrize("kind", ["env", "policy", "learner"])
def test_parts_of_worlds_are_listed(kind: str) -> None:
    named = {
        "env": {"quad_swarm_v0", "pettingzoo"},
        "policy": {"paper", "attention", "deepsets", "mlp"},
        "learner": {"ippo", "mappo"},
    }
    assert named[kind] <= set(registry.names(kind))


# Mirrors of dataclasses


@dataclass(frozen=True)
class Wheel:
    """A wheel.

    Attributes:
        size: m.
    """

    size: float = 1.0


@dataclass(frozen=True)
class Cart:
    """A cart.

    Attributes:
        name: What it is called,
            on two lines.
        wheel: In front.
        spare: None: there is none.
    """

    name: str
    wheel: Wheel = field(default_factory=lambda: Wheel(2.0))
    spare: Wheel | None = None


@mirrors(Cart)
class CartConfig(KindConfig):
    kind: str = "cart"


def test_a_mirror_has_the_fields_defaults_and_words_of_its_dataclass() -> None:
    assert CartConfig.model_fields["name"].is_required()
    assert CartConfig.model_fields["name"].description == "What it is called, on two lines."
    assert restore(Cart, CartConfig(name="a")) == Cart("a")
    assert restore(Cart, CartConfig(name="a", wheel={}, spare={"size": 3})) == Cart("a", Wheel(1.0), Wheel(3.0))
    assert restore(Cart, CartConfig(name="a", spare="off")) == Cart("a")


def test_a_mirror_is_as_strict_as_any_config() -> None:
    for wrong in (
        {"name": 3},
        {"name": "a", "wheel": {"size": "3"}},
        {"name": "a", "weel": {}},
        {"name": "a", "spare": "on"},
    ):
        with pytest.raises(ValueError):
            CartConfig(**wrong)
    assert issubclass(CartConfig, Config)


def test_credit_of_a_world_is_read(tmp_path: Path) -> None:
    config = load(write(tmp_path, [*GOOD, "credit: {agent: {kind: difference, horizon: 4, fraction: 0.5}}"])).config
    assert isinstance(config, WorldConfig) and config.credit is not None
    assert config.credit.agent.model_dump() == {
        "kind": "difference", "instead": "removed", "horizon": 4, "fraction": 0.5
    }  # fmt: skip


def test_credit_that_does_not_fit_is_refused_at_its_place(tmp_path: Path) -> None:
    lines = [*GOOD[:3], "learning: {kind: ippo, agent_steps: 1000, minibatch: 4}", "credit: {agent: attention}"]
    assert "4 is less than a team of 8, which the critic of attention sees whole" in refuse(write(tmp_path, lines))
    zoo = [GOOD[0], "env: {kind: pettingzoo, id: mpe2.simple_spread_v3}", "policy: {kind: mlp}", GOOD[3]]
    assert "what would have happened otherwise" in refuse(write(tmp_path, [*zoo, "credit: {agent: difference}"]))
    assert "equals" in refuse(write(tmp_path, [*GOOD, "credit: {agent: equals}"]))
    assert "fraction" in refuse(write(tmp_path, [*GOOD, "credit: {agent: {kind: difference, fraction: 0}}"]))
