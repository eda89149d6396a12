"""What must hold between the sections of a society's file that has `learning`; see `rules` for what is for what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coterie import registry
from coterie.config.problems import Mismatch
from coterie.config.schema import ExperimentConfig, PolicyConfig

_PLAIN = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}


def find_foreign_learner(data: Mapping[str, Any], trains: str) -> Iterator[Mismatch]:
    """A learner that cannot train what the file is of: a `world` or a `society`."""
    learning = data.get("learning")
    kind = learning.get("kind") if isinstance(learning, Mapping) else learning
    configs = {entry.name: registry.load(entry.config) for entry in registry.entries("learner")}
    known = {name: getattr(config, "trains", "") for name, config in configs.items()}
    if kind in known and known[kind] != trains:
        fitting = ", ".join(name for name, what in known.items() if what == trains)
        path = ("learning", "kind") if isinstance(learning, Mapping) else ("learning",)
        message = f"{kind} trains the policies of a {known[kind]}; this file is of a {trains}: take {fitting}"
        yield Mismatch(path, message)


def check_learning(config: ExperimentConfig) -> list[Mismatch]:
    """Rules that need the whole config."""
    found = list(_able_to_adapt(config))
    if config.learning is not None:
        rules = _anybody_learns, _one_society, _rewarded, _plainly_sampled, _trainable_engines, _fresh_adapters
        found += [mismatch for rule in rules for mismatch in rule(config)]
    return found


def _trained(config: ExperimentConfig) -> dict[str, PolicyConfig]:
    return {name: policy for name, policy in config.policies.items() if not policy.frozen}


def _anybody_learns(config: ExperimentConfig) -> Iterator[Mismatch]:
    if not _trained(config).keys() & {seat.policy for seat in config.seats}:
        yield Mismatch(("policies",), "all policies of the seats are frozen: there is nothing to train")


def _one_society(config: ExperimentConfig) -> Iterator[Mismatch]:
    if len(getattr(config.protocol, "expand", lambda: (config.protocol,))()) > 1:
        yield Mismatch(("protocol",), "stands for several societies; one at a time is trained")
    if config.baselines:
        message = "are not for a training: `coterie eval` compares the trained policies under any protocol"
        yield Mismatch(("baselines",), message, is_key=True)


def _rewarded(config: ExperimentConfig) -> Iterator[Mismatch]:
    if not any(getattr(reward, "weight", 1.0) for reward in config.rewards):
        example = "rewards: [{kind: interaction}]"
        message = f"no reward has a weight, so nothing could be learnt: write {example}, say"
        yield Mismatch(("rewards",) if config.rewards else ("learning",), message, is_key=True)


def _plainly_sampled(config: ExperimentConfig) -> Iterator[Mismatch]:
    for name, policy in _trained(config).items():
        for field, wanted in _PLAIN.items():
            if getattr(policy.sampling, field) != wanted:
                message = f"must be {wanted:g} for a policy that is trained: it learns from the odds its tokens had"
                yield Mismatch(("policies", name, "sampling", field), message)


def _trainable_engines(config: ExperimentConfig) -> Iterator[Mismatch]:
    lora = getattr(config.learning, "lora", None)
    needs = {"tokens", "logprobs", "weights"} | ({"lora"} if lora is not None else set())
    for name, policy in _trained(config).items():
        if missing := needs - getattr(policy.engine, "capabilities", frozenset()):
            lacks = f"the engine {policy.engine.kind} does not give {', '.join(sorted(missing))}"
            yield Mismatch(("policies", name, "engine"), f"{lacks}, which training needs; take vllm or transformers")


def _fresh_adapters(config: ExperimentConfig) -> Iterator[Mismatch]:
    for name, policy in _trained(config).items():
        if policy.adapter:
            message = "a policy that is trained begins with a fresh adapter: leave this out, or set `frozen: true`"
            yield Mismatch(("policies", name, "adapter"), message)


def _able_to_adapt(config: ExperimentConfig) -> Iterator[Mismatch]:
    for name, policy in config.policies.items():
        if policy.adapter and "lora" not in getattr(policy.engine, "capabilities", frozenset()):
            message = f"the engine {policy.engine.kind} takes no adapters; take vllm or transformers"
            yield Mismatch(("policies", name, "engine"), message)
