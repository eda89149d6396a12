"""Formulas: one string for those that are plainly equal, and math-verify's word on the others."""

from __future__ import annotations

import re

from coterie.envs.grading import shared_pool

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_COMMANDS = re.compile(r"(\\\\)|\\(?:left|right)(?![A-Za-z])|\\[,;:! ]|~|(\\[dt]frac)(?![A-Za-z])")
# White space means nothing in a formula, but "\pi r" is not "\pir" and "1 2" is not "12".
_LOOSE = re.compile(r"(?<![A-Za-z0-9])\s|\s(?![A-Za-z0-9])")
# A bare list such as "1, 200" keeps the space that tells it from 1,200.
_LIST = re.compile(r"[-+0-9., ]*")
_THOUSANDS = re.compile(r"[0-9], [0-9]{3}(?![0-9])")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{([^{}]*)\}")


def normalize(formula: str) -> str:
    r"""The formula without delimiters, spacing commands and needless white space; `\dfrac` is `\frac`."""
    bare = formula.strip().removesuffix(".").strip()
    for opening, closing in _DELIMITERS:
        if len(bare) >= len(opening + closing) and bare.startswith(opening) and bare.endswith(closing):
            bare = bare[len(opening) : len(bare) - len(closing)]
            break
    bare = _COMMANDS.sub(_plain, bare.replace(r",\!", ",")).strip().removesuffix(".")
    words = _WORDS.fullmatch(bare)
    bare = " ".join((words[1] if words else bare).split())
    if _LIST.fullmatch(bare) and _THOUSANDS.search(bare):
        return ", ".join(part.strip() for part in bare.split(", "))
    return _LOOSE.sub("", bare)


def _plain(command: re.Match[str]) -> str:
    if command[1]:  # the end of a row, not a space after a backslash
        return command[1]
    return r"\frac" if command[2] else " "


def agree(gold: str, answer: str) -> bool:
    """Whether math-verify takes two formulas for equal. Runs it in a process of its own.

    Raises:
        GradingTimeout: it found no end.
    """
    return shared_pool("coterie.envs.equality:is_equal").call(gold, answer) is True
