"""Turns before they are committed: the question, its key, and the turn that an engine's sample makes of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from coterie.agents.engines.chat import is_ids
from coterie.envs import answers
from coterie.errors import EngineError
from coterie.orchestration.pool import PolicySpec
from coterie.text import join_pieces
from coterie.types import EncodedPrompt, Messages, Place, Sample, Sight, Task, TokenIds, Turn

CANARY = "canary_"
"""Begins the purposes of turns that judge a canary, a null answer that nobody gave: they are none of the episode's."""


@dataclass(frozen=True, slots=True)
class Group:
    """Questions that are answered side by side."""

    sight: Sight
    prompts: tuple[tuple[Place, Messages], ...]
    """In logical order."""


@dataclass(frozen=True, slots=True)
class Question:
    """What an agent is asked, before any engine has seen it."""

    key: str
    place: Place
    policy: PolicySpec
    prompt: Messages
    task: Task
    said: tuple[Turn, ...] = ()
    """Earlier turns that the reply goes on with."""
    group: Group | None = None
    """With whom it is answered; None: alone."""

    @property
    def room(self) -> int:
        """The tokens that have to fit into the context beside its prompt. What has been said is never cut."""
        replies = len(self.group.prompts) if self.group and self.group.sight == "all" else 1
        return replies * self.policy.sampling.max_tokens + sum(turn.num_tokens for turn in self.said)


def turn_key(
    place: Place, policy: PolicySpec, prompt: Messages, said: Sequence[Turn] = (), group: Group | None = None
) -> str:
    """The memo key: the place, and a hash of policy version, sampling and all that the reply depends on.

    No strategy and no executor in it.
    """
    beside = [(group.sight, [(p, [dataclasses.astuple(m) for m in ms]) for p, ms in group.prompts])] if group else []
    identity = [
        policy.name,
        policy.version,
        dataclasses.astuple(policy.sampling),
        [dataclasses.astuple(m) for m in prompt],
        *(turn.key for turn in said),
        *beside,
    ]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return f"turn/{place}/{digest[:16]}"


def is_canary(key: str) -> bool:
    """Whether the turn of this key judges a canary."""
    return key.rsplit("/", 2)[1].startswith(CANARY)


def go_on(prompt: EncodedPrompt, said: Sequence[Turn]) -> EncodedPrompt:
    """The prompt with the reply's tokens so far behind it; beside it where an engine of tests takes messages."""
    ids = tuple(token for turn in said for token in turn.token_ids or ())
    longer = cast(TokenIds, prompt.prompt) + ids if is_ids(prompt.prompt) else prompt.prompt
    return dataclasses.replace(prompt, prompt=longer, length=prompt.length + len(ids), said=ids)


def check_samples(samples: Sequence[Sample], places: Sequence[Place], policy: str) -> None:
    """Refuse what is no answer.

    Raises:
        EngineError: there are too few samples, or too many, or a sample's parts do not fit together.
    """
    if len(samples) != len(places):
        raise EngineError(
            f"the engine returned {len(samples)} replies for {len(places)} prompts", where=f"policy {policy!r}"
        )
    for place, sample in zip(places, samples, strict=True):
        for ids in (sample.token_ids, sample.logprobs):
            if ids is not None and len(ids) != sample.num_tokens:
                raise EngineError(
                    f"the engine claims {sample.num_tokens} tokens and returned {len(ids)}", where=str(place)
                )


def make_turn(question: Question, num_dropped: int, sample: Sample) -> Turn:
    """The turn, with the answer that is read from its reply if it is for one."""
    task, is_answer = question.task, question.place.purpose == "answer"
    whole = join_pieces([*(turn.text for turn in question.said), sample.text])
    return Turn(
        key=question.key,
        place=question.place,
        policy=question.policy.name,
        policy_version=question.policy.version,
        prompt=question.prompt,
        text=sample.text,
        answer=answers.parse(whole, task.answer_type, task.choices) if is_answer else None,
        finish=sample.finish,
        num_prompt_tokens=sample.num_prompt_tokens,
        num_tokens=sample.num_tokens,
        num_dropped=num_dropped,
        prompt_ids=sample.prompt_ids,
        token_ids=sample.token_ids,
        continues=question.said[-1].key if question.said else None,
    )
