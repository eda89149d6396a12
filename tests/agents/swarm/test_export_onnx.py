from pathlib import Path

import numpy as np
import pytest
import torch

from coterie.agents.learning.normalisation import NormalisedActor, ObservationNormaliser
from coterie.agents.swarm import export_onnx
from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.networks import Actor
from coterie.errors import EnvironmentMissing
from coterie.types import ObservationLayout, WorldSpec

SPEC = WorldSpec(8, 40, "continuous", 4, ObservationLayout(19, 2, 6, 9))


def make_policy(kind: str) -> NormalisedActor:
    actor, normaliser = Actor(Architecture.preset(kind, "small"), SPEC), ObservationNormaliser(SPEC)
    with torch.no_grad():
        actor.output.weight.mul_(100)
    normaliser.update(torch.randn(100, 40, generator=torch.Generator().manual_seed(0)) * 3)
    return NormalisedActor(normaliser, actor)


def check(policy: Actor | NormalisedActor, path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    export_onnx.to_onnx(policy, path)
    session = runtime.InferenceSession(path)
    for rows in (1, 2, 50):
        observation = torch.randn(rows, 40, generator=torch.Generator().manual_seed(rows)) * 3
        observation[: rows // 2, 19:25] = 0
        observation[: rows // 4, 25:31] = 0
        (action,) = session.run(["action"], {"observation": observation.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(action, policy(observation).numpy(), rtol=0, atol=1e-5)


def test_onnx_does_what_the_policy_does(tmp_path):
    check(make_policy("attention"), tmp_path / "policy.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("paper", "deepsets", "mlp"))
def test_onnx_does_what_policies_of_other_kinds_do(kind, tmp_path):
    check(make_policy(kind), tmp_path / "policy.onnx")
    check(make_policy(kind).actor, tmp_path / "bare.onnx")


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentMissing, match="onnx and onnxscript are not installed"):
        export_onnx.to_onnx(make_policy("mlp").actor, tmp_path / "policy.onnx")


def test_a_mechanism_of_the_literature_has_no_graph(tmp_path):
    with pytest.raises(ValueError, match="a policy of kind mechanism cannot be written as ONNX"):
        export_onnx.to_onnx(make_policy("mechanism"), tmp_path / "policy.onnx")
