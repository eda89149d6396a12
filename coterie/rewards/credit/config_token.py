"""Configs of token credit. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from coterie.config.base import KindConfig
from coterie.types import Split

Tokens = Annotated[int, Field(ge=0)]


class TokenCreditConfig(KindConfig):
    """What every rule has."""

    reads_attention: ClassVar[bool] = False
    """It is refused for models too small and replies too short for attention to say something."""
    replays: ClassVar[bool] = False
    """It has replies drawn anew from within."""
    keep: int = Field(32, ge=0)
    """Turns per iteration and policy of which the journal keeps what became of each token, for a person to look at."""


class FactorConfig(TokenCreditConfig):
    """What rules have that multiply advantages."""

    sign: Literal["both", "positive", "negative"] = "both"
    """Which advantages are changed; `positive` and `negative` leave the others as they are."""
    normalise: bool = False
    """Divide factors by their mean over the tokens of a reply (of a batch, where tokens of a batch are compared), so
    that advantages are moved and none are minted: what a control for a greater step needs."""


class AttentionCreditConfig(FactorConfig):
    """Rules that read the policy's own attention."""

    reads_attention: ClassVar[bool] = True
    least_layers: int = Field(12, ge=1)
    """Models with fewer layers are refused at the start."""
    least_tokens: int = Field(80, ge=1)
    """A training is refused if half of the first iteration's replies of a policy are shorter."""


class RhythmConfig(AttentionCreditConfig):
    """Rules of the preplan-and-anchor rhythm (arXiv 2510.13554), with what was published as defaults."""

    top: float = Field(0.4, gt=0, le=1)
    """Share of a reply's tokens that are chosen."""
    amplify: float = Field(1.5, ge=1)
    """Factor of the advantage of a chosen token."""
    layers: int = Field(5, ge=1)
    """How many layers are read, evenly spaced over the middle third."""
    local: float = Field(0.3, gt=0, le=1)
    """Share of their heads that are local: those of the shortest mean span over replies."""
    distant: float = Field(0.3, gt=0, le=1)
    """Share of their heads that are global: those of the longest."""
    without_sink: bool = False
    """Leave what heads park on the first token out of their span."""
    calibration: int = Field(100, ge=1)
    """Replies, at most, by whose spans heads get their roles, in the first iteration."""
    reclassify_every: int = Field(0, ge=0)
    """Iterations from one assignment of roles to the next; 0: they stay as the first iteration made them."""

    def reads(self) -> dict[str, Any]:
        """Which layers and heads."""
        return {name: getattr(self, name) for name in ("layers", "local", "distant", "without_sink")}


class LocalChunkConfig(RhythmConfig):
    """Amplifies tokens where a phrase begins: the greatest changes of WAAD (arXiv 2510.13554)."""

    kind: Literal["local_chunk"] = "local_chunk"
    window: int = Field(10, ge=1)
    """W of WAAD: distances beyond it count as W."""


class AnchorConfig(RhythmConfig):
    """Rules that look for tokens which later ones read."""

    horizon: tuple[Tokens, Tokens | None] = (10, 100)
    """A token is read by those from so many to so many tokens later; `[10, 50]` in the paper's first version, null: to
    the reply's end."""

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        low, high = self.horizon
        if high is not None and high < low:
            raise ValueError("the horizon ends before it begins")
        return self


class GlobalAnchorConfig(AnchorConfig):
    """Amplifies tokens that many later ones read: the highest FAI (arXiv 2510.13554)."""

    kind: Literal["global_anchor"] = "global_anchor"


class CoupledConfig(AnchorConfig):
    """Anchors, of which those that a phrase begins before hand a part on to where it begins (arXiv 2510.13554)."""

    kind: Literal["coupled"] = "coupled"
    window: int = Field(10, ge=1)
    """W of WAAD: distances beyond it count as W."""
    alpha: float = Field(0.5, ge=0, le=1)
    """Part of the bonus that such an anchor hands on; the paper gives no number."""
    lookback: int = Field(3, ge=1)
    """Tokens before an anchor in which it may be introduced; 1 to 3 in the paper."""
    waad_quantile: float = Field(0.5, ge=0, le=1)
    """An anchor hands on only if its WAAD is at most this quantile of the reply's; the paper gives no number."""
    change_quantile: float = Field(0.5, ge=0, le=1)
    """And if WAAD changes before it by at least this quantile of the reply's changes; likewise."""


