import subprocess
import sys
from typing import get_args

import pytest
from pydantic import ValidationError

from coterie import registry
from coterie.agents.swarm.architecture import Architecture, Kind, Preset

KINDS = get_args(Kind)


def configure(kind: str, **fields):
    return registry.load(registry.get("policy", kind).config)(**fields)


def test_every_kind_is_registered():
    assert registry.names("policy") == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", get_args(Preset))
def test_a_config_without_fields_is_the_preset(kind, size):
    assert configure(kind, preset=size).build() == Architecture.preset(kind, size)


def test_fields_given_go_before_the_preset():
    built = configure("attention", preset="paper", width=32, heads=8, initial_std=0.5).build()
    assert (built.width, built.heads, built.initial_std, built.final_width) == (32, 8, 0.5, 512)


@pytest.mark.parametrize(
    "fields", [{"width": 0}, {"preset": "huge"}, {"initial_std": 0.0}, {"heads": 2}, {"layers": 1.5}]
)
def test_bad_fields_are_refused(fields):
    with pytest.raises(ValidationError):
        configure("mlp", **fields)


def test_configs_import_no_torch():
    code = "import sys, coterie.agents.swarm.config; sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
