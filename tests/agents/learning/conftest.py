from collections.abc import Callable

import numpy as np
import pytest

from coterie import rng
from coterie.agents.learning.examples import Example

VOCABULARY = 24


@pytest.fixture(scope="session")
def make_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Makes the folder of a random Llama, 32 wide, of 24 tokens; two heads share keys."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(layers: int, positions: int, spread: float) -> str:
        folder = tmp_path_factory.mktemp("llama") / "model"
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=positions, tie_word_embeddings=True,
            initializer_range=spread, bos_token_id=0, eos_token_id=1, pad_token_id=0,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            LlamaForCausalLM(config).save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture(scope="session")
def tiny(make_llama: Callable[..., str]) -> str:
    """One of 2 layers."""
    return make_llama(2, 256, 0.3)


@pytest.fixture(scope="session")
def turns() -> Callable[..., list[Example]]:
    """Makes turns of random length, tokens, advantages and roles."""

    def make(count: int = 12, seed: int = 0, longest: int = 12) -> list[Example]:
        found = []
        for number in range(count):
            draw = rng.stream(seed, "turn", number)
            prompt, reply = (draw.integers(0, VOCABULARY, draw.integers(1, longest)) for _ in range(2))
            found.append(
                Example(
                    key=f"turn-{number:03d}", role=("answer", "evaluate", "score")[number % 3],
                    prompt_ids=tuple(map(int, prompt)), token_ids=tuple(map(int, reply)),
                    logprobs=(-3.2 + 0.1 * draw.standard_normal(len(reply))).astype(np.float32),
                    advantage=draw.standard_normal(len(reply)).astype(np.float32),
                )
            )  # fmt: skip
        return found

    return make
