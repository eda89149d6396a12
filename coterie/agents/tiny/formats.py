"""What agents say of sums: solutions, evaluations and scores, in the words that are taught."""

from __future__ import annotations

from dataclasses import dataclass

from coterie.agents.tiny.arithmetic import Terms, Working

QUESTION = "State the final answer to the following arithmetic problem: $sum ="
"""The wording of reasoning-gym's `chain_sum`."""


@dataclass(frozen=True, slots=True)
class Solution:
    """A reply to a question; of a cut one only the first `num_lines` of its lines are there."""

    working: Working
    text: str
    num_lines: int

    @property
    def is_whole(self) -> bool:
        """Whether there is an answer."""
        return "Answer:" in self.text


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What somebody says of a solution; `finding` is `none`, `slip` or `mistake`."""

    text: str
    finding: str


def ask(terms: Terms) -> str:
    """The question, as the benchmark words it."""
    words = [str(terms[0])]
    for term in terms[1:]:
        words += ["-" if term < 0 else "+", str(abs(term))]
    return QUESTION.replace("$sum", " ".join(words))


def solve(working: Working) -> Solution:
    """A line for each column, one for their sum, and the answer."""
    lines = [f"{c.name} {c.digits}: {c.steps}" for c in working.columns]
    lines += [f"{working.joined}={working.answer}"] if working.joined else []
    return Solution(working, "\n".join([*lines, f"Answer: {working.answer}"]), len(lines) + 1)


def evaluate(solution: Solution, own: Working) -> Evaluation:
    """The solution's lines beside one's own, and what is wrong in them."""
    given, lines = solution.working, _check(solution, own)
    faults = [
        f"the {mine.name.lower()} are {mine.value}, not {theirs.value}"
        for mine, theirs in list(zip(own.columns, given.columns, strict=True))[: solution.num_lines]
        if mine.value != theirs.value
    ]
    if own.answer != given.answer and not faults:
        faults.append(f"the answer is {own.answer}, not {given.answer}")
    if not solution.is_whole:
        faults = ["there is no answer"]
    if faults and (own.answer != given.answer or not solution.is_whole):
        return Evaluation("\n".join([*lines, f"Mistake: {' and '.join(faults)}."]), "mistake")
    if given.slip or faults:
        return Evaluation("\n".join([*lines, f"Slip: {given.slip or ' and '.join(faults)}."]), "slip")
    return Evaluation("\n".join([*lines, f"No mistake: the answer is {own.answer}."]), "none")


def _check(solution: Solution, own: Working) -> list[str]:
    given, lines = solution.working, []
    for index, (mine, theirs) in enumerate(zip(own.columns, given.columns, strict=True)):
        said = theirs.value if index < solution.num_lines else None
        lines.append(f"{mine.name}: {mine.steps}, {_compare(mine.value, said)}")
    if own.joined:
        said = given.answer if solution.is_whole else None
        lines.append(f"{own.joined}={own.answer}, {_compare(own.answer, said)}")
    return lines


def _compare(mine: int, theirs: int | None) -> str:
    """Both numbers, character beside character, and whether they are equal.

    What stands side by side a small model learns to compare early; numbers that stand apart, not in the time there is.
    """
    if theirs is None:
        return "none: wrong"
    width = max(len(str(mine)), len(str(theirs)))
    pairs = zip(str(mine).rjust(width, "."), str(theirs).rjust(width, "."), strict=True)
    return f"{' '.join(map(''.join, pairs))}: {'right' if mine == theirs else 'wrong'}"


def score(solution: Solution, evaluation: Evaluation | None, own: Working) -> str:
    """One's own working, what follows for the solution and the objections to it, and the score."""
    lines = _check(solution, own)
    is_right = solution.is_whole and own.answer == solution.working.answer
    if not is_right:
        return "\n".join([*lines, "It is wrong.", "Score: 1"])
    if evaluation is not None and evaluation.finding == "slip":
        return "\n".join([*lines, "It is right, with a slip.", "Score: 2"])
    return "\n".join([*lines, "It is right, no objection holds.", "Score: 3"])


def grade(evaluation: Evaluation) -> str:
    """An evaluation that gives the score itself."""
    number = {"mistake": 1, "slip": 2, "none": 3}[evaluation.finding]
    return f"{evaluation.text}\nScore: {number}"
