"""Reading the answer out of a model's reply.

`parse` gives equal answers equal strings, so votes, agreement and grading compare strings and nothing else.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise

from coterie.envs import code, latex, thoughts
from coterie.text import PYTHON, blocks

ANSWER_TYPES = ("number", "choice", "label", "text", "exact", "math", "square", "code", thoughts.ANSWER_TYPE)
_TAIL = 20_000
_SEGMENT = 400
_MAX_MARKERS = 32
_MAX_DIGITS = 1_000
_MAX_TEXT = 4_000
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# A reply that goes on to invent a next question has given its answer before it.
_NEXT_QUESTION = re.compile(r"\n[ \t]*(?:Q|Question)[ \t]*[0-9]{0,3}[ \t]*:")
_MARKER = re.compile(
    r"\\boxed[ ]?\{|####|\banswer(?:[ ][a-z]{1,15}){0,6}?[*_ ]{0,4}(?::|=|\bis\b:?)[*_ ]{0,4}", re.IGNORECASE
)
_ANNOUNCED = re.compile(rf"(?:{_MARKER.pattern})\s*$", re.IGNORECASE)
_TYPOGRAPHY = str.maketrans({"\u2212": "-", "\ufe63": "-", "\uff0d": "-", "\u2044": "/", "\u00a0": " ", "\u202f": " "})
_LATEX = re.compile(r"\\[,!;: ]|\\(?:left|right)\b|(?<=[0-9])\{,\}(?=[0-9])|\\(?=[$%])")
_FRACTION = re.compile(r"(-?)\\[dt]?frac[ ]?\{[ ]?(-?[0-9]{1,1000})[ ]?\}[ ]?\{[ ]?(-?[0-9]{1,1000})[ ]?\}")
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_CURRENCY = "[$\u20ac\u00a3\u00a5\u20b9]"
_NUMBER = re.compile(
    rf"(?<![A-Za-z0-9_])(?<![0-9]\.)(?P<sign>(?<![)\]])[-+])?(?:{_CURRENCY}[ ]?(?P<sign2>[-+])?)?"
    rf"(?:(?P<whole>[0-9]{{1,9}})[ ](?P<top>[0-9]{{1,9}})/(?P<bottom>[0-9]{{1,9}})(?![0-9/])"
    rf"|(?P<digits>{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)(?:[eE](?P<exponent>[-+]?[0-9]{{1,6}})(?![0-9A-Za-z])|"
    rf"[ ]?/[ ]?(?P<over>[0-9]+))?)"
)
_PLAIN = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?|[-+]?[0-9]+/[0-9]+")
_LETTER = re.compile(r"\(([A-Za-z])\)|(?<![A-Za-z0-9'])([A-Z])(?![A-Za-z0-9'])")
_SEVERAL = re.compile(r"[ ,/&)]{0,3}(?:or|and|,|/|&)[ (]{0,3}([A-Z])(?![A-Za-z0-9'])")
_OTHER = re.compile(r"[ ,/&]{0,3}(?:or|and|,|/|&)[ ]{0,3}")
# What denies the word that follows it, what denies the letter before it, and what joins two numbers.
_NOT = r"(?:\b(?:not|never|neither|nor|cannot)|n['\u2019]t)"
_DENIED = re.compile(rf"{_NOT}(?: (?:an?|the))?(?: [a-z]{{1,15}})?(?: (?:an?|the))? $", re.IGNORECASE)
_DENIED_NUMBER = re.compile(rf"{_NOT}(?: be)?(?: equal to)? [$*_ ]{{0,4}}$", re.IGNORECASE)
_DENIED_LETTER = re.compile(
    rf"{_NOT}(?: be)?(?: (?:an?|the))?(?: (?:option|choice|answer))? [*_ ]{{0,4}}$", re.IGNORECASE
)
_REFUSED = re.compile(
    r"[ *_]{0,4}(?:(?:is|are|was|seems|looks)(?:n['\u2019]t| (?:[a-z]{1,15} )?(?:not|wrong|incorrect)\b)"
    r"|can(?:not|['\u2019]t)\b)"
)
_JOINT = re.compile(
    r"[ %$*_]{0,4}(?:or|and|\\text\{ ?(?:or|and) ?\}|[-+*^x\u00d7\u00b7\u00f7]|\\times|\\cdot)[ $*_{(]{0,4}"
)
# In running text a hyphen makes a range or a name of its own.
_HYPHENS = ("-",)
_NO_LABEL = re.compile(
    r"[*_\"' ]{0,4}\?|(?<=\bno) (?:idea|clue|doubt|way|reason|answer|information|evidence|need|matter|longer|one)\b"
)
_REASON = re.compile(r"[.;!](?: |$)|\b(?:although|though|because|since|while|as)\b")
_SQUARE = re.compile(r"[a-h][1-8](?=[qrbn]?(?![a-z0-9]))")
_FORMULA = re.compile(r"(?<!\\)\$\$?([^$]{1,300}?)(?<!\\)\$|\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]", re.DOTALL)
_SPACE = " \t\r\n*`_"
_WRAPPING = " \t\r\n\"'`*_$\u201c\u201d\u2018\u2019"


def parse(text: str, answer_type: str, choices: Sequence[str] = ()) -> str | None:
    r"""The answer that `text` gives, in canonical form; None if it gives none (*unparsed*).

    An explicit form wins: `\boxed{...}`, `#### ...`, `Answer: ...`, `the answer is ...`; the last of them that holds
    an answer. Only the last 20,000 characters are read, up to a further question that the reply may have invented.

    * `number`: of an explicit form the number after its last `=`, else its first; without one the last number of the
      text. Exact: `12.0`, `$12`, `12%` and `24/2` are `12`; `1/3` stays `1/3`; a percent sign is dropped, not applied.
      More than 1,000 digits are no answer, nor is a number that is denied (`not 5`) or joined to another (`5 or 6`,
      `2 * 3`).
    * `choice`: a letter. `choices` are the texts of the options A, B, ...; a reply may give the text instead. Without
      an explicit form a letter in brackets, if all others are denied. Two letters at once (`A or B`), a denied one
      (`not A`), and a reply that goes through all options are no answer.
    * `label`: one of the words in `choices`, such as `yes` and `no`, case-folded: of an explicit form the only one
      before a full stop or a reason, without one the last of the text. Two at once (`yes or no`) and a denied one (`not
      really valid`) are no answer; what is asked (`valid?`) is not said.
    * `text`: the rest of the line after the marker (or the lines below it, if it ends the line), case-folded, single
      spaces, without quotes and a final full stop. Without a marker a reply of one line is the answer.
    * `exact`: as `text`, in its own upper and lower case, with its quotes and full stop.
    * `code`: Python. The last fenced block that defines something, below the earlier ones that define what it does not;
      if none does, the last one. Blocks of other languages do not count. Without a block, the lines from the first that
      opens code to the next that is prose. Not compiled here.
    * `math`: a formula, normalised; what is plainly a number is written as `number` writes it. Of an explicit form the
      first `$...$` in it, else the rest of the line; without one the last `$...$` of the text, or a reply of one line.
    * `thought_and_response`: both parts, as JSON; see `thoughts.read_reply`.
    * `square`: a square of a chess board (`e4`, also of a move such as `g1f3`); of an explicit form the last, without
      one the last of the text.

    Fenced blocks of code are read for `code` only, unless an explicit form opens the block or stands before it.

    Never raises on any text, and runs no part of it. Time is linear in the length.

    Raises:
        ValueError: an unknown answer type.
    """
    if answer_type not in ANSWER_TYPES:
        raise ValueError(f"unknown answer type {answer_type!r}, known: {', '.join(ANSWER_TYPES)}")
    if answer_type == thoughts.ANSWER_TYPE:
        return thoughts.parse(text)
    ending = _NEXT_QUESTION.search(text, 1)
    body = (text[: ending.start()] if ending else text)[-_TAIL:]
    if answer_type == "code":
        return code.parse(body)
    body = _prose(body).translate(_TYPOGRAPHY)
    if answer_type == "number":
        return _parse_number(body)
    if answer_type == "choice":
        return _parse_choice(body, choices)
    if answer_type == "label":
        return _parse_label(body, tuple(choices))
    if answer_type == "square":
        return _parse_square(body)
    return _parse_math(body) if answer_type == "math" else _parse_text(body, answer_type)


def canonical(answer: str, answer_type: str, choices: Sequence[str] = ()) -> str | None:
    """A bare answer, such as a gold one, in the form that `parse` gives; None if it is none of this type."""
    if answer_type == "code":
        return code.tidy(answer)
    if answer_type == thoughts.ANSWER_TYPE:
        return thoughts.parse(answer)
    body = answer.translate(_TYPOGRAPHY)
    if answer_type in ("text", "exact"):
        return _tidy(body, answer_type)
    return parse(f"Answer: {body}", answer_type, choices)


def is_number(text: str) -> bool:
    """Whether `text` is nothing but a plain decimal number or fraction, as gold answers of number tasks are."""
    return _PLAIN.fullmatch(text.strip()) is not None


def is_close(gold: str, answer: str, tolerance: float) -> bool:
    """Whether both are plain numbers at most `tolerance` apart."""
    if len(answer) > _MAX_DIGITS or not (is_number(gold) and is_number(answer)):
        return False
    try:
        return abs(Fraction(gold) - Fraction(answer)) <= tolerance
    except (ValueError, ZeroDivisionError):
        return False


def _prose(body: str) -> str:
    """The reply without its blocks of code; what a block holds stays if an explicit form opens it or ends before it."""
    lines = body.splitlines()
    kept: list[str] = []
    end = 0
    for start, stop, language in blocks(lines):
        kept += lines[end : start - 1]
        inner = lines[start:stop]
        opened = any(_ANNOUNCED.search(line[-200:]) for line in kept[-2:] if line.strip())
        if language not in PYTHON[1:] and (opened or any(_MARKER.match(line.lstrip(_SPACE)) for line in inner)):
            kept += inner
        end = stop + 1
    return "\n".join([*kept, *lines[end:]]) if end else body


def _markers(body: str) -> list[re.Match[str]]:
    """The explicit forms, last first."""
    return list(_MARKER.finditer(body))[: -_MAX_MARKERS - 1 : -1]


def _segment(body: str, marker: re.Match[str]) -> str:
    """What an explicit form says: up to its closing brace, or the rest of its line, or else the next line."""
    rest = body[marker.end() : marker.end() + _SEGMENT]
    if marker.group().startswith("\\"):
        return rest[: _closing(rest)]
    return rest.lstrip().partition("\n")[0]


def _closing(text: str) -> int:
    depth = 1
    for index, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return index
    return len(text)


# --- numbers


def _parse_number(body: str) -> str | None:
    for marker in _markers(body):
        segment = _segment(body, marker)
        _, equals, result = segment.rpartition("=")
        for part in (result, segment) if equals else (segment,):
            plain = _plain(part)
            first = list(islice(_NUMBER.finditer(plain), 2))
            if first:
                return _sole(plain, first, 0)
    plain = _plain(body)
    last = list(deque(_NUMBER.finditer(plain), maxlen=2))
    return _sole(plain, last, -1, _HYPHENS) if last else None


def _plain(text: str) -> str:
    return _FRACTION.sub(r" \1\2/\3 ", _LATEX.sub("", text))


def _sole(text: str, matches: Sequence[re.Match[str]], index: int, ignored: Sequence[str] = ()) -> str | None:
    """The number at `index`, unless it is denied, or joined to the other one by a word or an operator."""
    taken = matches[index]
    if _DENIED_NUMBER.search(text[max(0, taken.start() - 40) : taken.start()]):
        return None
    for left, right in pairwise(matches):
        between = text[left.end() : right.start()]
        if between not in ignored and _JOINT.fullmatch(between):
            return None
    return _canonical(taken)


def _canonical(match: re.Match[str]) -> str | None:
    value = _value(match)
    if value is None:
        return None
    return _decimal(-value if "-" in (match["sign"], match["sign2"]) else value)


def _value(match: re.Match[str]) -> Fraction | None:
    if sum(map(str.isdigit, match.group())) > _MAX_DIGITS:
        return None
    if match["whole"]:
        bottom = int(match["bottom"])
        return int(match["whole"]) + Fraction(int(match["top"]), bottom) if bottom else None
    whole, _, decimals = match["digits"].replace(",", "").partition(".")
    exponent = int(match["exponent"] or 0)
    over = int(match["over"] or 1)
    if abs(exponent) > _MAX_DIGITS or over == 0:
        return None
    mantissa = int((whole + decimals) or "0")
    return Fraction(mantissa, over) * Fraction(10) ** (exponent - len(decimals))


def _decimal(value: Fraction) -> str:
    """`value` as a terminating decimal where it has one, else as a reduced fraction."""
    twos, rest = _strip(value.denominator, 2)
    fives, rest = _strip(rest, 5)
    places = max(twos, fives)
    if rest != 1 or places > _MAX_DIGITS:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else sign + digits


def _strip(number: int, factor: int) -> tuple[int, int]:
    count = 0
    while number % factor == 0:
        number, count = number // factor, count + 1
    return count, number


# --- choices


def _parse_choice(body: str, choices: Sequence[str]) -> str | None:
    letters = LETTERS[: len(choices)] if choices else LETTERS[:10]
    options = [" ".join(choice.split()).casefold() for choice in choices]
    for marker in _markers(body):
        segment = _segment(body, marker)
        found, several = _letter_of(segment, letters)
        if several:
            return None
        found = found or _option_in(segment, options)
        if found:
            return found
    bracketed = [m for m in _LETTER.finditer(body) if m[1] and m[1].upper() in letters]
    if bracketed:
        refused = {m[1].upper() for m in bracketed if _is_denied(body, m) or _REFUSED.match(body, m.end())}
        named = {m[1].upper() for m in bracketed} - refused
        return named.pop() if len(named) == 1 else None
    alone = body.strip(_WRAPPING + ".:)").upper()
    if len(alone) == 1 and alone in letters:
        return alone
    folded = _fold(body)
    listed = len(options) > 1 and all(_last_word_end(folded, option) is not None for option in options)
    return None if listed else _option_in(body, options)


def _letter_of(segment: str, letters: str) -> tuple[str | None, bool]:
    """The first option letter of an explicit form that is not denied, and whether another one stands beside it."""
    bare = segment.strip(_WRAPPING + ".:)}").removeprefix("\\text{")
    if len(bare) == 1 and bare.upper() in letters:
        return bare.upper(), False
    for match in _LETTER.finditer(segment):
        letter = (match[1] or match[2]).upper()
        if letter in letters and not _is_denied(segment, match):
            other = _SEVERAL.match(segment, match.end())
            return letter, other is not None and other[1] in letters and other[1] != letter
    return None, False


def _is_denied(text: str, letter: re.Match[str]) -> bool:
    return _DENIED_LETTER.search(text[max(0, letter.start() - 40) : letter.start()]) is not None


def _option_in(text: str, options: Sequence[str]) -> str | None:
    """The letter of the option whose text ends last; of those that end together the longest. None if it is denied."""
    folded = _fold(text)
    best: tuple[int, int, str] | None = None
    for letter, option in zip(LETTERS, options, strict=False):
        end = _last_word_end(folded, option)
        if end is not None and (best is None or (end, len(option)) > best[:2]):
            best = (end, len(option), letter)
    if best is None:
        return None
    start = best[0] - best[1]
    return None if _DENIED.search(folded[max(0, start - 40) : start]) else best[2]


def _last_word_end(text: str, word: str) -> int | None:
    start = text.rfind(word) if word else -1
    while start >= 0:
        end = start + len(word)
        before, after = text[start - 1 : start], text[end : end + 1]
        if not (before.isalnum() and word[0].isalnum()) and not (after.isalnum() and word[-1].isalnum()):
            return end
        start = text.rfind(word, 0, end - 1)
    return None


# --- labels and squares


def _parse_label(body: str, labels: tuple[str, ...]) -> str | None:
    for marker in _markers(body):
        segment = _fold(_segment(body, marker))
        reason = _REASON.search(segment)
        for said in (segment[: reason.start()], segment) if reason else (segment,):
            matches = _named(said, labels)
            if matches:
                return _stated(said, matches, 0) if len({match[0] for match in matches}) == 1 else None
    folded = _fold(body)
    matches = _named(folded, labels)
    return _stated(folded, matches, len(matches) - 1) if matches else None


def _named(text: str, labels: tuple[str, ...]) -> list[re.Match[str]]:
    """The labels in a text, but those that are only asked for, and the `no` of phrases such as `no idea`."""
    return [match for match in _any_of(labels).finditer(text) if not _NO_LABEL.match(text, match.end())]


@lru_cache(maxsize=64)
def _any_of(labels: tuple[str, ...]) -> re.Pattern[str]:
    words = sorted({_fold(label) for label in labels} - {""}, key=len, reverse=True)
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, words)) or '(?!)'})(?![^\W_])")


def _stated(text: str, matches: Sequence[re.Match[str]], index: int) -> str | None:
    """The label at `index`, unless it is denied or stands beside another one."""
    found = matches[index]
    if _DENIED.search(text[max(0, found.start() - 48) : found.start()]):
        return None
    for left, right in pairwise(matches[max(0, index - 1) : index + 2]):
        if left[0] != right[0] and _OTHER.fullmatch(text, left.end(), right.start()):
            return None
    return found[0]


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


def _parse_square(body: str) -> str | None:
    for text in (*(_segment(body, marker) for marker in _markers(body)), body):
        last = deque(_SQUARE.finditer(text.lower()), maxlen=1)
        if last:
            return last[0][0]
    return None


# --- formulas


def _parse_math(body: str) -> str | None:
    markers = _markers(body)
    for marker in markers:
        stretch = _stretch(body, marker).strip(_SPACE)
        formula = None if marker.group().startswith("\\") else _FORMULA.search(stretch)
        found = _tidy_formula(formula[formula.lastindex or 0] if formula else stretch)
        if found:
            return found
    last = deque(_FORMULA.finditer(body), maxlen=1)
    if last:
        return _tidy_formula(last[0][last[0].lastindex or 0])
    lines = body.strip().splitlines()
    return _tidy_formula(lines[0]) if len(lines) == 1 and not markers else None


def _tidy_formula(text: str) -> str | None:
    formula = latex.normalize(text.strip(_SPACE))
    plain = _FRACTION.sub(r" \1\2/\3 ", formula.replace("{,}", ",").replace("\\$", "$"))
    number = _NUMBER.fullmatch(plain.strip())
    return (_canonical(number) if number else None) or formula or None


# --- text


def _parse_text(body: str, answer_type: str) -> str | None:
    markers = _markers(body)
    for marker in markers:
        found = _tidy(_stretch(body, marker), answer_type)
        if found:
            return found
    lines = body.strip().splitlines()
    return _tidy(lines[0], answer_type) if len(lines) == 1 and not markers else None


def _stretch(body: str, marker: re.Match[str]) -> str:
    rest = body[marker.end() : marker.end() + _MAX_TEXT]
    if marker.group().startswith("\\"):
        return rest[: _closing(rest)]
    line, _, below = rest.partition("\n")
    return line if line.strip(_WRAPPING) else below.strip("\n").partition("\n\n")[0]


def _tidy(text: str, answer_type: str) -> str | None:
    tidy = "\n".join(" ".join(line.split()) for line in text.splitlines()).strip(" \n*`")
    if answer_type == "exact":
        return tidy or None
    tidy = tidy.strip(_WRAPPING)
    if tidy.endswith(".") and not tidy.endswith(".."):
        tidy = tidy[:-1].rstrip(_WRAPPING)
    return tidy.casefold() or None
