"""Checks of tensors before a kernel sees them. Each raises one ValueError that names the tensor."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import UnionType

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_finite: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Tensors that were seen to be finite, and in which version."""

_fitting: set[Hashable] = set()
"""Kinds of arguments that were found to fit together."""
_MOST_FITTING = 4096


def check_once(kinds: Hashable, check: Callable[[], object]) -> None:
    """Call a check unless it has passed for arguments of the same kinds, since to launch a kernel takes less time."""
    if kinds in _fitting:
        return
    check()
    if len(_fitting) >= _MOST_FITTING:
        _fitting.clear()
    _fitting.add(kinds)


def kind_of(value: object) -> object:
    """What of a tensor must fit to others: shape, dtype and device. Of other values the type."""
    return (value.shape, value.dtype, value.device) if isinstance(value, Tensor) else type(value)


def check_type(name: str, value: object, kind: type | UnionType, wanted: str) -> None:
    """Refuse a value of another type; `wanted` says in words what was expected.

    Raises:
        ValueError: It is no `kind`.
    """
    if not isinstance(value, kind):
        given = value.__name__ if isinstance(value, type) else type(value).__name__
        raise ValueError(f"{name} is {'the class' if isinstance(value, type) else 'a'} {given}, expected {wanted}")


def check_shape(name: str, tensor: Tensor, pattern: str, sizes: Mapping[str, int] | None = None) -> dict[str, int]:
    """Bind the letters of a pattern to the sizes of a tensor.

    Args:
        name: What the caller calls the tensor.
        tensor: Any tensor.
        pattern: One word per dimension, such as "A H D" or "N 2"; a number stands for itself.
        sizes: What letters stand for already.

    Returns:
        `sizes` and what the pattern added, to be given to the check of the next tensor.

    Raises:
        ValueError: No tensor, another number of dimensions, or a letter with two sizes.
    """
    check_type(name, tensor, Tensor, "a torch tensor")
    bound, words = dict(sizes or {}), pattern.split()
    matches = len(words) == tensor.dim() and all(
        size == (int(word) if word.isdigit() else bound.setdefault(word, size))
        for word, size in zip(words, tensor.shape, strict=True)
    )
    if not matches:
        known = ", ".join(f"{word}={bound[word]}" for word in words if word in (sizes or {}))
        raise ValueError(
            f"{name} has shape {list(tensor.shape)}, expected [{', '.join(words)}]{known and f' with {known}'}"
        )
    return bound


def check_not_empty(name: str, tensor: Tensor, sizes: Mapping[str, int], *words: str) -> None:
    """Refuse a tensor that has none of something without which there is no attention, such as numbers in a row.

    Raises:
        ValueError: One of the `words` of its pattern stands for 0.
    """
    if empty := [word for word in words if sizes[word] == 0]:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {empty[0]} of at least 1")


def check_broadcast(name: str, tensor: Tensor, *shape: int) -> None:
    """Refuse a tensor that does not broadcast to a shape.

    Raises:
        ValueError: It has more dimensions, or one that is neither 1 nor the size wanted.
    """
    trailing = shape[len(shape) - tensor.dim() :]
    fits = tensor.dim() <= len(shape) and all(a in (1, b) for a, b in zip(tensor.shape, trailing, strict=True))
    if not fits:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, which does not broadcast to {list(shape)}")


def check_dtype(name: str, tensor: Tensor, *among: torch.dtype) -> None:
    """Refuse a tensor of another dtype.

    Raises:
        ValueError: Its dtype is none of `among`.
    """
    if tensor.dtype not in among:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in among)
        raise ValueError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}, expected {names}")


def check_device(**tensors: Tensor | None) -> None:
    """Refuse tensors on different devices. Names are the keywords; None is passed over; the first sets the device.

    Raises:
        ValueError: One lies elsewhere than the first.
    """
    given = [(name, tensor) for name, tensor in tensors.items() if tensor is not None]
    for name, tensor in given[1:]:
        if tensor.device != given[0][1].device:
            raise ValueError(f"{name} is on {tensor.device}, but {given[0][0]} is on {given[0][1].device}")


def check_range(name: str, tensor: Tensor, low: int, high: int) -> None:
    """Refuse values outside low <= value < high. Reads the tensor, so on a GPU it waits for it.

    Raises:
        ValueError: A value is outside.
    """
    if tensor.numel() == 0:
        return
    smallest, largest = (int(value) for value in torch.aminmax(tensor))
    if smallest < low or largest >= high:
        value = smallest if smallest < low else largest
        raise ValueError(f"{name} holds {value}, expected {low} <= value < {high}")


def check_finite(name: str, tensor: Tensor | None, index: Tensor | None = None) -> None:
    """Refuse infinities and NaN. Reads the tensor, so on a GPU it waits for it: once, until the tensor changes.

    Args:
        name: What the caller calls the tensor.
        tensor: Floating-point; None is passed over.
        index: Integers for the first dimensions of the tensor; where they are negative, anything may stand.

    Raises:
        ValueError: A value is not finite.
    """
    if tensor is None:
        return
    version = None if tensor.is_inference() else tensor._version  # Tensors of inference mode tell of no changes.
    if version is not None and _finite.get(tensor) == version:  # type: ignore[no-untyped-call]
        return
    # What a sum says about all is quicker to learn than about each.
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    if not bool(torch.isfinite(tensor.detach().sum(dtype=wide))):
        read = tensor if index is None else tensor[index >= 0]
        if not bool(torch.isfinite(read).all()):
            raise ValueError(f"{name} holds values that are not finite")
        if index is not None:
            return  # Another index may read more of it.
    if version is not None:
        _finite[tensor] = version
