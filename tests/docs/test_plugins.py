"""The plugins of docs/plugins.md are complete files: they run, pass their conformance checks and stay short."""

import asyncio
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import coterie
from coterie import registry
from coterie.attention.choice import choose
from coterie.attention.mechanisms.base import Context, Heads
from coterie.config.load import load
from coterie.config.plugins import import_plugins
from coterie.rewards.credit.agent import Teamwork
from coterie.rewards.credit.token import ScoredReply, apply
from coterie.testing.benchmarks import check_benchmark
from coterie.testing.engines import check_engine
from coterie.testing.rewards import check_advantage, check_reward
from coterie.testing.societies import check_protocol
from coterie.types import Outcome, Place, Turn

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
OF_RUNS = ("sceptic.py", "relay.py", "brevity.py", "squares.py", "parrot.py")
FILES = dict(re.findall(r"```python (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    import_plugins(FILES, folder)
    return folder


def build(kind: str, name: str, *arguments, **fields):
    config = registry.load(registry.get(kind, name).config)(**fields)
    return registry.impl(kind, name)(config, *arguments)


def test_there_is_one_of_each_kind_in_at_most_20_lines():
    of_runs, of_trainings = OF_RUNS, {"median.py", "reinforce.py", "early.py", "last_word.py", "sharper.py"}
    assert set(FILES) == {*of_runs, *of_trainings}
    assert all(len([line for line in text.splitlines() if line.strip()]) <= 20 for text in FILES.values())


def test_the_protocol_passes_the_conformance_check(folder):
    check_protocol(registry.load(registry.get("protocol", "relay").config)())


def test_the_reward_passes_the_conformance_check(folder):
    check_reward(build("reward", "brevity"))
    check_reward(build("reward", "verifier"))


def test_the_benchmark_passes_the_conformance_check(folder):
    def gold(task):
        return str(int(re.findall(r"\d+", task.question)[0]) ** 2)

    check_benchmark(lambda: build("benchmark", "squares", 0, folder), gold)


def test_the_engine_passes_the_conformance_check(folder):
    asyncio.run(check_engine(build("engine", "parrot", "none", 0, True)))


def test_the_advantage_passes_the_conformance_check(folder):
    check_advantage(build("advantage", "median"))


def test_the_loss_has_the_gradient_of_the_policy(folder):
    log_ratio = torch.zeros(3, requires_grad=True)
    loss, advantage, replies = (
        registry.impl("loss", "reinforce")(),
        torch.tensor([1.0, -2.0, 0.0]),
        torch.zeros(3).long(),
    )
    loss.terms(log_ratio, advantage, replies).sum().backward()
    assert log_ratio.grad.tolist() == [-1, 2, 0] and not loss.clipped(log_ratio, advantage, replies).any()


def test_the_credit_of_tokens_is_as_it_claims(folder):
    replies = [ScoredReply(str(size), np.ones(size)) for size in (1, 4)]
    one, four = apply(build("token_credit", "early"), replies, seed=0, iteration=1)
    assert one.factor.tolist() == [1.5] and four.factor[0] == 1.5 and four.factor[-1] == 1


def test_the_credit_of_agents_is_shared_in_the_last_round(folder):
    turns = {f"{seat}{r}": Turn(f"{seat}{r}", Place("t", r, seat), "base", 0, (), "", "4", "stop", 1, 1)
             for seat in "ab" for r in (0, 1)}  # fmt: skip
    shares = build("agent_credit", "last_word").share(Teamwork(Outcome("4", ()), turns))
    assert shares == {"a0": 0, "a1": 0.5, "b0": 0, "b1": 0.5}


def test_the_mechanism_computes_its_formula(folder):
    mechanism, (q, k, v) = choose("sharper", {"factor": 3.0}), torch.randn(3, 1, 2, 5, 4)
    module, context = mechanism.module(Heads(2, 2, 4, 8)), Context(causal=True)
    torch.testing.assert_close(module(q, k, v, context), mechanism.naive(module, q, k, v, context))


def test_a_training_is_described_by_them(folder):
    society = {
        "name": "own", "imports": [str(folder / name) for name in FILES], "determinism": "exact",
        "policy": {"engine": "transformers", "model": "coterie-tiny", "sampling": {"temperature": 1.0}},
        "seats": [{"name": "agent", "count": 2}], "protocol": "debate", "benchmark": {"kind": "squares", "limit": 3},
        "rewards": ["verifier"], "credit": {"agent": "last_word", "token": "early"},
        "learning": {"kind": "policy_gradient", "iterations": 1, "advantage": "median", "loss": "reinforce"},
    }  # fmt: skip
    (folder / "own.json").write_text(json.dumps(society))
    config = load(folder / "own.json").config
    assert (config.learning.loss.kind, config.learning.advantage.kind) == ("reinforce", "median")
    assert (config.credit.agent.kind, config.credit.token.kind) == ("last_word", "early")


def test_one_experiment_uses_them_all_and_records_them(folder):
    config = {
        "name": "plugins",
        "imports": [str(folder / name) for name in OF_RUNS],
        "policy": {"engine": "parrot", "model": "none"},
        "seats": [{"name": "doubt", "persona": "sceptic", "count": 2}],
        "protocol": "relay",
        "baselines": ["single"],
        "rewards": ["brevity", "verifier"],
        "benchmark": {"kind": "squares", "limit": 3},
    }
    run = coterie.run(config, runs=folder / "runs")
    assert run.status == "finished"
    assert {row["society"] for row in run.episodes()} == {"relay", "single"}
    facts = run.summary()["facts"]
    assert len(facts["run"]["plugins"]) == len(OF_RUNS)
    relay = next(s for s in facts["societies"] if s["label"] == "relay")
    assert relay["rewards"]["verifier"]["doubt-1"] in [0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1]
    assert 0 < relay["rewards"]["brevity"]["doubt-2"] < 1
    assert "Reward brevity" in run.report().read_text()


def test_a_broken_plugin_is_named(folder):
    (folder / "broken.py").write_text("import nothing_like_it\n")
    with pytest.raises(coterie.CoterieError, match=r"broken\.py:1"):
        coterie.run({"name": "x", "imports": [str(folder / "broken.py")]})
    assert "nothing_like_it" not in sys.modules
