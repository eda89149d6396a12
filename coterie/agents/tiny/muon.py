"""Muon (Jordan et al. 2024) for matrices and AdamW for the rest, at one learning rate (Liu et al., arXiv 2502.16982).

`torch.optim.Muon` computes in bfloat16, which takes fifteen times as long on CPUs that have no instructions for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LENGTH = 0.7


class Muon:
    """Both optimisers in one step. Decay is decoupled, and none is taken from vectors.

    Matrices move by their momentum made orthogonal, as long as AdamW's steps are on average: 0.2 per number.
    """

    def __init__(self, matrices: Sequence[Tensor], others: Sequence[Tensor], weight_decay: float) -> None:
        self._matrices, self._decay = list(matrices), weight_decay
        self._momenta = [torch.zeros_like(matrix) for matrix in matrices]
        self._adam = torch.optim.AdamW(list(others), betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move all parameters by their gradients."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()
        for matrix, momentum in zip(self._matrices, self._momenta, strict=True):
            assert matrix.grad is not None
            momentum.lerp_(matrix.grad, 0.05)
            direction = orthogonalise(matrix.grad.lerp(momentum, 0.95))
            matrix.mul_(1 - learning_rate * self._decay)
            matrix.add_(direction, alpha=-_LENGTH * learning_rate * math.sqrt(max(matrix.shape)))


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about 1 (0.7 to 1.2), by Newton-Schulz iterations."""
    a, b, c = _COEFFICIENTS
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
