"""Datasets of the Hugging Face hub: one revision, and no other that happens to be at hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATIENCE = 10.0
"""Seconds that the hub has for its first answer."""


@dataclass(frozen=True, slots=True)
class Hub:
    """A dataset on the Hugging Face hub. `revision` is the hash of a commit."""

    id: str
    revision: str
    split: str
    config: str | None = None


def fetch(hub: Hub) -> Iterable[Mapping[str, Any]]:
    """The rows of a dataset, from its library's cache; if that does not have the revision, from the hub.

    Raises:
        Exception: it is in neither, or the hub cannot be reached. The hub's client raises errors of many libraries.
    """
    from huggingface_hub import HfApi

    with contextlib.suppress(Exception), _offline():
        return _read(hub)
    # One request that is not repeated: whoever has no network is told so at once.
    HfApi().dataset_info(hub.id, revision=hub.revision, timeout=_PATIENCE)
    return _read(hub)


def _read(hub: Hub) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset

    # Without the scheme, a folder of that name would be read. What the hub does not give comes from the cache, of
    # whatever revision; the folders there are named by it.
    rows = load_dataset(f"hf://datasets/{hub.id}", hub.config, split=hub.split, revision=hub.revision)
    if not all(hub.revision in Path(file["filename"]).parts for file in rows.cache_files):
        raise LookupError(f"only another revision than {hub.revision} was found")
    found: Iterable[Mapping[str, Any]] = rows
    return found


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Nothing but the cache is looked at, and nothing said about it."""
    from datasets import config
    from datasets.utils import logging

    before, verbosity = config.HF_HUB_OFFLINE, logging.get_verbosity()
    config.HF_HUB_OFFLINE = True
    logging.set_verbosity_error()
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
        logging.set_verbosity(verbosity)
