"""Replies in two parts: what is read as thought and response, and what is unparsed."""

import json
import time

import pytest

from coterie.envs import answers
from coterie.envs.thoughts import ANSWER_TYPE, MAX_REPLY, Reply, parse, read_answer, read_reply


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ('{"thought": "hide it", "response": "No."}', Reply("hide it", "No.")),
        ('Sure:\n```json\n{"thought": "a\nb", "response": "c"}\n```', Reply("a\nb", "c")),
        ("<think>hide it</think>\nNo.", Reply("hide it", "No.")),
        ("**Thought:** hide it\n\n**Response:** No.", Reply("hide it", "No.")),
        ('{"thought": "hide it", "response": ""}', None),
        ('{"thought": "hide it", "respo', None),
        ("<think>hide it</think>", None),
        ("No.", None),
        ("", None),
        ('{"thought": 1, "response": 2}', None),
        ('["thought", "response"]', None),
    ],
)
def test_a_reply_is_read_as_thought_and_response_or_not_at_all(text: str, reply: Reply | None) -> None:
    assert read_reply(text) == reply


def test_the_answer_of_a_reply_is_both_parts_and_is_read_again_as_itself() -> None:
    answer = answers.parse("<think>a\nQ: 1</think> b", ANSWER_TYPE)
    assert answer is not None
    assert json.loads(answer) == {"thought": "a\nQ: 1", "response": "b"}
    assert parse(answer) == answers.canonical(answer, ANSWER_TYPE) == answer
    assert answers.parse("Answer: 7", ANSWER_TYPE) is None


@pytest.mark.parametrize("unit", ["a\n", "\u4f60", '"'])
def test_an_answer_that_is_longer_than_its_reply_is_read_whole(unit: str) -> None:
    thought = unit * (39_000 // len(unit)) + "."
    answer = parse(f"<think>{thought}</think> b")
    assert answer is not None
    assert len(answer) > MAX_REPLY
    assert read_answer(answer) == Reply(thought, "b")


@pytest.mark.parametrize("unit", ["thought:\n", "\n", "{", '{"thought":', "response:\n", "*", "<think>", "\n "])
def test_hostile_text_is_read_at_once(unit: str) -> None:
    text = "thought:" + unit * (1_000_000 // len(unit))
    start = time.process_time()
    read_reply(text)
    assert time.process_time() - start < 0.5
