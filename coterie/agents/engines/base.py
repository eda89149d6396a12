"""What an engine is: the interface the supervisor talks to, and the one the trainer scores with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from coterie.types import EncodedPrompt, Place, Prompt, Sample, Sampling, Sight, TokenIds, Weights

Capability = Literal["tokens", "logprobs", "seeded", "choices", "weights", "lora", "shared_cache"]
"""tokens: samples carry token ids. logprobs: and their log-probabilities. seeded: tokens are drawn by counted
uniforms, so `determinism: exact` holds. choices: constrained decoding. weights: `Publishable`, its model's weights can
be replaced. lora: and adapters per prompt. shared_cache: `GroupDecoder`.
"""

Signal = Literal["logprobs", "entropy", "waad", "fai"]
"""logprobs: nats, of the token given its prefix. entropy: nats, of the distribution it was drawn from. waad: how far
local heads look back from the token, in tokens. fai: mean attention that global heads pay to it 10 to 100 tokens later.
"""


@runtime_checkable
class Engine(Protocol):
    """Generates text for the policies that share one model.

    Life: construct (cheap, no model) -> `await start()` (may take a minute; raises EnvironmentMissing with a remedy) ->
    any number of `generate` -> `await close()`.
    """

    capabilities: frozenset[Capability]
    """What this engine can do; `validate` refuses a YAML that needs more."""
    max_batch: int
    """The largest number of prompts one `generate` call takes."""
    is_continuous: bool
    """True if concurrent `generate` calls are batched inside the engine; False if one call at a time is best."""

    async def start(self) -> None: ...

    def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        """Apply the chat template once and cut what does not leave room for `sampling.max_tokens`.

        The rule of cutting: the first system message and the last message stay; the oldest messages in between go
        first, whole; then the last message loses tokens from its middle. `dropped` counts the lost tokens.
        """
        ...

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        """One sample per prompt, in order. `keys` name the counted random streams of engines that are `seeded`.

        Raises:
            EngineError: the engine failed or died; the supervisor may call again after `start`.
        """
        ...

    async def close(self) -> None:
        """Free the model and every process. Safe to call twice."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts on the engine for the run's record: versions, dtype, model hash, and what `auto` chose."""
        ...


@runtime_checkable
class Publishable(Protocol):
    """An engine whose weights can be replaced while it runs."""

    async def publish(self, weights: Weights) -> None:
        """Generate with these from now on; nothing may be in flight.

        An adapter of a new name is added; what was cached under an older version is not used again. `restart` of the
        engine (`close`, `start`) publishes the latest of each again.

        Raises:
            EngineError: they cannot be read, do not fit the model, or a random subset of the tensors that the engine
                holds afterwards is not what stands in the folder.
        """
        ...


@runtime_checkable
class Sleeper(Protocol):
    """An engine that can leave its device's memory to a learner."""

    async def sleep(self) -> None:
        """Give the memory back; nothing may be in flight. Does nothing if the engine's config does not want it.

        The engine wakes by itself: `publish` takes back what weights need, and `generate` the rest. So new weights come
        before there is a cache of keys and values again.
        """
        ...


@runtime_checkable
class GroupDecoder(Protocol):
    """An engine in which thinkers reply side by side and see each other's words as they are said."""

    async def generate_together(
        self,
        groups: Sequence[Sequence[EncodedPrompt]],
        sampling: Sampling,
        keys: Sequence[Sequence[Place]],
        sight: Sight,
    ) -> list[Sample]:
        """One sample per prompt, group after group; at every step each thinker of a group says one token.

        With sight of `all` the token that a thinker draws depends on its own prompt and on all that anybody of its
        group has said before, and on no other prompt. A thinker whose reply has ended says nothing more and goes on
        being seen. A group of one, and thinkers with sight of their `own` reply, say what `generate` gives.

        The prompts of a group name one adapter, and with sight of `all` leave room for the replies of all.

        Raises:
            EngineError: as `Engine.generate`, or the model's layers do not keep every token.
        """
        ...


@runtime_checkable
class Scorer(Protocol):
    """A teacher-forced pass over given tokens."""

    def score(self, ids: Sequence[TokenIds], signals: Sequence[str]) -> list[dict[str, Any]]:
        """Per sequence of T tokens a dict with the wanted signals, each float32 [T-1] for tokens 1..T-1.

        `logprobs` and `entropy` do not depend on what else is asked for, or on the other sequences; which heads count
        as local and global does, since they are ranked over all sequences of the call.

        Raises:
            EngineError: there is no such signal, or not of this model.
        """
        ...
