"""The door to embedders: a text that episodes wait to see embedded is embedded once, whoever asked."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.agents.embedders import load
from coterie.types import Embedder

Vectors = NDArray[np.float32]


class EmbeddingDoor:
    """Collects texts until `flush`. Vectors are no facts: they are computed again on resume.

    So each text goes through the model by itself, and its vector depends on nothing else.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[str, tuple[str, ...], asyncio.Future[Vectors]]] = []

    @property
    def is_waited_for(self) -> bool:
        return bool(self._waiting)

    async def embed(self, model: str, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim], rows of unit length; they come with the next `flush`."""
        waiter: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((model, tuple(texts), waiter))
        return await waiter

    async def flush(self) -> None:
        """Embed all that waits, each text once, beside the event loop."""
        waiting, self._waiting = self._waiting, []
        for model in dict.fromkeys(model for model, _, _ in waiting):
            mine = [(texts, waiter) for name, texts, waiter in waiting if name == model]
            unique = list(dict.fromkeys(text for texts, _ in mine for text in texts))
            vectors = await asyncio.to_thread(embed_now, model, unique)
            row = {text: i for i, text in enumerate(unique)}
            for texts, waiter in mine:
                if not waiter.done():
                    waiter.set_result(vectors[[row[text] for text in texts]])


def embed_now(model: str, texts: Sequence[str]) -> Vectors:
    """The same vectors for one who need not wait for others.

    Raises:
        EnvironmentMissing: There is no such model.
    """
    vectors: Vectors = _loaded(model).embed(texts)
    return vectors


@functools.cache
def _loaded(model: str) -> Embedder:
    """One embedder for the process: its model is loaded, and its vectors are kept, for all workers here."""
    return load(model, alone=True)
