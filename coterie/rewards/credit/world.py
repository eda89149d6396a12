"""How a team's reward becomes each agent's, at every step of a world: pure functions of tensors [T, E, N].

A rule sees what a team earns together at a step, S, and who was there, M agents, and nothing of who earned what. Where
nothing is known of that, all get the same: S / M. The sums are float64 and what comes back is float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from coterie.errors import CreditError

_CLOSE = 1e-5
"""What rounding to float32 may do, as a share of all that is given and taken."""


class Shares(NamedTuple):
    """What agents learn from instead of what the world gave them.

    Attributes:
        reward: float32 [T, E, N], zero for those that were not there.
        foreseen: The mean of a team's reward as the rule expected it, float32 [T, E, N]; None: it expects nothing.
    """

    reward: Tensor
    foreseen: Tensor | None = None


def earn_together(reward: Tensor, alive: Tensor) -> Tensor:
    """S, what the agents of a team that were there earn together: float64 [T, E, 1]."""
    return (reward.double() * alive).sum(-1, keepdim=True)


def average(reward: Tensor, alive: Tensor) -> Tensor:
    """S / M, float64 [T, E, 1]; 0 where nobody was there."""
    return earn_together(reward, alive) / alive.sum(-1, keepdim=True).clamp(min=1)


def share_equally(reward: Tensor, alive: Tensor) -> Tensor:
    """The same for all that were there, S / M, which keeps S."""
    return (average(reward, alive) * alive).float()


def complete(guess: Tensor, reward: Tensor, alive: Tensor) -> Tensor:
    """Guesses of what each agent earned, with what they miss of S shared equally, so that S is kept.

        r_i = p_i + (S - sum_j p_j) / M

    Whatever the guesses are worth, no reward is minted or lost (return equivalence, as in TAR2, arXiv 2502.04864).

    Args:
        guess: p, of each agent.
        reward: What the world gave.
        alive: Who was there, bool.
    """
    missed = average(reward, alive) - average(guess, alive)
    return ((guess.double() + missed) * alive).float()


def weigh_window(differences: Tensor, lasts: Tensor, discount: float) -> Tensor:
    """Means over a window of steps, discounted, of differences [H, E, N]; those after an episode's end do not count.

    Args:
        differences: Between what a team earned and what it would have earned.
        lasts: Whether a step belongs to the episode in which the window begins, bool [H, E].
        discount: Gamma; of a step's weight, for each step since the first.
    """
    powers = discount ** torch.arange(len(differences), dtype=torch.float64, device=differences.device)
    weight = powers[:, None, None] * lasts[..., None]
    return (differences.double() * weight).sum(0) / weight.sum(0).clamp(min=1e-12)


def fill_steps(found: Tensor, chosen: Tensor, mean: Tensor, begins: Tensor, fraction: float) -> Tensor:
    """Differences at every step from those at the steps that were chosen: each has the right expectation.

        r_t = b_t + 1[t is chosen] (d_t - b_t) / p        b_t = S_t / M_t + d_u - S_u / M_u

    with u the last step before t that was chosen, in this episode; without one b_t = S_t / M_t. As b_t does not depend
    on whether t is chosen, the mean of r_t over the draws is d_t, whatever b_t is worth (the difference estimator of
    survey sampling). With p = 1 it is d_t.

    Args:
        found: d, [T, E, N]; not read where not chosen.
        chosen: bool [T], each drawn with probability p.
        mean: S / M, [T, E, 1].
        begins: Whether an episode begins at a step, bool [T, E].
        fraction: p, above 0.
    """
    filled, held = torch.zeros_like(found), torch.zeros_like(found[0])
    for t, is_chosen in enumerate(chosen.tolist()):
        held = torch.where(begins[t, :, None], torch.zeros_like(held), held)
        filled[t] = mean[t] + held
        if is_chosen:
            filled[t] += (found[t] - filled[t]) / fraction
            held = found[t] - mean[t]
    return filled


def check_conserved(shared: Tensor, reward: Tensor, alive: Tensor) -> None:
    """Hold a rule that promises to keep what teams earn to it.

    Raises:
        CreditError: At some step what agents were given does not add up to what their team earned, or is no number.
    """
    given, earned = earn_together(shared, alive), earn_together(reward, alive)
    size = ((shared.double().abs() + reward.double().abs()) * alive).sum(-1, keepdim=True)
    # Not `>`: what is no number is not close to anything.
    broken = (~((given - earned).abs() <= _CLOSE * size + 1e-30)).nonzero()
    if len(broken):
        t, env, _ = broken[0].tolist()
        raise CreditError(
            f"a team earned {float(earned[t, env, 0]):.9g}, and its agents were given {float(given[t, env, 0]):.9g}",
            where=f"step {t} of the rollout, environment {env}", remedy="mend the rule of world credit",
        )  # fmt: skip


def agree(shared: Tensor, reward: Tensor, alive: Tensor) -> float:
    """Correlation, within teams, of what agents were given with what the world gave each by itself; 0 if undefined."""
    both = [(part.double() - average(part, alive))[alive] for part in (shared, reward)]
    size = (both[0].square().sum() * both[1].square().sum()).sqrt()
    return float((both[0] * both[1]).sum() / size) if float(size) > 0 else 0.0