class EntropyConfig(FactorConfig):
    """Learns from the tokens of which the policy was least sure (80/20, arXiv 2506.01939)."""

    kind: Literal["entropy"] = "entropy"
    top: float = Field(0.2, gt=0, le=1)
    """Share of tokens that are chosen."""
    high: float = Field(1.0, ge=0)
    """Factor of the chosen."""
    low: float = Field(0.0, ge=0)
    """Factor of the others; 0: nothing is learnt from them."""
    scope: Literal["reply", "batch"] = "batch"
    """Tokens of one reply are compared, or all that a policy learns from in an iteration."""


class RandomConfig(FactorConfig):
    """Amplifies tokens drawn by lot: the control that a claim of any other rule must beat."""

    kind: Literal["random"] = "random"
    top: float = Field(0.4, gt=0, le=1)
    """Share of a reply's tokens that are drawn."""
    amplify: float = Field(1.5, ge=1)
    """Factor of the advantage of a drawn token."""


class AbcConfig(AttentionCreditConfig):
    """Redistributes a reply's advantage by attention (ABC, arXiv 2402.00782, by the policy's own: ABC-D)."""

    kind: Literal["abc"] = "abc"
    beta: float = Field(0.5, ge=0, le=1)
    """Part that goes by attention; the rest stays at the last token."""
    rows: Literal["last", "later"] = "last"
    """Attention of the last token, or the mean over all tokens from a token itself on; of the last layer's heads."""
    form: Literal["to_go", "share"] = "to_go"
    """`to_go`: shares are rewards, and a token is worth what is still to come. `share`: a token is worth its own."""


class StepInfluenceConfig(AttentionCreditConfig):
    """Amplifies the steps that later steps look back to (future attention influence, arXiv 2509.26628)."""

    kind: Literal["step_influence"] = "step_influence"
    top: float = Field(0.2, gt=0, le=1)
    """Share of a reply's steps that are chosen."""
    amplify: float = Field(1.5, ge=1)
    """Factor of the advantage of their tokens; ours, as there steps are where search goes on."""
    layers: int = Field(5, ge=1)
    """How many layers are read, evenly spaced over the middle third; a step's influence is its greatest in any head."""
    split: Split = "paragraph"
    """What ends a step: an empty line, a line, or a sentence."""
    proximity: int = Field(4, ge=1)
    """Influence is on steps at least so many later."""


class ValueCreditConfig(TokenCreditConfig):
    """What rules have by which a step of a reply is worth the change of the reply's value."""

    replays: ClassVar[bool] = True
    draws: int = Field(9, ge=1)
    """How often a reply is drawn anew from the beginning of each step, for the mean of what it earns."""
    normalise: bool = False
    """Scale what a step is worth by its share of the tokens, so that the mean over a reply's tokens, and not the sum
    over its steps, is what the reply earned more than its prompt was worth."""


class VineConfig(ValueCreditConfig):
    """A step is worth what it changes of the reply's value, by replies drawn anew (VinePPO, arXiv 2410.01679)."""

    kind: Literal["vine"] = "vine"
    split: Split = "line"
    """What ends a step: an empty line, a line, or a sentence."""


class SpoConfig(ValueCreditConfig):
    """The same of segments: Segment Policy Optimization, in a chain (arXiv 2505.23564)."""

    kind: Literal["spo"] = "spo"
    cut: Literal["cutpoints", "tokens"] = "cutpoints"
    """What is counted: tokens that had not been sure to come, or all."""
    every: int = Field(5, ge=1)
    """How many of these a segment has."""
    sure: float = Field(0.9, gt=0, le=1)
    """From which probability on a token was sure to come."""
    mask: bool = True
    """Nothing is learnt from tokens that were sure, but in segments that have no others."""
