"""A model of random weights that every test here can have for nothing, and folders of weights for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Maker = Callable[..., Path]
_LETTERS = "\n !+.0123456789?abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:"


def save_tokenizer(folder: Path) -> int:
    """A token for each letter, and an end; returns how many tokens there are."""
    from tokenizers import Regex, Tokenizer, decoders
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    words = {token: index for index, token in enumerate(["<end>", "<unknown>", *_LETTERS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    return len(words)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of a Llama whose head is its embedding, with a tokenizer of letters."""
    return make_model(tmp_path_factory.mktemp("tiny"))


def make_model(folder: Path, seed: int = 0, **changes: object) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    size = save_tokenizer(folder)
    settings: dict[str, object] = {
        "vocab_size": size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
        "eos_token_id": 0, "bos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**(settings | changes)))
    shuffle(model, seed)
    model.save_pretrained(folder)
    return folder


def shuffle(model: torch.nn.Module, seed: int, only: str = "", spread: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if only in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread + ("norm" in name))


@pytest.fixture(scope="session")
def make_weights(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Makes a folder of other full weights of the tiny model, by a seed."""
    return lambda seed, **changes: make_model(tmp_path_factory.mktemp(f"full{seed}"), seed, **changes)


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Maker:
    """Makes a folder of a LoRA adapter, as peft writes it, by a seed."""

    def make(seed: int, base: Path | str = tiny_folder, spread: float = 0.2, **changes: object) -> Path:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
        settings: dict[str, object] = {"r": 4, "lora_alpha": 12, "target_modules": targets}
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**(settings | changes)))
        shuffle(model, seed, only="lora_", spread=spread)
        folder = tmp_path_factory.mktemp(f"adapter{seed}")
        model.save_pretrained(folder)
        return folder

    return make
