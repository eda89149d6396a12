"""A policy as an ONNX graph, for onnxruntime, TensorRT and what else reads it."""

from __future__ import annotations

import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from coterie.agents.learning.normalisation import NormalisedActor
from coterie.agents.swarm.networks import Actor
from coterie.errors import EnvironmentMissing


def to_onnx(policy: Actor | NormalisedActor, path: str | Path) -> None:
    """Write a policy as ONNX: `observation` [batch, D] to `action` [batch, A], float32, with its weights in the file.

    `action` is the mean of continuous actions, which the caller limits to [-1, 1], or a score for each discrete one.
    Observations are as the world gives them: what normalised them in training is in the graph. It computes what the
    policy does, within 1e-5.

    Raises:
        EnvironmentMissing: torch needs `onnx` and `onnxscript` for this.
        ValueError: Its kind cannot be exported.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        what = f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed"
        raise EnvironmentMissing(what, where="export to ONNX", remedy="pip install 'coterie[onnx]'")
    actor = policy.actor if isinstance(policy, NormalisedActor) else policy
    if actor.encoder.waits:
        raise ValueError(f"a policy of kind {actor.architecture.kind} cannot be written as ONNX")
    # Any size but 1, which would be taken for the only one.
    example = torch.zeros(7, actor.spec.observation_size)
    with _silence():
        program = torch.onnx.export(
            copy.deepcopy(policy).cpu().eval(),
            (example,),
            dynamo=True,
            input_names=["observation"],
            output_names=["action"],
            dynamic_shapes={"observation": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)


@contextmanager
def _silence() -> Iterator[None]:
    """Without what torch has to say about parts of itself and about packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
