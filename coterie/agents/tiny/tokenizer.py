"""The tokenizer: a token for each character, and one for each fixed sentence of the prompts."""

from __future__ import annotations

import re
from typing import Any

from coterie.agents.prompts import template
from coterie.agents.tiny.formats import QUESTION
from coterie.agents.tiny.lessons import TEMPLATES

PAD, END = "<|pad|>", "<|end|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
_CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_FIELD = re.compile(r"\$[a-z]+")
_SHORTEST = 8


def sentences() -> list[str]:
    """The fixed texts of the prompts between their fields, in the order of `TEMPLATES`; each is one token."""
    texts = [QUESTION, *(template(name).text.strip() for name in TEMPLATES), "<<<\n", "\n>>>"]
    parts = dict.fromkeys(part for text in texts for part in _FIELD.split(text) if len(part) >= _SHORTEST)
    return [*parts, "<<<\n", "\n>>>"]


def build() -> Any:
    """A fast tokenizer of transformers: 256 bytes, so that every text has ids and comes back as it was."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, END, *_ROLES]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    fast = Tokenizer(models.BPE(vocabulary, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    # Not special: they are text, which peers may say too.
    fast.add_tokens([AddedToken(text, special=False, normalized=False) for text in sentences()])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token=PAD, eos_token=END, chat_template=_CHAT, clean_up_tokenization_spaces=False,
        additional_special_tokens=list(_ROLES),
    )  # fmt: skip
