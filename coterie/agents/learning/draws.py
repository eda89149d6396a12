"""Counted randomness as tensors: a function of seed and coordinates, whatever was drawn before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coterie import rng


def _generator(device: torch.device, seed: int, coordinates: Sequence[str | int]) -> torch.Generator:
    return torch.Generator(device).manual_seed(rng.derive(seed, *coordinates))


def normals(shape: Sequence[int], device: torch.device, seed: int, *coordinates: str | int) -> Tensor:
    """Standard normals, float32."""
    if device.type == "cpu":
        return torch.from_numpy(rng.stream(seed, *coordinates).standard_normal(tuple(shape), "float32"))
    return torch.randn(tuple(shape), device=device, generator=_generator(device, seed, coordinates))


def uniforms(shape: Sequence[int], device: torch.device, seed: int, *coordinates: str | int) -> Tensor:
    """Uniforms in [0, 1), float32."""
    if device.type == "cpu":
        return torch.from_numpy(rng.stream(seed, *coordinates).random(tuple(shape), "float32"))
    return torch.rand(tuple(shape), device=device, generator=_generator(device, seed, coordinates))


def permutation(count: int, device: torch.device, seed: int, *coordinates: str | int) -> Tensor:
    """0 to count - 1 in random order, int64."""
    return torch.randperm(count, device=device, generator=_generator(device, seed, coordinates))
