"""What is taught: conversations of the protocols about sums, and a reply to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coterie import rng
from coterie.agents.prompts import template
from coterie.agents.tiny.arithmetic import CHECKER, SHOWN, SOLVER, Stream, Terms, Working, draw_terms, work
from coterie.agents.tiny.formats import Evaluation, Solution, ask, evaluate, grade, score, solve
from coterie.text import fence
from coterie.types import Message, Messages

STOP = "TERMINATE"
TEMPLATES = (
    "question", "comas_solve", "comas_reference", "comas_evaluate", "comas_score", "comas_discussion",
    "comas_evaluate_and_score", "comas_score_solution", "comas_verdict", "debate", "reflect", "autogen_assistant",
    "autogen_proxy", "autogen_reply", "persona_easy_going", "persona_overconfident",
)  # fmt: skip
"""Prompts whose sentences the tokenizer knows."""
_NOD = 0.08
"""How often somebody who checks takes over what he reads."""
_CUT = 0.04
"""How often a solution that is shown lacks its end."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A prompt and the reply to it."""

    messages: Messages
    reply: str


def _user(text: str) -> Messages:
    return (Message("user", text),)


def _first(terms: Terms, note: str = "") -> Messages:
    text = template("question").fill(question=ask(terms), example="")
    return _user(f"{text}\n\n{note}" if note else text)


def _seen(terms: Terms, stream: Stream) -> Solution:
    """A solution as others see it."""
    whole = solve(work(terms, SHOWN, stream))
    if stream.random() >= _CUT:
        return whole
    kept = int(stream.integers(1, whole.num_lines))
    return Solution(whole.working, "\n".join(whole.text.split("\n")[:kept]), kept)


def _check(terms: Terms, given: Working, stream: Stream) -> Working:
    return given if stream.random() < _NOD else work(terms, CHECKER, stream)


def _judged(terms: Terms, stream: Stream) -> tuple[Solution, Evaluation]:
    solution = _seen(terms, stream)
    return solution, evaluate(solution, _check(terms, solution.working, stream))


def _solving(terms: Terms, stream: Stream) -> Lesson:
    return Lesson(_first(terms), solve(work(terms, SOLVER, stream)).text)


def _solving_again(terms: Terms, stream: Stream) -> Lesson:
    shown = [_judged(terms, stream) for _ in range(int(stream.integers(1, 3)))]
    note = template("comas_solve").fill(discussion=_show(shown))
    praised = [s.working for s, e in shown if e.finding != "mistake"]
    return Lesson(_first(terms, note), solve(_take_up(terms, praised, stream)).text)


def _take_up(terms: Terms, praised: Sequence[Working], stream: Stream) -> Working:
    """Half of the time what others have found, if there is any; else one's own, worked with more care."""
    if praised and stream.random() < 0.5:
        return praised[int(stream.integers(len(praised)))]
    return work(terms, CHECKER, stream)


def _show(judged: Sequence[tuple[Solution, Evaluation]]) -> str:
    fill = template("comas_reference").fill
    return "\n".join(fill(solution=fence(s.text), evaluation=fence(e.text)) for s, e in judged)


def _evaluating(terms: Terms, stream: Stream) -> Lesson:
    """Mostly as it is by default; at times after earlier work, or with the score."""
    solution, evaluation = _judged(terms, stream)
    question, kind = ask(terms), stream.random()
    if kind < 0.1:
        earlier = template("comas_discussion").fill(discussion=_show([_judged(terms, stream)]))
        question = f"{question}\n\n{earlier}"
    form, reply = "comas_evaluate", evaluation.text
    if kind > 0.9:
        form, reply = "comas_evaluate_and_score", grade(evaluation)
    return Lesson(_user(template(form).fill(question=question, solution=fence(solution.text))), reply)


def _scoring(terms: Terms, stream: Stream) -> Lesson:
    """Mostly as it is by default; at times without an evaluation, or asked again for the bare score."""
    solution, evaluation = _judged(terms, stream)
    own, kind = _check(terms, solution.working, stream), stream.random()
    fields = {"question": ask(terms), "solution": fence(solution.text)}
    if kind < 0.1:
        return Lesson(_user(template("comas_score_solution").fill(**fields)), score(solution, None, own))
    prompt = _user(template("comas_score").fill(**fields, evaluation=fence(evaluation.text)))
    reply = score(solution, evaluation, own)
    if kind < 0.95:
        return Lesson(prompt, reply)
    said, _, number = reply.rpartition("\nScore: ")
    return Lesson((*prompt, Message("assistant", said), *_user(template("comas_verdict").fill())), number)


def _debating(terms: Terms, stream: Stream) -> Lesson:
    said = [solve(work(terms, SOLVER, stream)) for _ in range(3)]
    request = template("debate").fill(peers="\n".join(fence(s.text) for s in said[1:]))
    common = [s.working for s in said if sum(s.working.answer == o.working.answer for o in said) > 1]
    if stream.random() < 0.25:
        request, common = template("reflect").fill(), [said[0].working]
    past = (*_first(terms), Message("assistant", said[0].text), Message("user", request))
    return Lesson(past, solve(_take_up(terms, common, stream)).text)


def _chatting(terms: Terms, stream: Stream) -> Lesson:
    """AutoGen's two agents: the assistant, the proxy, and the assistant again."""
    first = _first(terms, template("autogen_assistant").fill(stop=STOP))
    solution = solve(work(terms, SOLVER, stream))
    said, turn = f"{solution.text}\n{STOP}", stream.random()
    if turn < 0.4:
        return Lesson(first, said)
    evaluation = evaluate(solution, _check(terms, solution.working, stream))
    if turn < 0.7:
        rules = Message("user", template("autogen_proxy").fill(stop=STOP))
        ending = "" if evaluation.finding == "mistake" else f"\n{STOP}"
        messages = (rules, Message("assistant", ask(terms)), Message("user", fence(said)))
        return Lesson(messages, evaluation.text + ending)
    request = template("autogen_reply").fill(reply=fence(evaluation.text), stop=STOP)
    again = solve(_take_up(terms, [solution.working] if evaluation.finding == "none" else [], stream))
    return Lesson((*first, Message("assistant", said), Message("user", request)), f"{again.text}\n{STOP}")


LESSONS: dict[Callable[[Terms, Stream], Lesson], float] = {
    _solving: 0.38,
    _solving_again: 0.07,
    _evaluating: 0.24,
    _scoring: 0.23,
    _debating: 0.04,
    _chatting: 0.04,
}
"""Kinds of lessons and how often each is given."""


def draw_lesson(seed: int, number: int) -> Lesson:
    """The lesson of this number; some of them for an agent with a persona."""
    stream = rng.stream(seed, "tiny", "lesson", number)
    kinds = list(LESSONS)
    lesson = kinds[int(stream.choice(len(kinds), p=list(LESSONS.values())))](draw_terms(stream), stream)
    if stream.random() >= 0.1:
        return lesson
    persona = str(stream.choice(["persona_easy_going", "persona_overconfident"]))
    return Lesson((Message("system", template(persona).fill()), *lesson.messages), lesson.reply)
