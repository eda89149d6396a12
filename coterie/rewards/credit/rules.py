"""The registered rules of token credit: what each reads, marks and conserves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from coterie import rng
from coterie.rewards.credit import redistribution, rhythm
from coterie.rewards.credit.selection import amplified, applies_to, normalise, restrict, top
from coterie.rewards.credit.steps import step_tokens
from coterie.rewards.credit.token import Conserved, Floats, Marks, ScoredReply, Weighed
from coterie.types import SignalRequest

if TYPE_CHECKING:
    from coterie.rewards.credit.config_token import (
        AbcConfig,
        CoupledConfig,
        EntropyConfig,
        FactorConfig,
        GlobalAnchorConfig,
        LocalChunkConfig,
        RandomConfig,
        StepInfluenceConfig,
    )


class _Rule:
    """What all rules share: signs, and factors of mean one.

    Attributes:
        wants: The signals it reads.
        bounds: Least and greatest factor, before any normalisation.
        scope: What is normalised together.
    """

    wants = SignalRequest()
    bounds: tuple[float, float]
    scope: Conserved = "reply"

    def __init__(self, config: FactorConfig) -> None:
        self.config = config

    @property
    def conserves(self) -> Conserved:
        """Each reply's, or the batch's, mean of factors is one if they are normalised."""
        return self.scope if self.config.normalise else "nothing"

    def weigh(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        """As `TokenCredit.weigh`."""
        found = self._choose(replies, seed, iteration)
        applies = [applies_to(reply.advantage, self.config.sign) for reply in replies]
        factors = [restrict(each.factor, at) for each, at in zip(found, applies, strict=True)]
        if self.conserves == "batch":
            factors = normalise(factors, applies)
        elif self.conserves == "reply":
            factors = [normalise([factor], [at])[0] for factor, at in zip(factors, applies, strict=True)]
        return [Weighed(factor, each.marks) for factor, each in zip(factors, found, strict=True)]

    def _choose(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        raise AssertionError("each rule has its own")


class LocalChunk(_Rule):
    """Tokens at which phrases begin."""

    config: LocalChunkConfig

    def __init__(self, config: LocalChunkConfig) -> None:
        super().__init__(config)
        self.bounds = (1.0, config.amplify)
        self.wants = SignalRequest(frozenset({"waad"}), window=config.window, **config.reads())

    def _choose(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        config = self.config
        return [_mark(rhythm.local_chunk(r.signal("waad"), config.top, config.amplify)) for r in replies]


class GlobalAnchor(_Rule):
    """Tokens that later ones read."""

    config: GlobalAnchorConfig

    def __init__(self, config: GlobalAnchorConfig) -> None:
        super().__init__(config)
        self.bounds = (1.0, config.amplify)
        self.wants = SignalRequest(frozenset({"fai"}), horizon=config.horizon, **config.reads())

    def _choose(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        config = self.config
        return [_mark(rhythm.global_anchor(_fai(r), config.top, config.amplify)) for r in replies]


class Coupled(_Rule):
    """Anchors, which share what they get with the tokens that introduce them."""

    config: CoupledConfig

    def __init__(self, config: CoupledConfig) -> None:
        super().__init__(config)
        self.bounds = (1.0, 1 + (1 + config.alpha) * (config.amplify - 1))
        wanted = SignalRequest(frozenset({"waad", "fai"}), window=config.window, horizon=config.horizon,
                               **config.reads())  # fmt: skip
        self.wants = wanted

    def _choose(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        config = self.config
        return [
            _mark(rhythm.coupled(
                reply.signal("waad"), _fai(reply), config.top, config.amplify, alpha=config.alpha,
                lookback=config.lookback, waad_quantile=config.waad_quantile, change_quantile=config.change_quantile,
            ))
            for reply in replies
        ]  # fmt: skip


class Entropy(_Rule):
    """Tokens of which the policy was least sure."""

    config: EntropyConfig
    wants = SignalRequest(frozenset({"entropy"}))

    def __init__(self, config: EntropyConfig) -> None:
        super().__init__(config)
        self.scope = config.scope
        self.bounds = min(config.low, config.high, 1.0), max(config.low, config.high, 1.0)

    def _choose(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        config, entropies = self.config, [reply.signal("entropy") for reply in replies]
        if config.scope == "reply":
            chosen = [top(entropy, config.top) for entropy in entropies]
        else:
            chosen = _top_of_all(replies, entropies, config.top)
        return [Weighed(np.where(at, config.high, config.low), {"chosen": at}) for at in chosen]


class Random(_Rule):
    """Tokens by counted draws: what any other rule must be better than."""

    config: RandomConfig

    def __init__(self, config: RandomConfig) -> None:
        super().__init__(config)
        self.bounds = (1.0, config.amplify)

    def _choose(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        def draw(reply: ScoredReply) -> Marks:
            count = len(reply.advantage)
            return top(rng.uniforms(seed, "credit", "random", iteration, reply.key, count=count), self.config.top)

        drawn = [draw(reply) for reply in replies]
        return [Weighed(amplified(at, self.config.amplify), {"chosen": at}) for at in drawn]


class Abc(_Rule):
    """A reply's advantage goes to its tokens by the attention that they receive."""

    config: AbcConfig
    bounds = 0.0, 1.0

    def __init__(self, config: AbcConfig) -> None:
        super().__init__(config)
        self.wants = SignalRequest(frozenset({"received"}), rows=config.rows)

    @property
    def conserves(self) -> Conserved:
        """Shares always have the mean one; what is still to come has it if it is normalised."""
        return "reply" if self.config.form == "share" else super().conserves

    def _choose(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        shares = [redistribution.abc_shares(reply.signal("received"), self.config.beta) for reply in replies]
        if self.config.form == "share":
            return [Weighed(each * len(each)) for each in shares]
        return [Weighed(redistribution.to_go(each)) for each in shares]


class StepInfluence(_Rule):
    """The tokens of steps that later steps look back to."""

    config: StepInfluenceConfig

    def __init__(self, config: StepInfluenceConfig) -> None:
        super().__init__(config)
        self.bounds = (1.0, config.amplify)
        self.wants = SignalRequest(frozenset({"influence"}), layers=config.layers, split=config.split,
                                   proximity=config.proximity)  # fmt: skip

    def _choose(self, replies: Sequence[ScoredReply], seed: int, iteration: int) -> list[Weighed]:
        chosen = [step_tokens(r.signal("influence"), r.signal("step"), self.config.top) for r in replies]
        return [Weighed(amplified(at, self.config.amplify), {"chosen": at}) for at in chosen]


def _fai(reply: ScoredReply) -> Floats:
    return rhythm.known_fai(reply.signal("fai"), reply.signal("fai_queries"))


def _mark(found: rhythm.Rhythm) -> Weighed:
    named = {"preplan": found.preplan, "anchor": found.anchor, "dominated": found.dominated}
    marks: Mapping[str, Marks] = {name: at for name, at in named.items() if at.any()}
    return Weighed(found.factor, marks)


def _top_of_all(replies: Sequence[ScoredReply], values: Sequence[Floats], share: float) -> list[Marks]:
    """The top `share` of all tokens of all replies, whatever the order of replies."""
    order = sorted(range(len(replies)), key=lambda number: replies[number].key)
    chosen = top(np.concatenate([values[number] for number in order] or [np.zeros(0)]), share)
    ends = np.cumsum([len(values[number]) for number in order])
    parts = dict(zip(order, np.split(chosen, ends[:-1]), strict=False))
    return [parts[number] for number in range(len(replies))]
