"""Every file of a society in examples/ is valid, and plays through with the scripted engine."""

from pathlib import Path

import pytest

import coterie
from coterie import registry
from coterie.config.load import load

FOLDER = Path(__file__).parents[3] / "examples"
EXAMPLES = sorted(path for path in FOLDER.glob("*.yaml") if "\nenv:" not in path.read_text("utf-8"))
RECIPES = sorted(FOLDER.glob("recipes/*.yaml"))
SWEEPS = sorted(path for path in FOLDER.glob("*/*.yaml") if path.stem != "common" and path not in RECIPES)


def marked(path: Path):
    """SelfOrg loads an embedding model."""
    return pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem.startswith("selforg") else ())


@pytest.mark.parametrize("path", map(marked, EXAMPLES))
def test_an_example_plays_through_to_its_report(path, tmp_path):
    config = load(path).config
    data = config.model_dump(mode="json")
    for policy in data["policies"].values():
        # The scripted engine has no cache to share: who needs one stays with the smallest model, and says little.
        is_shared = "shared_cache" in config.protocol.needs
        policy["sampling"] |= {"max_tokens": 4} if is_shared else {}
        policy |= {} if is_shared else {"engine": {"kind": "scripted"}, "model": "none"}
    data |= {"benchmark": {"kind": "sums", "limit": 3}, "executor": {"kind": "local"}, "track": []}
    data |= {"learning": None, "credit": None, "study": None}
    run = coterie.run(data, runs=tmp_path)
    assert run.status == "finished"
    societies = {row["society"] for row in run.episodes()}
    assert len(run.episodes()) == 3 * len(societies)
    assert run.report().is_file()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_combination_of_a_sweep_is_a_valid_experiment(path):
    assert len({str(point.settings) for point in load(path).points}) >= 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_four_policies(path):
    config = load(path).config
    assert config.learning is not None
    assert len(config.policies) == 4


def test_every_protocol_has_an_example():
    shown = {load(path).config.protocol.kind for path in EXAMPLES}
    known = {entry.name for entry in registry.entries("protocol") if entry.origin == "coterie"}
    assert known == shown
