"""Trains the policies of a society: from what turns earned to advantages, from these to new weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from coterie import registry
from coterie.agents.learning.examples import Example
from coterie.agents.learning.kl import penalties
from coterie.agents.learning.llm_config import PolicyGradientConfig
from coterie.config.schema import ExperimentConfig
from coterie.errors import ResumeError
from coterie.journal import Note
from coterie.orchestration import checkpoints
from coterie.orchestration.executor import Executor
from coterie.orchestration.harvest import EarnedTurn, taught
from coterie.orchestration.learners import Learner, LearnerSpec
from coterie.orchestration.sittings import group_of
from coterie.orchestration.token_credit import Signals, TokenShaper
from coterie.rewards.advantage import AdvantageEstimator, RewardedTurn
from coterie.types import SignalRequest

Result = TypeVar("Result")
Scores = Mapping[str, NDArray[np.floating[Any]]]
_OPTIMISER = "optimiser"
_NO_SCORES: Scores = {}


@dataclass(frozen=True, slots=True)
class PolicyUpdate:
    """What became of one policy in an iteration.

    Attributes:
        weights: SHA-256 of what is trained.
        learning: The learner's metrics; none if there was nothing to learn from.
    """

    weights: str
    learning: Mapping[str, float]


class SocietyTrainer:
    """Learns from turns, and keeps what is needed to go on after a stop.

    Args:
        learners: By policy; policies whose adapters share a model share a learner.
        estimator: Of advantages.
        config: The section `learning`.
        seed: The experiment's.
        at_once: How many learners work at the same time.
        shaper: Of token credit; None: all tokens of a turn are worth the same.

    Attributes:
        iteration: How many were done; the version of the weights.
        iterations: How many are to be done.
        memory: What the estimator remembers from one iteration to the next.
    """

    def __init__(
        self, learners: Mapping[str, Learner], estimator: AdvantageEstimator, config: PolicyGradientConfig,
        seed: int, at_once: int = 1, shaper: TokenShaper | None = None,
    ) -> None:  # fmt: skip
        self.learners, self.estimator, self.config, self.seed = learners, estimator, config, seed
        self.at_once, self.shaper = at_once, shaper
        self._notes: dict[str, Sequence[Note]] = {}
        self._digests: dict[str, str] = {}
        self.iteration, self.iterations = 0, config.iterations
        self.memory: Mapping[str, float] = {}

    @classmethod
    def make(cls, experiment: ExperimentConfig, device: str, executor: Executor | None = None) -> SocietyTrainer:
        """Fresh learners for every policy that is not frozen.

        Args:
            experiment: With `learning`.
            device: `auto`, `cpu` or `cuda`, where a learner is.
            executor: Which has the learners; None: they are in this process.

        Raises:
            EnvironmentMissing: A model is missing.
            CreditError: A model is too small for what the rule of token credit reads.
        """
        config = cast(PolicyGradientConfig, experiment.learning)
        trained = {name: policy.model for name, policy in experiment.policies.items() if not policy.frozen}
        groups = _share(trained) if config.lora is not None else [[name] for name in trained]
        specs = [LearnerSpec(trained[names[0]], tuple(names), config, device, experiment.seed) for names in groups]
        made = executor.hire_learners(specs) if executor is not None else [spec.build() for spec in specs]
        learners = {name: learner for names, learner in zip(groups, made, strict=True) for name in names}
        estimator = registry.impl("advantage", config.advantage.kind)(config.advantage)
        is_here = executor is None or executor.config.kind == "local"
        shaper = _make_shaper(experiment)
        if shaper is not None:
            for name, learner in learners.items():
                shaper.check_model(name, learner)
        return cls(learners, estimator, config, experiment.seed, 1 if is_here else len(made), shaper)

    @property
    def is_done(self) -> bool:
        """Whether all iterations were made."""
        return self.iteration >= self.iterations

    def learn(self, earned: Sequence[EarnedTurn]) -> dict[str, PolicyUpdate]:
        """One iteration: every policy learns from its own turns.

        Turns that were cut at their longest are compared with the others, and not learnt from, if `mask_cut` says so.

        Raises:
            LearningError: A number is none; nothing of this iteration may be kept.
            CreditError: Replies are too short for what the rule of token credit reads, or it breaks its word.
        """
        self._check_lengths(earned)
        penalties, scores = self._penalties(earned), self._scores(earned)
        estimate = self.estimator.estimate(
            [_rewarded(one, penalties.get(one.turn.key, ()), scores.get(one.turn.key, {})) for one in earned],
            self.memory,
        )
        signals = {one.turn.key: one.signals for one in earned}
        examples: dict[str, list[Example]] = {name: [] for name in self.learners}
        for one in taught(earned, self.config.mask_cut):
            key = one.turn.key
            told = scores.get(key, {}), estimate.targets.get(key)
            examples[one.turn.policy].append(_example(one, estimate.advantages[key], *told))
        learnt = self._each(lambda name: self._update(name, examples[name], signals))
        updates = {name: learnt[name] for name in self.learners}
        self.iteration += 1
        self.memory = dict(estimate.memory)
        return updates

    def take_notes(self) -> list[Note]:
        """What the last iteration has to say for the journal, once."""
        return [note for name in self.learners for note in self._notes.pop(name, ())]

    def _update(self, name: str, examples: Sequence[Example], signals: Mapping[str, Signals]) -> PolicyUpdate:
        learner, iteration, metrics = self.learners[name], self.iteration + 1, dict[str, float]()
        if self.shaper is not None:
            shaped = self.shaper.shape(name, learner, examples, iteration, signals)
            examples, metrics, self._notes[name] = shaped.examples, dict(shaped.metrics), shaped.notes
        learnt = learner.update(name, examples, iteration=iteration) if examples else {}
        self._digests[name] = checkpoints.digest(learner.weights(name))
        return PolicyUpdate(self._digests[name], {**learnt, **metrics})

    def _check_lengths(self, earned: Sequence[EarnedTurn]) -> None:
        if self.shaper is None or self.iteration:
            return
        for name in self.learners:
            self.shaper.check_lengths(name, [one.turn.num_tokens for one in earned if one.turn.policy == name])

    def _each(self, work: Callable[[str], Result]) -> dict[str, Result]:
        """What is worked for each policy: in order for those with one learner, and learners beside each other."""

        def work_all(names: Sequence[str]) -> list[tuple[str, Result]]:
            return [(name, work(name)) for name in names]

        groups = _share({name: id(learner) for name, learner in self.learners.items()})
        if self.at_once == 1:
            return dict(pair for group in groups for pair in work_all(group))
        with ThreadPoolExecutor(self.at_once, "learner") as pool:
            return dict(pair for found in pool.map(work_all, groups) for pair in found)

    def _penalties(self, earned: Sequence[EarnedTurn]) -> dict[str, tuple[float, ...]]:
        """What each token loses of its turn's reward for leaving the reference; none without `kl` in the reward."""
        kl = self.config.kl
        if kl is None or kl.at != "reward":
            return {}
        weight, estimator = kl.weight, kl.estimator

        def measure(name: str, mine: Sequence[Example]) -> list[tuple[float, ...]]:
            learner = self.learners[name]
            pairs = zip(learner.logprobs(name, mine), learner.reference_logprobs(mine), strict=True)
            return [penalties(now, reference, weight, estimator) for now, reference in pairs]

        return self._of_turns(earned, measure)

    def _scores(self, earned: Sequence[EarnedTurn]) -> dict[str, Scores]:
        """What a critic expects of each token, and what else the pass tells that shows it; none without a critic."""
        if self.config.build().critic is None:
            return {}
        return self._of_turns(earned, lambda name, mine: self.learners[name].score(name, mine, SignalRequest()))

    def _of_turns(
        self, earned: Sequence[EarnedTurn], work: Callable[[str, Sequence[Example]], Sequence[Result]]
    ) -> dict[str, Result]:
        """What is worked for the turns of each policy, by their keys."""

        def work_mine(name: str) -> list[tuple[str, Result]]:
            mine = [_example(one, np.zeros(one.turn.num_tokens)) for one in earned if one.turn.policy == name]
            return list(zip((one.key for one in mine), work(name, mine), strict=True))

        return dict(pair for found in self._each(work_mine).values() for pair in found)

    def save(self, folder: Path) -> str:
        """Write all that the next iterations depend on, in two phases; the checkpoint's SHA-256."""
        files = {}
        for name, learner in self.learners.items():
            files[name] = learner.weights(name)
            files[f"{name}.{_OPTIMISER}"] = learner.optimiser_state(name)
        facts: dict[str, Any] = {"iteration": self.iteration, "seed": self.seed, "memory": dict(self.memory)}
        if self.shaper is not None:
            facts["roles"] = self.shaper.roles
        return checkpoints.write(folder, files, facts)

    def load(self, folder: Path) -> None:
        """Go on from there.

        Raises:
            ResumeError: It cannot be read, or is of another training.
        """
        files, facts = checkpoints.read(folder)
        if facts.get("seed") != self.seed or not self.learners.keys() <= files.keys():
            raise ResumeError("the checkpoint is of another training", where=str(folder), remedy="start a new run")
        for name, learner in self.learners.items():
            learner.load(name, files[name], files[f"{name}.{_OPTIMISER}"])
            self._digests[name] = checkpoints.digest(files[name])
        self.iteration, self.memory = int(facts["iteration"]), facts["memory"]
        if self.shaper is not None:
            self.shaper.roles = dict(facts.get("roles", {}))

    def export(self, folder: Path) -> dict[str, Path]:
        """Write each policy's weights as engines read them; the folder of each.

        A policy whose weights did not change since is not written again.
        """
        found = {}
        for name, learner in self.learners.items():
            if name not in self._digests:
                self._digests[name] = checkpoints.digest(learner.weights(name))
            found[name] = folder / f"{name}-{self._digests[name][:16]}"
            if not found[name].exists():
                learner.export(name, found[name])
        return found

    def close(self) -> None:
        """Close its learners, which an executor does with those it has."""
        for learner in {id(learner): learner for learner in self.learners.values()}.values():
            learner.close()


