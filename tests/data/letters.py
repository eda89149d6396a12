"""A plugin: an embedder without a model, which counts characters."""

import numpy as np

from coterie import register


class Letters:
    """Texts with the same characters are the same."""

    model = ""

    def embed(self, texts):
        rows = np.array([np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=256) for text in texts], float)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0).astype(np.float32)


def letters(alone=False):
    return Letters()


register("embedder", "letters", impl=f"{__name__}:letters", summary="counts characters")
