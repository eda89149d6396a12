"""Folders on their way from one node to another: the bytes of their files, in pieces, through Ray's object store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray

# An object is held in memory whole, on both nodes.
_PIECE_BYTES = 64 * 2**20

Packed = list[tuple[str, list[Any]]]
"""Each file's path in its folder, and references to its pieces."""


def pack(folder: Path) -> Packed:
    """The files of a folder, in the store until nobody refers to them."""
    return [(str(path.relative_to(folder)), _pieces(path)) for path in sorted(folder.rglob("*")) if path.is_file()]


def _pieces(path: Path) -> list[Any]:
    size = path.stat().st_size
    if not size:
        return []
    content = np.memmap(path, np.uint8, "r")
    return [ray.put(np.asarray(content[start : start + _PIECE_BYTES])) for start in range(0, size, _PIECE_BYTES)]


def unpack(packed: Packed, folder: Path) -> None:
    """Write the files into a folder."""
    for name, pieces in packed:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for piece in pieces:
                file.write(ray.get(piece).data)
