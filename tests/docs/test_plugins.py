"""The plugins of docs/plugins.md are complete files: they run, pass their conformance checks and stay short."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

import coterie
from coterie import registry
from coterie.config.plugins import import_plugins
from coterie.testing.benchmarks import check_benchmark
from coterie.testing.engines import check_engine
from coterie.testing.rewards import check_reward
from coterie.testing.societies import check_protocol

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
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
    assert set(FILES) == {"sceptic.py", "relay.py", "brevity.py", "squares.py", "parrot.py"}
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


def test_one_experiment_uses_them_all_and_records_them(folder):
    config = {
        "name": "plugins",
        "imports": [str(folder / name) for name in FILES],
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
    assert len(facts["run"]["plugins"]) == len(FILES)
    relay = next(s for s in facts["societies"] if s["label"] == "relay")
    assert relay["rewards"]["verifier"]["doubt-1"] in [0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1]
    assert 0 < relay["rewards"]["brevity"]["doubt-2"] < 1
    assert "Reward brevity" in run.report().read_text()


def test_a_broken_plugin_is_named(folder):
    (folder / "broken.py").write_text("import nothing_like_it\n")
    with pytest.raises(coterie.CoterieError, match=r"broken\.py:1"):
        coterie.run({"name": "x", "imports": [str(folder / "broken.py")]})
    assert "nothing_like_it" not in sys.modules
