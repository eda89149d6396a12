"""Folders of tensors and facts that are whole or not there at all: safetensors and JSON, each file with its hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from coterie.errors import ResumeError

FACTS = "checkpoint.json"
_UNFINISHED = ".unfinished-"
_REMEDY = "put it back, or start a new run"


def write(folder: Path, files: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> str:
    """Write a checkpoint in two phases: beside its place and flushed to the disk, then renamed to it.

    Args:
        folder: Where it is to be; what was there is replaced.
        files: Tensors by name, for each file `NAME.safetensors`.
        facts: Anything that JSON can hold.

    Returns:
        SHA-256 of `checkpoint.json`, which holds the facts and the SHA-256 of each file: equal for equal checkpoints.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{_UNFINISHED}{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    hashes = {}
    for name, tensors in sorted(files.items()):
        content = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
        hashes[f"{name}.safetensors"] = hashlib.sha256(content).hexdigest()
        _put(unfinished / f"{name}.safetensors", content)
    content = json.dumps({"files": hashes, "facts": facts}, indent=1, sort_keys=True).encode()
    _put(unfinished / FACTS, content)
    _flush(unfinished)
    if folder.exists():
        old = folder.with_name(f"{_UNFINISHED}old-{folder.name}")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        unfinished.rename(folder)
        shutil.rmtree(old)
    else:
        unfinished.rename(folder)
    _flush(folder.parent)
    return hashlib.sha256(content).hexdigest()


def read(folder: Path, names: Collection[str] | None = None) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """What `write` was given, with every file's hash compared.

    Args:
        folder: Where it is.
        names: Files to read; None: all.

    Raises:
        ResumeError: It is not there, or not what was written.
    """
    try:
        document = json.loads((folder / FACTS).read_bytes())
        hashes, facts = document["files"], document["facts"]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise ResumeError(f"no checkpoint can be read: {cause}", where=str(folder), remedy=_REMEDY) from cause
    chosen = [Path(file).stem for file in hashes] if names is None else names
    return {name: _tensors(folder / f"{name}.safetensors", hashes.get(f"{name}.safetensors")) for name in chosen}, facts


def _tensors(path: Path, expected: str | None) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            raise ResumeError("a checkpoint is not what was written", where=str(path), remedy=_REMEDY)
        return load(content)
    except (OSError, SafetensorError) as cause:
        raise ResumeError(f"a checkpoint cannot be read: {cause}", where=str(path), remedy=_REMEDY) from cause


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and numbers, by name."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def prune(parent: Path, keep: Collection[str]) -> None:
    """Delete all checkpoints of a folder but those of these names, and what was left unfinished."""
    for folder in parent.iterdir():
        if folder.name.startswith(_UNFINISHED) or ((folder / FACTS).exists() and folder.name not in keep):
            shutil.rmtree(folder)


def _put(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
