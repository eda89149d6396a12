"""Configs of contributions and of the plainest reward. Imports nothing heavy."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from coterie.config.base import KindConfig

MAX_ENUMERATED = 14
"""The most players whose coalitions are all looked at: 16384."""


class RewardConfig(KindConfig):
    """What every reward has."""

    of_judgements: ClassVar[bool] = False
    """It reads what agents judge of each other: it wants a protocol in which they do."""
    weight: float = 1.0
    """Its share in what is learnt from, which is the weighted sum of all rewards; 0: it is only journalled."""


class VerifierConfig(RewardConfig):
    """Rewards by the benchmark's grader: the verifiable reward of RLVR."""

    kind: Literal["verifier"] = "verifier"
    right: float = 1.0
    wrong: float = 0.0
    unparsed: float = 0.0
    """For a reply that holds no answer."""


class PsiConfig(KindConfig):
    """Contribution: cosine to the mean embedding (SelfOrg, arXiv 2510.00685)."""

    kind: Literal["psi"] = "psi"


class SoftmaxPsiConfig(KindConfig):
    """Contribution: softmax of the cosines to the mean embedding, negative ones as 0 (SelfOrg's public code)."""

    kind: Literal["softmax_psi"] = "softmax_psi"
    temperature: float = Field(0.1, gt=0)
    """The smaller, the more the nearest to the mean stands out."""


class ExactConfig(KindConfig):
    """Contribution: Shapley values of the embeddings by enumeration, for at most 14 agents."""

    max_agents: ClassVar[int] = MAX_ENUMERATED
    kind: Literal["exact"] = "exact"


class BanzhafConfig(KindConfig):
    """Contribution: Banzhaf values of the embeddings by enumeration, for at most 14 agents."""

    max_agents: ClassVar[int] = MAX_ENUMERATED
    kind: Literal["banzhaf"] = "banzhaf"


class LeaveOneOutConfig(KindConfig):
    """Contribution: how far the agent alone turns the society's embedding; highest for dissenters."""

    kind: Literal["leave_one_out"] = "leave_one_out"


class PermutationConfig(KindConfig):
    """Contribution: Shapley values of the embeddings, sampled, with standard errors; any number of agents."""

    kind: Literal["permutation"] = "permutation"
    num_permutations: int = Field(256, ge=4, le=65_536, multiple_of=2)
    """Random orders of the agents, each followed by its reverse."""
