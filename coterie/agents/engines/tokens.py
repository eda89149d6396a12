"""A tokenizer as engines with token ids use it: messages to ids, once, and ids to text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

from coterie.agents.engines import chat, models
from coterie.errors import EngineError
from coterie.types import EncodedPrompt, Message, Messages, Prompt, Sampling, TokenIds

_BROKEN = "\ufffd"
"""How a decoder writes the bytes of half a character."""
_ANY_LENGTH = 1 << 20
"""A context for texts that no model is shown."""


class ChatTokenizer:
    """The tokenizer of a model folder or hub id with its chat template, and a context length.

    Control tokens spelled out inside a message (`<|im_end|>` and the like) are broken up before tokenising: a message
    is untrusted text and must not be able to end itself.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self._tokenizer, self.context = tokenizer, context
        added = [str(t) for t in getattr(tokenizer, "added_tokens_decoder", {}).values() if t.special]
        self._control = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)
        self._pieces: dict[int, str] = {}
        self._codec = chat.Codec(
            measure=lambda messages: len(self.render(messages)),
            split=lambda text: tokenizer.encode(text, add_special_tokens=False),
            join=self.decode,
        )

    @classmethod
    def load(cls, folder: str, context: int) -> ChatTokenizer:
        """The tokenizer of `folder` (or hub id) with a context of at most what the model was made for.

        Raises:
            EnvironmentMissing: there is no such model.
        """
        from transformers import AutoConfig, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            limit = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
        except (OSError, ValueError) as cause:
            raise models.missing(folder, cause) from cause
        return cls(tokenizer, min(context, limit or context))

    def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        """As `base.Engine.encode`; the encoded prompts are token ids."""
        room = chat.room_for(sampling, self.context)
        return [self._encode(prompt, room) for prompt in prompts]

    def _encode(self, prompt: Prompt, room: int) -> EncodedPrompt:
        if chat.is_ids(prompt):
            return chat.encode_ids(cast(TokenIds, prompt), room)
        messages = chat.as_messages(prompt)
        ids, dropped = self.render(messages), 0
        if len(ids) > room:
            messages, _, dropped = chat.fit(messages, room, self._codec)
            ids = self.render(messages)
        return EncodedPrompt(ids, len(ids), dropped)

    def render(self, messages: Messages) -> TokenIds:
        """Messages and the opening of the reply as token ids.

        Raises:
            EngineError: the model's template refuses these roles.
        """
        if not self._tokenizer.chat_template:
            return tuple(self._tokenizer.encode(self._disarm(chat.as_text(messages))))
        turns = [{"role": m.role, "content": self._disarm(m.content)} for m in messages]
        try:
            return tuple(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
        except Exception as cause:
            # Templates raise whatever their author chose.
            raise EngineError(
                f"the chat template of the model refused a prompt: {cause}",
                where=", ".join(m.role for m in messages),
                remedy="use roles that this model knows, or another model",
            ) from cause

    def spell(self, text: str) -> TokenIds:
        """A text of ours as ids, with nothing around it. Raises EngineError if these would not read as the text."""
        ids = tuple(self._tokenizer.encode(text, add_special_tokens=False))
        if not ids or self.decode(ids) != text:
            remedy = "choose texts without control characters and without spaces around them"
            raise EngineError(f"the model's tokenizer cannot write {text!r}", remedy=remedy)
        return ids

    def _disarm(self, text: str) -> str:
        for token in self._control:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, without control tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def spell_out(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Ids as text with control tokens in it, and which characters of it each token is.

        Tokens that are parts of one character all are that character.
        """
        text = self._say(ids)
        for token in set(ids) - self._pieces.keys():
            self._pieces[token] = self._say([token])
        pieces = [self._pieces[token] for token in ids]
        if "".join(pieces) != text:
            return text, self._locate(ids)
        ends = list(itertools.accumulate(map(len, pieces), initial=0))
        return text, list(itertools.pairwise(ends))

    def _locate(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Token after token, each decoded behind a few before it, until what it adds is whole characters."""
        found, end, context, begin = list[tuple[int, int]](), 0, 0, 0
        for stop in range(1, len(ids) + 1):
            before, after = self._say(ids[context:begin]), self._say(ids[context:stop])
            if after.endswith(_BROKEN) and stop < len(ids):
                continue
            start, end = end, end + len(after) - len(before)
            found += [(start, end)] * (stop - begin)
            context, begin = begin, stop
        return found

    def _say(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def read_back(self, text: str) -> str:
        """A message's text as it reads in `spell_out` of a prompt that was rendered with it."""
        return self._say(self._tokenizer.encode(self._disarm(text), add_special_tokens=False))

    def frame(self, messages: Messages) -> list[str]:
        """What `render` writes before, between and behind the contents of messages; empty if they do not stand apart.

        As it reads in `spell_out`; a template may take white space off the ends of contents.
        """
        marks = [f"\ue000{number}\ue001" for number in range(len(messages))]
        marked = tuple(Message(message.role, mark) for message, mark in zip(messages, marks, strict=True))
        if self._tokenizer.chat_template:
            turns = [{"role": m.role, "content": m.content} for m in marked]
            text = str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        else:
            text = chat.as_text(marked)
        parts = list[str]()
        for mark in marks:
            before, found, text = text.partition(mark)
            if not found or mark in text:
                return []
            parts.append(before)
        return [self._say(self._tokenizer.encode(part, add_special_tokens=False)) for part in (*parts, text)]

    @property
    def pad_id(self) -> int:
        """An id to fill batches with."""
        pad = self._tokenizer.pad_token_id
        return int(pad if pad is not None else self._tokenizer.eos_token_id or 0)


def load_tokenizers(names: Mapping[str, str]) -> dict[str, ChatTokenizer]:
    """For each policy that of its model, to tell which tokens say what; policies of one model share one.

    Args:
        names: Of models, by policy.

    Raises:
        EnvironmentMissing: A model is missing.
    """
    loaded = {name: ChatTokenizer.load(models.resolve(name), _ANY_LENGTH) for name in dict.fromkeys(names.values())}
    return {policy: loaded[name] for policy, name in names.items()}
