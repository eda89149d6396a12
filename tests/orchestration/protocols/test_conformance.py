"""Every protocol keeps the promises of protocols."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from coterie import registry
from coterie.agents.prompts import template_names
from coterie.orchestration.protocols.config import DecisionConfig, MachineSomConfig, SelfConsistencyConfig, SingleConfig
from coterie.orchestration.protocols.config_comas import ComasConfig
from coterie.orchestration.protocols.config_debates import DebateConfig, GroupThinkConfig, MadConfig
from coterie.orchestration.protocols.config_networks import DylanConfig, MacNetConfig
from coterie.orchestration.protocols.config_teams import AgentVerseConfig, AutoGenConfig
from coterie.testing.societies import AGENTS, check_protocol

CONFIGS = [
    SingleConfig(),
    SelfConsistencyConfig(samples=5),
    MachineSomConfig(),
    MachineSomConfig(history="last", strategy=("reflect", "debate")),
    DebateConfig(rounds=3),
    DebateConfig(decision=DecisionConfig(tie="random")),
    MadConfig(),
    GroupThinkConfig(),
    GroupThinkConfig(visible=False),
    GroupThinkConfig(granularity="chunk", rounds=6),
    DylanConfig(),
    DylanConfig(team=2, rounds=2, rank_from=2),
    MacNetConfig(),
    MacNetConfig(graph="complete", reversed=True),
    AgentVerseConfig(),
    AgentVerseConfig(structure="horizontal"),
    AutoGenConfig(),
    ComasConfig(rounds=4),
    ComasConfig(preset="release"),
    ComasConfig(preset="improved", evaluations=2),
    ComasConfig(preset="release", evaluations=0, history="last_rounds"),
    ComasConfig(rounds=3, evaluations=2, scoring=False, verdict="constrained"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.label)
def test_a_protocol_passes_the_conformance_suite(config):
    check_protocol(config)


@pytest.mark.parametrize("entry", registry.entries("protocol"), ids=lambda entry: entry.name)
def test_a_protocol_names_the_templates_that_it_fills_in(entry):
    source = Path(find_spec(entry.impl.partition(":")[0]).origin).read_text("utf-8")
    words = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    assert {*registry.load(entry.config).templates} == words & {*template_names()} - {"question"}


def test_the_rule_of_autogen_without_a_second_agent_passes_too():
    check_protocol(AutoGenConfig(), agents=AGENTS[:1])


def test_no_registered_protocol_is_left_out():
    known = {entry.name for entry in registry.entries("protocol") if entry.origin == "coterie"}
    assert known == {config.kind for config in CONFIGS} | {"selforg"}


def test_those_that_give_every_agent_the_same_part_say_so():
    kinds = {config.kind for config in CONFIGS if config.symmetric}
    assert kinds == {"machinesom", "debate", "group_think"}
