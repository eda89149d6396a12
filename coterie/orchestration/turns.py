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
from coterie.orchestration.jobs import Begun
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
    begun: Begun | None = None
    """How the reply begins; what an engine says goes on from there."""

    @property
    def said_ids(self) -> TokenIds:
        """All that the engine's words go on with."""
        return tuple(i for part in (*self.said, *((self.begun,) if self.begun else ())) for i in part.token_ids or ())

    @property
    def room(self) -> int:
        """The tokens that have to fit into the context beside its prompt. What has been said is never cut."""
        replies = len(self.group.prompts) if self.group and self.group.sight == "all" else 1
        begun = len(self.begun.token_ids) if self.begun else 0
        return replies * self.policy.sampling.max_tokens + begun + sum(turn.num_tokens for turn in self.said)


def turn_key(
    place: Place, policy: PolicySpec, prompt: Messages, said: Sequence[Turn] = (), group: Group | None = None,
    begun: Begun | None = None,
) -> str:  # fmt: skip
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
        *([begun.token_ids] if begun else []),
    ]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return f"turn/{place}/{digest[:16]}"


def go_on(prompt: EncodedPrompt, ids: TokenIds) -> EncodedPrompt:
    """The prompt with the reply's tokens so far behind it; beside it where an engine of tests takes messages."""
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
    """The turn, with the answer that is read from its reply if it is for one; one that was begun is whole."""
    if question.begun is not None:
        sample = _make_whole(question.begun, sample)
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


def _make_whole(begun: Begun, sample: Sample) -> Sample:
    """What the engine would have returned had it said the beginning, too; the log-probabilities of that are not known.

    Raises:
        EngineError: the engine gives no token ids.
    """
    if sample.token_ids is None or sample.prompt_ids is None:
        raise EngineError("a reply cannot be drawn anew from within without its token ids",
                          remedy="take an engine that gives them: vllm or transformers")  # fmt: skip
    size = len(begun.token_ids)
    return dataclasses.replace(
        sample, text=join_pieces([begun.text, sample.text]), token_ids=(*begun.token_ids, *sample.token_ids),
        num_tokens=size + sample.num_tokens, num_prompt_tokens=sample.num_prompt_tokens - size,
        prompt_ids=sample.prompt_ids[: len(sample.prompt_ids) - size], logprobs=None,
    )  # fmt: skip
