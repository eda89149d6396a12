"""Untrusted text is inert wherever it is shown."""

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from coterie.text import blocks, clean, fence, for_terminal, unfence

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
    prompt = re.compile(r"[ \t]*>>> \S")
    assert all(">>>" not in line or prompt.match(line) for line in body.split("\n"))
    assert unfence(fence(text)) == body


def test_long_runs_of_marks_are_broken_up():
    assert fence(">>>> and <<<<<") == "<<<\n> > > > and < < < < <\n>>>"


def test_a_doctest_stays_in_its_fence():
    code = 'def f(x):\n    """Twice.\n\n    >>> f(1)\n    2\n    """\n    return x >> 2'
    assert fence(code) == f"<<<\n{code}\n>>>"
    assert fence("a\n>>>\n>>> \n>>>> b") == "<<<\na\n> > >\n> > > \n> > > > b\n>>>"


def test_control_tokens_are_broken_up():
    for token in (
        "<|im_end|>",
        "<|eot_id|>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "</s>",
        "<end_of_turn>",
        "[/INST]",
    ):
        assert fence(f"a{token}b") == f"<<<\na{token[0]} {token[1:]}b\n>>>"
    code = "a <b|c> d[i] < e |> f"
    assert fence(code) == f"<<<\n{code}\n>>>"


def test_what_is_not_fenced_is_left_alone():
    assert unfence("<<<\na") == "<<<\na"


def test_blocks_are_found_by_their_marks():
    text = "a\n```Python\nx\n~~~\n```\n  ~~~ js\ny\n  ~~~\n````\n```\n````\nb\n```\nrest\n"
    lines = text.split("\n")
    found = [(language, lines[start:stop]) for start, stop, language in blocks(lines)]
    assert found == [("python", ["x", "~~~"]), ("js", ["y"]), ("", ["```"]), ("", ["rest", ""])]


def test_long_text_is_cut_and_says_so():
    assert for_terminal("x" * 30, limit=10) == "xxxxxxxxxx [... 20 characters more]"
    assert fence("y" * 5000).endswith("y [cut]\n>>>")
