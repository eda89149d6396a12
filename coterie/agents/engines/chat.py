"""From messages to what an engine reads: the chat template, applied once, and the one rule of cutting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from coterie.errors import EngineError
from coterie.text import join_pieces
from coterie.types import EncodedPrompt, Message, Messages, Prompt, Sampling, TokenIds

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Codec:
    """How an engine counts.

    `measure` gives the rendered length of messages, `split` cuts a text into counted pieces, and `join` turns pieces
    back into text.
    """

    measure: Callable[[Messages], int]
    split: Callable[[str], Sequence[Any]]
    join: Callable[[Sequence[Any]], str]


def room_for(sampling: Sampling, context: int) -> int:
    """Tokens a prompt may have so that `sampling.max_tokens` still fit.

    Raises:
        EngineError: the reply alone fills the context.
    """
    room = context - sampling.max_tokens
    if room < 1:
        raise EngineError(
            f"a reply of {sampling.max_tokens} tokens leaves no room for a prompt in a context of {context}",
            remedy="lower sampling.max_tokens or raise the engine's context",
        )
    return room


def cut_middle(pieces: Sequence[Piece], keep: int) -> list[Piece]:
    """The first and the last half of `pieces`, `keep` in all (the larger half in front)."""
    if keep >= len(pieces):
        return list(pieces)
    tail = max(keep, 0) // 2
    return [*pieces[: max(keep, 0) - tail], *pieces[len(pieces) - tail :]]


def fit(messages: Messages, room: int, codec: Codec) -> tuple[Messages, int, int]:
    """Cut messages to at most `room` tokens by the rule of `base.Engine.encode`.

    The first system message and the last message stay. The oldest messages in between go first, whole; then the last
    message loses tokens from its middle, and if that is not enough the system message does.

    Returns:
        The messages that are left, their length, and how many tokens were dropped.

    Raises:
        EngineError: not even empty messages fit.
    """
    length = full = codec.measure(messages)
    while length > room:
        oldest = _oldest_between(messages)
        if oldest is None:
            break
        messages = messages[:oldest] + messages[oldest + 1 :]
        length = codec.measure(messages)
    for index in (len(messages) - 1, 0):
        if length > room:
            messages, length = _shorten(messages, index, room, codec)
    if length > room:
        raise EngineError(
            f"a prompt does not fit into {room} tokens even with empty messages",
            remedy="raise the engine's context or lower sampling.max_tokens",
        )
    return messages, length, max(full - length, 0)


def _oldest_between(messages: Messages) -> int | None:
    system = next((i for i, m in enumerate(messages) if m.role == "system"), None)
    return next((i for i in range(len(messages) - 1) if i != system), None)


def _shorten(messages: Messages, index: int, room: int, codec: Codec) -> tuple[Messages, int]:
    pieces = codec.split(messages[index].content)
    keep, length = len(pieces), codec.measure(messages)
    # Cut text may count differently from its pieces (tokens merge across the seam), hence the loop.
    while length > room and keep > 0:
        keep = max(keep - (length - room), 0)
        short = replace(messages[index], content=codec.join(cut_middle(pieces, keep)))
        messages = (*messages[:index], short, *messages[index + 1 :])
        length = codec.measure(messages)
    return messages, length


def read_on(
    decode: Callable[[Sequence[int]], str], said: TokenIds, ids: Sequence[int], stops: Sequence[str] = ()
) -> tuple[str, bool]:
    """What `ids` add to a reply that began with the ids `said`, up to the first stop string, and if there was one.

    Decoded by themselves, ids lose the space in front and what the last character lacked; so all are decoded together.
    The text starts behind the last whole character of what was said, see `text.join_pieces`. A stop string may begin in
    what was said.
    """
    begun = join_pieces([decode(said), ""]) if said else ""
    whole = decode([*said, *ids])
    found = [at for stop in stops if (at := whole.find(stop, max(len(begun) - len(stop) + 1, 0))) >= 0]
    return whole[len(begun) : min(found, default=len(whole))], bool(found)


def is_ids(prompt: Prompt) -> bool:
    """True if a prompt is token ids, not messages."""
    return bool(prompt) and not isinstance(prompt[0], Message)


def encode_ids(prompt: TokenIds, room: int) -> EncodedPrompt:
    """Token ids as they are, without their middle if they are too many."""
    kept = tuple(cut_middle(prompt, room))
    return EncodedPrompt(kept, len(kept), len(prompt) - len(kept))


def as_messages(prompt: Prompt) -> Messages:
    """The prompt as messages.

    Raises:
        EngineError: it is empty, or token ids.
    """
    if not prompt or is_ids(prompt):
        raise EngineError("a prompt must be a non-empty list of messages here", where="Engine.encode")
    return cast(Messages, prompt)


def as_text(messages: Messages) -> str:
    """The plain form of a conversation, for models without a chat template."""
    return "".join(f"{m.role}: {m.content}\n\n" for m in messages) + "assistant:"
