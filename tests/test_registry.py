"""The table of what YAML can name."""

import pickle

import pytest

from coterie import registry
from coterie.errors import ConfigError, CoterieError, PluginError


def test_listing_imports_nothing_heavy():
    import subprocess
    import sys

    code = """
import sys
from coterie import registry
for kind in registry.KINDS: registry.entries(kind)
import coterie.config
print([m for m in ("torch", "vllm", "ray", "transformers", "matplotlib") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_builtin_part_loads(kind):
    for entry in registry.entries(kind):
        assert registry.load(entry.impl) is not None
        if entry.config:
            assert registry.load(entry.config).model_fields["kind"].default == entry.name


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match="known: .*scripted"):
        registry.get("engine", "vlmm")


def test_a_name_taken_by_another_origin_is_refused():
    with registry.origin("somebody"), pytest.raises(PluginError, match="registered twice"):
        registry.register("engine", "vllm", impl="a:b", summary="mine")


def test_a_malformed_path_is_refused():
    with pytest.raises(PluginError, match="module:attribute"):
        registry.register("engine", "x", impl="a.b", summary="")


def test_an_error_crosses_a_process_boundary_whole():
    error = pickle.loads(pickle.dumps(ConfigError("what", where="where", remedy="remedy")))  # noqa: S301
    assert str(error) == "E_CONFIG: what\n  where: where\n  what to do: remedy"
    assert isinstance(error, CoterieError)
