"""How far a society's replies to one task agree, and whether that tells right from wrong.

Internal consistency as arXiv 2407.14507 frames it: a signal on a set of replies Y, without gold. Every measure names
the access to the model that it needs: `black box` the text alone, `grey box` token probabilities, `white box`
activations (none here: a journal holds no activations). Entropies are in bits.

Two replies mean the same where their canonical answers are equal (`envs.answers`); no model judges that. An unparsed
reply is no answer; where replies are clustered by meaning it is a cluster of its own, as it agrees with nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

Access = Literal["black box", "grey box", "white box"]
Answers = Sequence[str | None]
_BINS = 10


@dataclass(frozen=True, slots=True)
class Measure:
    """A signal on the answers of one round. `sign` is +1 where more of it means more consistent, else -1."""

    access: Access
    sign: int
    of: Callable[[Answers], float]
    is_share: bool = False
    """Between 0 and 1, and read as a confidence: its calibration error means something."""


def answer_entropy(answers: Answers) -> float:
    """Entropy of the distribution over parsed answers; nan where none was parsed."""
    return _entropy(list(Counter(answer for answer in answers if answer is not None).values()))


def semantic_entropy(answers: Answers) -> float:
    """Discrete semantic entropy (arXiv 2302.09664; Nature 630, 2024): entropy over clusters of equal meaning."""
    return _entropy(_clusters(answers))


def distinct_ratio(answers: Answers) -> float:
    """Clusters of equal meaning per reply: 1/n where all agree, 1 where none do."""
    return len(_clusters(answers)) / len(answers)


def vote_share(answers: Answers) -> float:
    """The share of all replies that give the most frequent answer; 0 where none was parsed."""
    return _top(answers)[0] / len(answers)


def vote_margin(answers: Answers) -> float:
    """By what share of all replies the most frequent answer leads the next one."""
    first, second = _top(answers)
    return (first - second) / len(answers)


MEASURES: dict[str, Measure] = {
    "answer_entropy": Measure("black box", -1, answer_entropy),
    "semantic_entropy": Measure("black box", -1, semantic_entropy),
    "distinct_ratio": Measure("black box", -1, distinct_ratio),
    "vote_share": Measure("black box", 1, vote_share, is_share=True),
    "vote_margin": Measure("black box", 1, vote_margin),
}


def reply_confidence(logprobs: Sequence[Sequence[float]]) -> float:
    """Mean over replies of the geometric mean probability of their tokens; nan without tokens. Grey box."""
    values = [math.exp(sum(row) / len(row)) for row in logprobs if row]
    return sum(values) / len(values) if values else float("nan")


def likelihood_semantic_entropy(answers: Answers, logprobs: Sequence[Sequence[float]]) -> float:
    """Semantic entropy whose clusters weigh as their replies' length-normalised likelihoods. Grey box.

    Args:
        answers: Of the replies.
        logprobs: Of each reply's tokens, in nats.
    """
    weights: dict[object, float] = {}
    for index, (answer, row) in enumerate(zip(answers, logprobs, strict=True)):
        cluster: object = index if answer is None else answer
        weights[cluster] = weights.get(cluster, 0.0) + (math.exp(sum(row) / len(row)) if row else 0.0)
    return _entropy(list(weights.values()))


def calibration_error(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Expected calibration error over 10 bins of equal width (arXiv 1706.04599); nan without data.

    A confidence on the border of two bins belongs to the lower one.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if sure.size == 0:
        return float("nan")
    bins = np.clip(np.ceil(sure * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    gaps = np.bincount(bins, weights=right, minlength=_BINS) - np.bincount(bins, weights=sure, minlength=_BINS)
    return float(np.abs(gaps).sum() / sure.size)


def auroc(scores: ArrayLike, correct: ArrayLike) -> float:
    """The chance that a right one scores above a wrong one, ties counting half; nan where there is only one kind."""
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    good, bad = values[right], values[~right]
    if not good.size or not bad.size:
        return float("nan")
    return float(stats.mannwhitneyu(good, bad).statistic / (good.size * bad.size))


def _clusters(answers: Answers) -> list[int]:
    """Sizes of the clusters of equal meaning."""
    counts = Counter(answer for answer in answers if answer is not None)
    return [*counts.values(), *[1] * (len(answers) - counts.total())]


def _top(answers: Answers) -> tuple[int, int]:
    """Votes for the most frequent answer and for the next."""
    counts = sorted(Counter(answer for answer in answers if answer is not None).values(), reverse=True)
    first, second = [*counts, 0, 0][:2]
    return first, second


def _entropy(weights: Sequence[float]) -> float:
    total = sum(weights)
    if total <= 0:
        return float("nan")
    # Not -0.0 where all agree.
    return abs(sum(w / total * math.log2(total / w) for w in weights if w > 0))
