"""The config of CoMAS's interaction, with every switch in which its article and its public code differ."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from coterie.orchestration.protocols.config import DecisionConfig, ProtocolConfig


class ComasConfig(ProtocolConfig):
    """CoMAS's interaction (arXiv 2510.08529): agents solve a task, evaluate solutions, and score evaluations.

    `preset` fills in what is not given: `faithful` as the article describes it, `release` as its public code does,
    `improved` as the code, where nobody judges what it said itself, all judge equally often, and every verdict is read.
    """

    templates = (
        "comas_discussion", "comas_evaluate", "comas_evaluate_and_score", "comas_reference", "comas_score",
        "comas_score_solution", "comas_solve", "comas_verdict",
    )  # fmt: skip
    instead = "verdict: free"
    judges = True

    kind: Literal["comas"] = "comas"
    preset: Literal["faithful", "release", "improved"] = "faithful"
    turn_order: Literal["random_sequential", "parallel_all"] = "random_sequential"
    """`random_sequential`: one solution in each round, of an agent drawn by lot. `parallel_all` (release, improved):
    one of every agent, all at once."""
    rounds: int = Field(8, ge=1, le=64)
    """How many rounds of solutions. `release`, `improved`: 2."""
    evaluations: int = Field(1, ge=0, le=16)
    """How many evaluations each solution gets; each is scored once. 0, the article's ablation: no evaluation, solutions
    are scored as they are."""
    scoring: bool = True
    """An agent of its own scores each evaluation; false, the article's other ablation: evaluators give the score."""
    history: Literal["last_rounds", "sampled_pairs"] = "last_rounds"
    """What solvers read: everything of the last `kappa` rounds, or (release, improved) `references` solutions of the
    last round, drawn by lot, each with one evaluation. Nobody ever reads a score."""
    kappa: int = Field(2, ge=0, le=64)
    """`last_rounds`: how far back."""
    references: int = Field(2, ge=0)
    """`sampled_pairs`: how many; the same for all solvers of a round."""
    evaluator_sees_history: bool = True
    """Evaluators read what solvers of their round did. `release`, `improved`: false."""
    self_judging: bool = True
    """An agent may evaluate or score its own solution, and score its own evaluation. `improved`: false."""
    deal: Literal["uniform", "balanced"] = "uniform"
    """`uniform`: each part goes to an agent drawn by itself, as in the article; the code deals evenly over a batch,
    which comes to the same for one task. `balanced` (improved): in as many solutions in a row as there are agents,
    each evaluates and scores as often as any other, and solves once."""
    verdict: Literal["free", "constrained"] = "free"
    """Where a reply gives no score that can be read: that is kept as a failure, or (`constrained`, improved) its author
    is asked once more, and can say 1, 2 or 3 only; needs engines with `choices`."""
    canaries: float = Field(0.0, ge=0, le=1)
    """Beside this share of judgements (`improved`: 0.02) the same judges are shown a null answer, which is none of the
    episode's: nothing, punctuation, an opening phrase, the question, or a claim to be right. See `canary_score`."""
    decision: DecisionConfig = DecisionConfig()
    """Made of the last solution of each agent; neither source defines one."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        return {**_PRESETS.get(data.get("preset"), {}), **data} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _is_judged(self) -> Self:
        if not self.evaluations and not self.scoring:
            raise ValueError("evaluations: 0 and scoring: false leave nobody who judges; keep one of the two")
        return self

    @property
    def agents(self) -> tuple[int, int | None]:  # type: ignore[override]
        """One alone can only judge itself."""
        return (1 if self.self_judging else 2), None

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"choices"} if self.verdict == "constrained" else ())

    @property
    def label(self) -> str:
        return self.kind if self.preset == "faithful" else f"{self.kind}-{self.preset}"


_RELEASE = {"turn_order": "parallel_all", "rounds": 2, "history": "sampled_pairs", "evaluator_sees_history": False}
_PRESETS: dict[Any, dict[str, Any]] = {
    "release": _RELEASE,
    "improved": {**_RELEASE, "self_judging": False, "deal": "balanced", "verdict": "constrained", "canaries": 0.02},
}
