"""Which form of a kernel runs, and why: said once in the log, forced by one environment variable."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Backend = Literal["naive", "cpu", "triton", "sdpa", "fla"]

VARIABLE = "COTERIE_ATTENTION"
"""Environment variable that forces a backend, for debugging and for comparisons."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A form of a kernel. `refusal` says why it cannot serve this call; empty: it can."""

    backend: Backend
    refusal: str = ""


def choose(kernel: str, candidates: Sequence[Candidate], *, why: str) -> Backend:
    """The first candidate that can serve the call, or the one that COTERIE_ATTENTION names.

    Args:
        kernel: Name of the kernel, for messages.
        candidates: Best first; at least one.
        why: Why the first that can is the best, for the log.

    Raises:
        ValueError: COTERIE_ATTENTION names no backend, or one that cannot serve this call; or none can.
    """
    if named := forced():
        return _force(kernel, candidates, named)
    for candidate in candidates:
        if not candidate.refusal:
            passed = [f"not {c.backend}: {c.refusal}" for c in candidates[: candidates.index(candidate)]]
            _log_once(kernel, candidate.backend, "; ".join([why, *passed]))
            return candidate.backend
    refusals = "; ".join(f"{c.backend}: {c.refusal}" for c in candidates)
    raise ValueError(f"no backend of {kernel} can serve this call ({refusals})")


def forced() -> str:
    """What COTERIE_ATTENTION names; empty where nothing is forced."""
    return os.environ.get(VARIABLE, "")


def triton_refusal(x: Tensor, width: int) -> str:
    """Why kernels that keep rows of `width` numbers cannot run in Triton for a tensor like x; empty: they can."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not x.is_cuda and not interpreted:
        return f"tensors are on {x.device.type}"
    if interpreted and x.dtype == torch.bfloat16:
        return "Triton's interpreter computes wrongly in bfloat16"
    if x.dtype == torch.float64:
        return "it has no float64"
    limit = 128 if x.dtype == torch.float32 else 256
    if width > limit:
        return f"D is {width}, and tiles fit into a multiprocessor up to {limit}"
    return "" if importlib.util.find_spec("triton") else "Triton is not installed"


def _force(kernel: str, candidates: Sequence[Candidate], named: str) -> Backend:
    if named not in get_args(Backend):
        raise ValueError(f"{VARIABLE}={named} is none of {', '.join(get_args(Backend))}")
    for candidate in candidates:
        if candidate.backend == named and not candidate.refusal:
            _log_once(kernel, candidate.backend, f"forced by {VARIABLE}")
            return candidate.backend
    refusals = [c.refusal for c in candidates if c.backend == named] or [f"it has no {named} form"]
    raise ValueError(f"{VARIABLE}={named} cannot serve {kernel}: {'; '.join(refusals)}")


@functools.lru_cache(maxsize=1024)
def _log_once(kernel: str, backend: Backend, reason: str) -> None:
    _logger.info("%s runs as %s: %s", kernel, backend, reason)
