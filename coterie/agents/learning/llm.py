"""Language models that learn from turns by policy gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.agents.learning import aggregation, bases, forcing, kl
from coterie.agents.learning.critic import Critic
from coterie.agents.learning.examples import Example, in_order
from coterie.agents.learning.lessons import Lesson, Tally, minibatches, told_before
from coterie.agents.learning.llm_settings import LLMSettings
from coterie.agents.learning.optimisers import Optimiser
from coterie.agents.learning.passes import Passes, reading
from coterie.agents.learning.ranks import Ranks, whole
from coterie.agents.learning.signals import Roles, SignalReader, SpanReader
from coterie.attention.interception import count_layers
from coterie.errors import LearningError
from coterie.text import number_steps
from coterie.types import SignalRequest


class LanguageLearner:
    """Trains policies that share one model in memory: one with full weights, or any number of LoRA adapters.

    Args:
        model: A folder as transformers writes it (`engines.models.resolve` gives one), or a hub id.
        policies: Who learns. Several take `settings.lora`.
        settings: See there.
        device: `cpu`, `cuda`, or `auto`.
        seed: Of the first weights of adapters and of minibatches; nothing else is random.
        ranks: Processes of which this is one. All of them have to make the same calls, and get the same results.

    On a CPU the same calls give the same weights, bit for bit, with as many threads.

    Raises:
        LearningError: Turns cannot be packed for this model, or several policies shall train all of its weights.
        EnvironmentMissing: The model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        policies: Sequence[str],
        settings: LLMSettings,
        device: str,
        seed: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.settings, self.seed, self.device = settings, seed, bases.pick_device(device)
        self._folder, self._tokenizer = model, cast(Any, None)
        dtype, self._ranks = bases.pick_precision(settings, self.device), ranks or Ranks()
        self._passes = Passes(self.device, dtype, self._ranks, settings.micro_batch_tokens)
        self._base = bases.make(model, policies, settings, self.device, dtype, seed, self._ranks)
        with self._passes.computing():
            forcing.check(self._base.teacher, self.device)
        if settings.gradient_checkpointing:
            self._base.teacher.model.gradient_checkpointing_enable({"use_reentrant": False})
        self._base.shard()
        self._optimisers = {policy: Optimiser(self._base.parameters(policy), settings) for policy in policies}
        width = self._base.teacher.model.config.get_text_config().hidden_size
        self._critics = {
            policy: Critic(width, settings, settings.critic, self._passes.kept, self.device)
            for policy in policies
            if settings.critic is not None
        }

    def logprobs(self, policy: str, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
        """Of each token of each reply, [T] each, under a policy as it is now."""
        self._know(policy)
        with self._base.acting(policy):
            return _cut(self._passes.measure(self._base.teacher, examples)[0], examples)

    def count_layers(self) -> int:
        """Of the model, windows and all."""
        return count_layers(self._base.teacher.model)

    def score(
        self, policy: str, examples: Sequence[Example], request: SignalRequest, roles: Roles | None = None
    ) -> list[dict[str, NDArray[np.floating[Any]]]]:
        """Of each token of each reply `old` (log-probabilities), `entropy` and what is requested, [T] each.

        With a critic also `value`, what it expected before each.
        One pass, the one that `update` begins with: it is left out there if `old` and `entropy` stand in its examples.
        Signals do not depend on which turns are scored together, but for rounding.

        Args:
            policy: As it is now.
            examples: Each with a token at least; advantages do not matter.
            request: Signals from attention (`waad`, `fai` with `fai_queries`, the number of tokens that it is a mean
                over; `received`; `influence` with `step`) and how they are read.
            roles: As `assign_roles` gave them; needed for `waad` and `fai`.

        Raises:
            LearningError: The attention of this model cannot be read.
        """
        self._know(policy)
        model = self._base.teacher.model
        steps = self._number_steps(examples, request) if "influence" in request.names else ()
        reader = SignalReader(model, request, roles, steps) if request.names - {"entropy"} else None
        with self._base.acting(policy), reading():
            found = self._passes.measure(self._base.teacher, examples, self._critics.get(policy), reader)
        valued = ("value",) if policy in self._critics else ()
        names = ("old", "entropy", *valued, *(reader.rows if reader else ()))
        lengths = [len(example.token_ids) for example in examples]
        parts = zip(*(torch.split(row, lengths) for row in found), strict=True)
        return [{name: part.numpy() for name, part in zip(names, each, strict=True)} for each in parts]

    def assign_roles(self, policy: str, examples: Sequence[Example], request: SignalRequest) -> Roles:
        """Which heads of the layers in the middle are local and which are global, by their spans over replies.

        Raises:
            LearningError: There is no reply, or the attention of this model cannot be read.
        """
        self._know(policy)
        if not examples:
            raise LearningError("heads get their roles by replies, and there is none", where=f"policy {policy}",
                                remedy="train with more tasks or longer replies")  # fmt: skip
        with self._base.acting(policy), reading():
            reader = SpanReader(self._base.teacher.model, request)
            return reader.assign(self._passes.spans(self._base.teacher, examples, reader))

    def influence(
        self, policy: str, examples: Sequence[Example], labels: Sequence[NDArray[np.int64]], layers: int = 5
    ) -> list[NDArray[np.float32]]:
        """The share of its attention that each reply pays to tokens of each label; see `attending.attend`.

        Args:
            policy: As it is now.
            examples: Turns; one without a token pays none.
            labels: Of each, from 0, for each token of prompt and reply.
            layers: How many, evenly spaced in the middle third.

        Raises:
            LearningError: Labels do not fit, or the attention of this model cannot be read.
        """
        self._know(policy)
        with self._base.acting(policy), reading():
            return self._passes.influence(self._base.teacher, examples, labels, layers)

    def _number_steps(self, examples: Sequence[Example], request: SignalRequest) -> list[Tensor]:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
        pieces = {token: str(self._tokenizer.decode([token])) for e in examples for token in e.token_ids}
        texts = ([pieces[token] for token in example.token_ids] for example in examples)
        return [torch.tensor(number_steps(text, request.split), dtype=torch.long) for text in texts]

    def reference_logprobs(self, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
        """The same of the model before training.

        Raises:
            LearningError: All weights are trained, and `kl` is not wanted, so that no copy is kept.
        """
        return _cut(self._refer(examples), examples)

    def _refer(self, examples: Sequence[Example]) -> Tensor:
        if self.settings.lora is None and self.settings.kl is None:
            raise LearningError("the model as it was before training is not kept", where="learning.kl",
                                remedy="set learning.kl, or learning.lora")  # fmt: skip
        with self._base.reference() as teacher:
            return self._passes.measure(teacher, examples)[0]

    def update(self, policy: str, examples: Sequence[Example], *, iteration: int) -> dict[str, float]:
        """Learn from turns, whose order does not matter.

        Ratios are against the policy as it is at the start, whatever the engine computed; how far those two are apart
        is corrected by `settings.correction`.

        Turns whose advantage is 0 count in every mean, but are not computed again, as nothing is learnt from them; a
        minibatch with no others makes no step.

        Args:
            policy: Who said them.
            examples: A key twice is one turn; turns without tokens teach nothing. With a critic they have `value` and
                `target`.
            iteration: Of the training; decides which turns come together in a minibatch.

        Returns:
            Metrics over all tokens, and of each role as `role/metric`; see `lessons.Tally`.

        Raises:
            LearningError: A loss or a gradient is no number, or there is a critic and nothing that it could learn from.
        """
        self._know(policy)
        known = in_order(examples)
        with self._base.acting(policy):
            lesson = self._prepare(known)
            tally = Tally(lesson)
            for epoch in range(self.settings.epochs):
                coordinates = ("minibatches", policy, iteration, epoch)
                count = self.settings.updates // self.settings.epochs
                for chosen in minibatches(known, count, self.seed, *coordinates):
                    part, where = lesson.part(chosen), f"policy {policy}, iteration {iteration}"
                    if part.teaching():
                        self._step(policy, part, tally, where)
            self._optimisers[policy].zero()
            return tally.metrics(self.settings)

    def _know(self, policy: str) -> None:
        if policy not in self._optimisers:
            raise LearningError(f"no policy {policy!r} learns here", remedy=f"known: {', '.join(self._optimisers)}")

    def _prepare(self, examples: Sequence[Example]) -> Lesson:
        told = told_before(examples, self._passes.kept)
        old, entropy = self._passes.measure(self._base.teacher, examples) if told is None else told
        wants_reference = self.settings.kl is not None and self.settings.kl.at == "loss"
        reference = self._refer(examples) if wants_reference else None
        lesson = Lesson.of(examples, old, entropy, reference, self.settings.correction)
        if self.settings.critic is not None and examples and (lesson.value is None or lesson.target is None):
            raise LearningError("a critic learns from what each token's value was and should have been, and it is not "
                                "told", remedy="score turns first, and estimate advantages with gae")  # fmt: skip
        return lesson

    def _step(self, policy: str, lesson: Lesson, tally: Tally, where: str) -> None:
        """Learn from a minibatch."""
        optimiser, critic = self._optimisers[policy], self._critics.get(policy)
        optimiser.zero()
        if critic:
            critic.zero()
        losses = self._differentiate(lesson, critic, tally, where)
        tally.step(*losses, *optimiser.step(where))
        if critic:
            critic.step(self._ranks, where)

    def _differentiate(self, lesson: Lesson, critic: Critic | None, tally: Tally, where: str) -> tuple[float, float]:
        """Add the gradient of a minibatch to the parameters; its loss, and that of the critic."""
        settings = self.settings
        weight = aggregation.token_weights(
            lesson.replies, lesson.roles, lesson.counts, settings.aggregation, settings.norm_length,
            settings.equal_roles,
        )  # fmt: skip
        teaching = lesson.teaching()
        weight, lesson = weight[lesson.places.of(teaching)], lesson.part(teaching)
        places = lesson.places
        now = torch.zeros(places.count, dtype=self._passes.kept, device=self.device)
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        for batch, is_ours in self._passes.share(lesson.examples):
            rows = places.of(batch.turns)
            with self._passes.computing():
                forced = self._base.teacher(batch)
            losses = torch.stack([
                self._loss(forced.log_prob, lesson, rows, weight[rows] * is_ours),
                critic.loss(forced.hidden, lesson, rows, weight[rows] * is_ours) if critic else totals.new_zeros(()),
            ])  # fmt: skip
            losses.sum().backward()  # type: ignore[no-untyped-call]
            if is_ours:
                now[rows.to(self.device)] = forced.log_prob.detach()
                totals += losses.detach()
        everywhere, (loss, value_loss) = self._ranks.sum(now).cpu(), self._ranks.sum(totals).tolist()
        lesson.refuse_broken(everywhere, loss + value_loss, where)
        tally.add(lesson, everywhere)
        return loss, value_loss

    def _loss(self, log_prob: Tensor, lesson: Lesson, rows: Tensor, weight: Tensor) -> Tensor:
        """What a micro-batch adds to the loss of its minibatch."""
        kept = lesson.counts[rows].nonzero()[:, 0]
        chosen, log_prob = rows[kept], log_prob[kept.to(log_prob.device)]
        old, advantage, correction = (
            numbers[chosen].to(log_prob) for numbers in (lesson.old, lesson.advantage, lesson.weight)
        )
        replies = lesson.replies[chosen].to(log_prob.device)
        terms = self.settings.loss.terms(log_prob - old, advantage, replies) * correction
        if lesson.reference is not None and self.settings.kl is not None:
            reference = lesson.reference[chosen].to(log_prob)
            terms = terms + self.settings.kl.weight * kl.estimate(log_prob, reference, self.settings.kl.estimator)
        return (terms * weight[kept].to(log_prob)).sum()

    def weights(self, policy: str) -> dict[str, Tensor]:
        """What is trained of a policy, on the CPU; not copies where it is there already."""
        self._know(policy)
        return {name: whole(tensor).cpu() for name, tensor in self._base.parameters(policy).items()}

    def optimiser_state(self, policy: str) -> dict[str, Tensor]:
        """What AdamW remembers, by parameter, and how many steps were made; likewise. And the critic, as `critic.*`."""
        self._know(policy)
        critic = self._critics.get(policy)
        return self._optimisers[policy].state() | (critic.state() if critic else {})

    @torch.no_grad()
    def load(self, policy: str, weights: Mapping[str, Tensor], optimiser: Mapping[str, Tensor]) -> None:
        """Put back what `weights` and `optimiser_state` gave: the next update is then the same, bit for bit.

        Raises:
            ResumeError: They are of another model, or of other adapters.
        """
        self._know(policy)
        self._optimisers[policy].load(weights, optimiser)
        if policy in self._critics:
            self._critics[policy].load(optimiser)

    def export(self, policy: str, folder: Path) -> None:
        """Write what engines load, whole or not at all: an adapter as peft does, or a model with its tokenizer."""
        self._know(policy)
        self._base.export(policy, folder)

    def close(self) -> None:
        """Nothing is to be ended: all of it is in this process."""


def _cut(numbers: Tensor, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
    parts = torch.split(numbers.float(), [len(example.token_ids) for example in examples])
    return [part.numpy() for part in parts]