def _make_shaper(experiment: ExperimentConfig) -> TokenShaper | None:
    rule = experiment.credit.token if experiment.credit is not None else None
    return TokenShaper(rule, experiment.seed) if rule is not None else None


def _share(values: Mapping[str, Hashable]) -> list[list[str]]:
    """Names with the same value together, in order."""
    groups: dict[Hashable, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return list(groups.values())


def _rewarded(earned: EarnedTurn, penalties: tuple[float, ...], scores: Scores) -> RewardedTurn:
    turn = earned.turn
    place = turn.place
    return RewardedTurn(
        turn.key, turn.policy, place.seat, place.purpose, group_of(place.task), place.round, earned.reward,
        turn.num_tokens, penalties, tuple(map(float, scores.get("value", ()))),
    )  # fmt: skip


def _example(
    earned: EarnedTurn, advantage: Any, scores: Scores = _NO_SCORES, target: NDArray[np.float32] | None = None
) -> Example:
    turn = earned.turn
    assert turn.prompt_ids is not None
    assert turn.token_ids is not None
    return Example(
        key=turn.key, role=turn.place.purpose, prompt_ids=turn.prompt_ids, token_ids=turn.token_ids,
        logprobs=earned.logprobs, advantage=np.asarray(advantage, np.float32), old=scores.get("old"),
        entropy=scores.get("entropy"), value=scores.get("value"), target=target,
    )  # fmt: skip
