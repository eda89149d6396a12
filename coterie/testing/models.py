"""Small language models with random weights, written as folders that every engine and learner loads."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_UNKNOWN, _END, _TURN = "<unk>", "<end>", "<turn>"
_TEMPLATE = "{% for m in messages %}{{ m['content'] }}<turn>{% endfor %}"


def write_llama(
    folder: Path, *, alphabet: str, layers: int = 2, width: int = 64, heads: int = 4, context: int = 512, seed: int = 0
) -> Path:
    """A Llama that reads and writes characters, with a chat template of one token for the end of a message.

    Args:
        folder: Where it is written.
        alphabet: The characters it knows; all others are one.
        layers: How many.
        width: Of the hidden state; the inner layer is twice as wide.
        heads: Of attention.
        context: Tokens.
        seed: Of the weights.

    Returns:
        The folder.
    """
    vocabulary = {token: number for number, token in enumerate([_UNKNOWN, _END, _TURN, *sorted(set(alphabet))])}
    _tokenizer(vocabulary).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=context, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=vocabulary[_END], pad_token_id=vocabulary[_END],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


def _tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=_UNKNOWN, eos_token=_END, pad_token=_END, chat_template=_TEMPLATE,
        additional_special_tokens=[_TURN],
    )  # fmt: skip
