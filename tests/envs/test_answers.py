"""Reading answers out of replies."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.envs.answers import ANSWER_TYPES, canonical, is_close, is_number, parse

NUMBERS = {
    "The answer is 12.": "12",
    "12.0": "12",
    "012": "12",
    "x = -3": "-3",
    "5 - 3 = 2": "2",
    "Answer: $1,234.50": "1234.5",
    "1e3": "1000",
    "2.5e-3": "0.0025",
    r"so \boxed{\frac{3}{4}}": "0.75",
    r"$-\dfrac{1}{3}$": "-1/3",
    "50%": "50",
    "\u22127": "-7",
    "6/4": "1.5",
    "1/3": "1/3",
    "2 1/2 cups": "2.5",
    "Answer: 8 + 4 = 12": "12",
    "12 apples, the answer is 7 and not 3": "7",
    "The final answer to this is: 9": "9",
    "Answer: 1. Then again, Answer: 2": "2",
    "The answer is clear. I have 4": "4",
    "1,2": "2",
    "1{,}234": "1234",
    "**Answer:** 14": "14",
    "Answer:\n 12": "12",
    "#### 18": "18",
    "-$5": "-5",
    "$-5": "-5",
    "range 3-5": "5",
    "Answer: -0": "0",
    ".5": "0.5",
    "You have 3 apples (of 12)": "12",
    "2 + 3 = 5": "5",
    "He sold 5 and kept 7": "7",
    "Answer: 5, not 6": "5",
    "Not easy, but I get 8": "8",
    "I bought 3 and 4, in all 7": "7",
    "Answer: 5. Or do I?": "5",
    "So:\n```python\nprint(3 + 4)\n```\nThis gives 7.": "7",
    "Answer:\n```\n7\n```": "7",
    "```\nStep 1: 3 + 4\nAnswer: 7\n```": "7",
    "```7```": "7",
}
UNPARSED = (
    "5 or 6", "between 3 and 4", "not 5", "It isn't 5", "2 * 3", "10 - 3", "2^10", "2**10", "5 \u00d7 2", "3 + 4",
    "Answer: 5 or 6", "Answer: 10-3", "Answer: **5** or **6**", r"\boxed{5 \text{ or } 6}", "The answer is not 5",
    r"$2 \times 3$", "Let me see.\n```python\nprint(3+4)\n```", "```\nprint(3+4)\n```", "```python\nx = 3",
)  # fmt: skip
EMPTY = ("", "no idea", "1/0", "9" * 5000, "1e999999", "R2D2", "\\boxed{", "Answer:")


@pytest.mark.parametrize(("reply", "answer"), NUMBERS.items())
def test_a_number_is_read_in_canonical_form(reply: str, answer: str) -> None:
    assert parse(reply, "number") == answer


@pytest.mark.parametrize("reply", (*UNPARSED, *EMPTY))
def test_a_reply_without_a_number_is_unparsed(reply: str) -> None:
    assert parse(reply, "number") is None


def test_an_invented_further_question_is_not_read() -> None:
    assert parse("3 - 5 = -2\nQ: 4 + 4 =\nA: Answer: 8", "number") == "-2"


CHOICES = ("dog", "red", "dark red")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The answer is (B)", "B"),
        ("Answer: A because it barks", "A"),
        ("b", "B"),
        ("(A) is wrong, so (C)", "C"),
        ("I think it is red", "B"),
        ("Answer: dark red", "C"),
        (r"\boxed{\text{C}}", "C"),
        ("Answer: C) dark red", "C"),
        ("Answer: (b)", "B"),
        ("Answer: A or B", None),
        ("Answer: A, B", None),
        ("Answer: D", None),
        ("the credit is due", None),
        ("(A) dog (B) red (C) dark red", None),
        ("dog, red or dark red", None),
        ("The answer is not (A)", None),
        ("The answer is not (A) but (B)", "B"),
        ("neither A nor B", None),
        ("Answer: neither A nor B", None),
        ("Option (A) is wrong so pick B", None),
        ("It can't be (A), nor (B). (C)", "C"),
        ("(B). Yes, (B).", "B"),
        ("It is not really red", None),
        ("The answer is not red", None),
        ("", None),
    ],
)
def test_a_choice_is_read_as_its_letter(reply: str, answer: str | None) -> None:
    assert parse(reply, "choice", CHOICES) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Answer: Yes.", "yes"),
        ("Yes", "yes"),
        ("thinking\nabout it", None),
        ("Answer: no\nAnswer: 'Yes  Sir'", "yes sir"),
        ("Answer:\n1 2  3\n4 5 6\n\nDone", "1 2 3\n4 5 6"),
        ("Answer: ", None),
    ],
)
def test_a_text_is_folded_and_trimmed(reply: str, answer: str | None) -> None:
    assert parse(reply, "text") == answer


def test_exact_keeps_upper_and_lower_case() -> None:
    assert parse("Answer: R U'", "exact") == "R U'"
    assert parse("Answer: Hart, find", "exact") == "Hart, find"


LABELS = ("Yes", "No", "valid", "invalid")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Answer: No, although Kim says yes.", "no"),
        ("**Answer:** Yes.", "yes"),
        ("Yes? Let me see ... No", "no"),
        ("The argument is invalid.", "invalid"),
        ("It is not valid", None),
        ("That isn't valid. Answer: invalid", "invalid"),
        ("Answer: yes or no", None),
        ("yes/no", None),
        ("Noah knows", None),
        ("It isn't really valid", None),
        ("not deductively valid", None),
        ("neither valid nor invalid", None),
        ("Answer: valid? No, invalid", None),
        ("I have no idea", None),
        ("Yes, no doubt", "yes"),
        ("Answer: valid in form but invalid in fact", None),
        ("Answer: No. Kim says yes", "no"),
        ("", None),
    ],
)
def test_a_label_is_one_of_the_known_words(reply: str, answer: str | None) -> None:
    assert parse(reply, "label", LABELS) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"so \boxed{\frac{3}{4}}", "0.75"),
        (r"Answer: $x = \dfrac{\pi}{2}$ since", r"x=\frac{\pi}{2}"),
        (r"Answer: \$18.90", "18.9"),
        (r"Answer: 2\frac{1}{2}.", "2.5"),
        (r"Answer: 10,\!080", "10080"),
        (r"The value of $x$ is" + "\n" + r"$\frac{14}{3}$.", "14/3"),
        ("Answer:\n$$\n5\n$$", "5"),
        (r"\(a\) or \[b\]" + "\nas shown", "b"),
        ("x + 1", "x+1"),
        ("Answer: 1, 200", "1, 200"),
        ("Answer: 1,200", "1200"),
        (r"\boxed{", None),
        ("hello\nworld", None),
    ],
)
def test_a_formula_is_normalised_and_numbers_are_numbers(reply: str, answer: str | None) -> None:
    assert parse(reply, "math") == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [("Answer: f3", "f3"), ("Nf3+", "f3"), ("Answer: g1f3", "f3"), ("e7e8q", "e8"), ("E4 or D5", "d5"), ("i9", None)],
)
def test_a_square_is_the_last_one_named(reply: str, answer: str | None) -> None:
    assert parse(reply, "square") == answer


@pytest.mark.parametrize(
    ("gold", "answer", "close"),
    [
        ("1/3", "0.333333", True), ("1/3", "0.33", False), ("18", "18.0000001", True), ("18", "19", False),
        ("18", "x", False), ("18", "1/0", False), ("18", "9**9**9", False), ("18", "9" * 100_000, False),
        ("1e3", "1000", True),
    ],
)  # fmt: skip
def test_numbers_are_close_by_exact_arithmetic(gold: str, answer: str, close: bool) -> None:
    assert is_close(gold, answer, 1e-6) == close


def test_an_unknown_answer_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown answer type"):
        parse("1", "colour")


@given(st.text(), st.sampled_from(ANSWER_TYPES), st.lists(st.text(), max_size=4))
def test_no_text_makes_it_raise(text: str, answer_type: str, choices: list[str]) -> None:
    assert parse(text, answer_type, choices) != ""


@given(st.text(alphabet="0123456789.,/-+eE%$\\{}()= answeris:\nAbfrcox#", max_size=300), st.sampled_from(ANSWER_TYPES))
def test_no_arrangement_of_answer_marks_makes_it_raise(text: str, answer_type: str) -> None:
    assert parse(text, answer_type, ("a", "1", "an ox")) != ""


@given(st.fractions(max_denominator=10**6))
def test_equal_numbers_are_equal_strings_and_reading_is_idempotent(value: object) -> None:
    once = parse(f"Answer: {value}", "number")
    assert once is not None
    assert parse(once, "number") == once


@given(st.integers(-(10**30), 10**30))
def test_an_integer_is_read_back_however_it_is_written(value: int) -> None:
    for written in (f"{value}", f"{value:,}", f"{value}.00", f"the answer is {value}", f"\\boxed{{{value}}}"):
        assert parse(written, "number") == str(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_back_exactly(value: float) -> None:
    read = parse(repr(value), "number")
    assert read is not None
    if "/" not in read:
        assert float(read) == value


HOSTILE = (
    "9", "1,", "answer:", "answer is\n", "answer a b c d e f g ", "(A", "\\boxed{", " ", "\nQ", "1.1", "{", "-",
    "\\frac{1", "\n \t", "a ", "1 ", "1/", "\\frac{1}{", "A or ",
    "\\(", "\\[", "$", "$a", "a1", "a or ", "not a ", "answer: $", "\\ ",
)  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_megabyte_of_hostile_text_is_read_at_once(unit: str) -> None:
    # In seconds, on any machine: what is quadratic in its length would take hours.
    text = unit * (1_000_000 // len(unit))
    for answer_type in ANSWER_TYPES:
        start = time.process_time()
        parse(text, answer_type, ("a", "1", "a a"))
        assert time.process_time() - start < 5


def test_gold_answers_take_the_form_of_parsed_ones() -> None:
    assert canonical("1,234.0", "number") == parse("it is 1234", "number")
    assert canonical("Yes", "text") == parse("Answer: yes.", "text")
    assert canonical("red", "choice", CHOICES) == "B"


def test_a_plain_number_is_told_from_text_with_a_number_in_it() -> None:
    assert all(map(is_number, ("1", "-2.5", "3/4", "9e-18")))
    assert not any(map(is_number, ("1 2", "5 days", "", "$\\dfrac{1}{2}$", "0x1f")))
