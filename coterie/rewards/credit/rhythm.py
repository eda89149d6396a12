"""The preplan-and-anchor rhythm of arXiv 2510.13554: factors from WAAD and FAI.

Local heads look back far where a phrase begins ("preplan"), which the change of WAAD shows; tokens that many later ones
read ("anchors") have a high FAI. Thresholds, k and which token introduces an anchor are left open there: the medians,
3 and the greatest change are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coterie.rewards.credit.selection import amplified, top
from coterie.rewards.credit.token import Floats, Marks


class Rhythm(NamedTuple):
    """Of a reply with T tokens: the factors, and the tokens they come from, bool [T] each."""

    factor: Floats
    preplan: Marks
    anchor: Marks
    dominated: Marks


def differences(waad: Floats) -> Floats:
    """|WAAD_t - WAAD_{t+1}|, [T]; the last token, after which nothing comes, has NaN (section 5.2)."""
    return np.append(np.abs(np.diff(waad)), np.nan)[: len(waad)]


def known_fai(fai: Floats, queries: Floats) -> Floats:
    """FAI, NaN where no token of the reply lies in the horizon: those are no anchors, and no part of the quantile."""
    return np.where(queries > 0, fai, np.nan)


def local_chunk(waad: Floats, share: float, amplify: float) -> Rhythm:
    """gamma_t = 1 + (amplify - 1) * 1[t in the top `share` of changes of WAAD] (section 5.2, local-chunk credit)."""
    preplan = top(differences(waad), share)
    nothing = np.zeros(len(waad), np.bool_)
    return Rhythm(amplified(preplan, amplify), preplan, nothing, nothing)


def global_anchor(fai: Floats, share: float, amplify: float) -> Rhythm:
    """gamma_t = 1 + (amplify - 1) * 1[t in the top `share` of FAI] (section 5.2, global-anchor credit)."""
    anchor = top(fai, share)
    nothing = np.zeros(len(fai), np.bool_)
    return Rhythm(amplified(anchor, amplify), nothing, anchor, nothing)


def coupled(
    waad: Floats, fai: Floats, share: float, amplify: float, *, alpha: float, lookback: int, waad_quantile: float,
    change_quantile: float,
) -> Rhythm:  # fmt: skip
    """Anchors hand part of their bonus to the token that introduces them (section 5.2, eq. 18 and 19).

    An anchor t is dominated if WAAD_t is at most its quantile, and one of the changes of the `lookback` tokens before t
    is at least theirs. With b = amplify - 1 the factor is 1 plus b for an anchor that is not dominated, (1 - alpha) b
    for one that is, and alpha b for a token that introduces at least one: the greatest change of those `lookback`, the
    earliest of equal ones. The terms add up; `preplan` are the tokens that introduce.

    Args:
        waad: [T].
        fai: [T], NaN where it is not known.
        share: Of tokens that are anchors.
        amplify: Factor of an anchor that is not dominated.
        alpha: Part of the bonus that a dominated anchor hands on.
        lookback: Tokens before an anchor in which it may be introduced.
        waad_quantile: Of the reply's WAAD, up to which an anchor may be dominated.
        change_quantile: Of the reply's changes of WAAD, from which on one introduces.
    """
    change, anchor = differences(waad), top(fai, share)
    dominated, intro = np.zeros_like(anchor), np.zeros_like(anchor)
    if len(waad) > 1:
        low, high = np.quantile(waad, waad_quantile), np.quantile(change[:-1], change_quantile)
        for t in np.flatnonzero(anchor & (waad <= low)):
            before = change[max(t - lookback, 0) : t]
            if len(before) and before.max() >= high:
                dominated[t] = True
                intro[t - len(before) + int(before.argmax())] = True
    bonus = (anchor & ~dominated) + (1 - alpha) * dominated + alpha * intro
    return Rhythm(amplified(bonus, amplify), intro, anchor, dominated)
