from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.agents.engines import chat
from coterie.errors import EngineError
from coterie.text import join_pieces
from coterie.types import Message, Messages, Sampling

BYTES = chat.Codec(
    measure=lambda messages: len(chat.as_text(messages).encode()),
    split=lambda text: text.encode(),
    join=lambda pieces: bytes(pieces).decode(errors="ignore"),
)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
middles = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), texts), max_size=5)


def decode_bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


def conversation(system: str | None, middle: list[Message], last: str) -> Messages:
    head = (Message("system", system),) if system is not None else ()
    return (*head, *middle, Message("user", last))


@given(texts, st.integers(0, 200), st.integers(0, 200))
def test_pieces_of_a_reply_join_to_what_its_ids_say_together(reply, first, second) -> None:
    ids = tuple(reply.encode())
    cuts = sorted(min(cut, len(ids)) for cut in (first, second))
    parts = [ids[: cuts[0]], ids[cuts[0] : cuts[1]], ids[cuts[1] :]]
    said = [(), parts[0], parts[0] + parts[1]]
    pieces = [chat.read_on(decode_bytes, s, p)[0] for s, p in zip(said, parts, strict=True)]
    assert join_pieces(pieces) == reply


def test_a_piece_keeps_the_space_that_its_first_token_stands_for() -> None:
    """As tokenizers do that write a space into the token behind it, and drop the one in front of a text."""
    words = ["two", "and", "two"]
    assert chat.read_on(lambda ids: " ".join(words[i] for i in ids), (0, 1), (2,)) == (" two", False)


def test_a_stop_string_may_begin_in_what_was_said() -> None:
    read = [chat.read_on(decode_bytes, tuple(said), new, ["END"]) for said, new in ((b"a E", b"ND b"), (b"a", b" b"))]
    assert read == [("", True), (" b", False)]


@given(st.none() | texts, middles, texts, st.integers(60, 300))
def test_what_fits_is_never_longer_than_the_room_and_drops_are_counted(system, middle, last, room) -> None:
    messages = conversation(system, middle, last)
    full = BYTES.measure(messages)
    kept, length, dropped = chat.fit(messages, room, BYTES)
    assert length == BYTES.measure(kept) <= room
    assert dropped == full - length
    assert (dropped == 0) == (full <= room)


@given(texts, middles, texts, st.integers(60, 300))
def test_system_and_last_message_stay_and_the_rest_goes_oldest_first(system, middle, last, room) -> None:
    messages = conversation(system, middle, last)
    kept, _, _ = chat.fit(messages, room, BYTES)
    assert kept[0].role == "system" and kept[-1].role == "user"
    between = kept[1:-1]
    assert between == tuple(middle)[len(middle) - len(between) :]
    if between:
        assert kept[-1] == messages[-1] and kept[0] == messages[0]


def test_the_last_message_loses_its_middle() -> None:
    (kept,), _, _ = chat.fit((Message("user", "abcdefghij"),), 18 + 4, BYTES)
    assert kept.content == "abij"


def test_the_system_message_is_cut_only_when_the_last_is_empty() -> None:
    messages = conversation("s" * 50, [], "u" * 50)
    kept, _, _ = chat.fit(messages, 60, BYTES)
    assert kept[-1].content == "" and 0 < len(kept[0].content) < 50


def test_a_context_below_the_template_is_an_error() -> None:
    with pytest.raises(EngineError, match="even with empty messages"):
        chat.fit((Message("user", "hello"),), 3, BYTES)


def test_a_reply_that_fills_the_context_is_an_error() -> None:
    with pytest.raises(EngineError, match="leaves no room"):
        chat.room_for(Sampling(max_tokens=64), 64)


@given(st.lists(st.integers()), st.integers(0, 20))
def test_cut_middle_keeps_so_many_from_both_ends(pieces, keep) -> None:
    kept = chat.cut_middle(pieces, keep)
    head = len(kept) - len(kept) // 2
    assert len(kept) == min(keep, len(pieces))
    if len(kept) < len(pieces):
        assert kept == pieces[:head] + pieces[len(pieces) - (len(kept) - head) :]


def test_token_ids_are_used_as_they_are() -> None:
    encoded = chat.encode_ids((5, 6, 7), room=8)
    assert (encoded.prompt, encoded.length, encoded.dropped) == ((5, 6, 7), 3, 0)
    assert chat.encode_ids(tuple(range(10)), room=4).prompt == (0, 1, 8, 9)
