"""Untrusted text is inert wherever it is shown."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from coterie.text import clean, fence, for_terminal

hostile = st.text(
    alphabet=st.one_of(st.characters(), st.sampled_from("\x1b\x9b\x07[]0;m<>\u202e\u200b\ud800")), max_size=200
)


@given(hostile)
def test_cleaned_text_holds_no_control_format_or_surrogate_character(text):
    shown = clean(text)
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in shown)
    shown.encode("utf-8")


def test_escape_sequences_go_whole():
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x1b]8;;http://x\x1b\\link") == "red belllink"


def test_plain_text_is_untouched():
    text = "Zwölf × 3 = 36\n\tok ✓"
    assert clean(text) == text


@given(hostile)
def test_a_fence_cannot_be_closed_from_inside(text):
    body = fence(text).removeprefix("<<<\n").removesuffix("\n>>>")
    assert "<<<" not in body
    assert ">>>" not in body


def test_long_runs_of_marks_are_broken_up():
    assert fence(">>>> and <<<<<") == "<<<\n> > > > and < < < < <\n>>>"


def test_long_text_is_cut_and_says_so():
    assert for_terminal("x" * 30, limit=10) == "xxxxxxxxxx [... 20 characters more]"
    assert fence("y" * 5000).endswith("y [cut]\n>>>")
