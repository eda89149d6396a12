"""`coterie-tiny`: a model small enough to study learning on two cores, with the script that made it.

`make tiny` writes its folder anew from generated text: `arithmetic` works sums with faults, `formats` puts them into
the words of the protocols, `tokenizer` turns words into ids, `train` learns from them, `measure` says what came out.
"""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """Where the model's weights and tokenizer are, as transformers and vLLM load them."""
    return Path(__file__).parent / "weights"
