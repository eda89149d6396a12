"""What must hold between the sections of a society's file that has `learning`; see `rules` for what is for what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coterie import registry
from coterie.config.problems import Mismatch
from coterie.config.schema import ExperimentConfig, PolicyConfig
from coterie.config.sharing import split_policies

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
    always = (
        _able_to_adapt, _credit_to_learn_by, _credit_by_replays, _credit_by_attention, _credit_by_values,
        _sleep_beside_a_learner,
    )  # fmt: skip
    found = [mismatch for rule in always for mismatch in rule(config)]
    if config.learning is not None:
        rules = (
            _anybody_learns, _own_names, _one_society, _rewarded, _plainly_sampled, _trainable_engines, _fresh_adapters,
            _known_ranks, _tasks_to_train_on, _replies_by_themselves, _canaries_to_heed,
        )  # fmt: skip
        found += [mismatch for rule in rules for mismatch in rule(config)]
    return found


def _credit_to_learn_by(config: ExperimentConfig) -> Iterator[Mismatch]:
    if config.credit is not None and config.learning is None:
        yield Mismatch(("credit",), "shapes what a training learns from, and there is no `learning`", is_key=True)


def _credit_by_replays(config: ExperimentConfig) -> Iterator[Mismatch]:
    rule = config.credit.agent if config.credit is not None else None
    if rule is None:
        return
    where = ("credit", "agent")
    if getattr(rule, "replays", False) and config.determinism != "exact":
        message = f"{rule.kind} compares replays that draw the same tokens, which needs `determinism: exact`"
        yield Mismatch(where, message, is_key=True)
    most, seated = getattr(rule, "max_agents", None), sum(seat.count for seat in config.seats)
    if most is not None and seated > most:
        yield Mismatch(where, f"{rule.kind} works at most {most} agents, the seats hold {seated}", is_key=True)


def _credit_by_attention(config: ExperimentConfig) -> Iterator[Mismatch]:
    rule = config.credit.agent if config.credit is not None else None
    if rule is None or not getattr(rule, "reads_attention", False):
        return
    for seat in config.seats:
        if seat.policy in config.policies and config.policies[seat.policy].frozen:
            message = f"{rule.kind} reads attention in learners, and {seat.policy}, which {seat.name} sits by, has none"
            yield Mismatch(("credit", "agent"), f"{message}: train it, or share by another rule", is_key=True)


def _credit_by_values(config: ExperimentConfig) -> Iterator[Mismatch]:
    rule = config.credit.token if config.credit is not None else None
    if rule is None or not getattr(rule, "replays", False):
        return
    where, kl = ("credit", "token"), getattr(config.learning, "kl", None)
    if config.credit is not None and config.credit.agent is not None:
        message = f"{rule.kind} replays what `rewards` give a reply, and here turns earn shares: leave `agent` out"
        yield Mismatch(where, message, is_key=True)
    if kl is not None and kl.at == "reward":
        message = f"{rule.kind} estimates advantages by itself, without what `kl` takes of rewards: take `at: loss`"
        yield Mismatch(where, message, is_key=True)
    if getattr(getattr(config.learning, "advantage", None), "critic", None) is not None:
        message = f"{rule.kind} estimates advantages by itself, and nothing reads the critic: take another `advantage`"
        yield Mismatch(where, message, is_key=True)


def _sleep_beside_a_learner(config: ExperimentConfig) -> Iterator[Mismatch]:
    """An engine gives way to a learner on its own device, and vLLM lets one engine of a process do so."""
    sleeping = [name for name, policy in config.policies.items() if getattr(policy.engine, "sleep", False)]
    why = ""
    if config.learning is None:
        why = "nothing learns here that its memory could go to"
    elif config.executor.kind != "local":
        why = "learners of a cluster have devices of their own"
    elif len(config.policies) > 1 and getattr(config.learning, "lora", None) is None:
        why = "one engine of a process can sleep, and full weights take one for each policy: train adapters"
    for name in sleeping if why else ():
        yield Mismatch(("policies", name, "engine", "sleep"), f"{why}, so leave this out", is_key=True)


def _trained(config: ExperimentConfig) -> dict[str, PolicyConfig]:
    return {name: policy for name, policy in config.policies.items() if not policy.frozen}


def _anybody_learns(config: ExperimentConfig) -> Iterator[Mismatch]:
    if not _trained(config).keys() & {seat.policy for seat in config.seats}:
        yield Mismatch(("policies",), "all policies of the seats are frozen: there is nothing to train")


def _own_names(config: ExperimentConfig) -> Iterator[Mismatch]:
    """With `sharing: agent` policies are called after agents, unless a name is taken: then seats still share them."""
    split = split_policies(config)
    for index, seat in enumerate(config.seats):
        taken = [name for name in seat.agents if name in config.policies]
        if seat.policy in split and taken:
            message = f"{taken[0]} is the name of a policy, and with `sharing: agent` that of another: rename one"
            yield Mismatch(("seats", index, "name"), message)


def _one_society(config: ExperimentConfig) -> Iterator[Mismatch]:
    if len(getattr(config.protocol, "expand", lambda: (config.protocol,))()) > 1:
        yield Mismatch(("protocol",), "stands for several societies; one at a time is trained")
    if config.baselines:
        message = "are not for a training: `coterie eval` compares the trained policies under any protocol"
        yield Mismatch(("baselines",), message, is_key=True)


def _rewarded(config: ExperimentConfig) -> Iterator[Mismatch]:
    if config.credit is not None and config.credit.agent is not None:
        return  # what is learnt from are shares of the team reward
    if not any(getattr(reward, "weight", 1.0) for reward in config.rewards):
        example = f"rewards: [{'interaction' if getattr(config.protocol, 'judges', False) else 'verifier'}]"
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


def _known_ranks(config: ExperimentConfig) -> Iterator[Mismatch]:
    ranks, trained = getattr(config.learning, "ranks", 1), _trained(config)
    for name in ranks if isinstance(ranks, Mapping) else ():
        if name not in trained:
            message = f"no policy {name} is trained; those that are: {', '.join(trained)}"
            yield Mismatch(("learning", "ranks", name), message, is_key=True)


def _tasks_to_train_on(config: ExperimentConfig) -> Iterator[Mismatch]:
    limit, held_out = getattr(config.benchmark, "limit", None), getattr(config.learning, "held_out", 0)
    if limit is not None and held_out >= limit:
        message = f"{held_out} of at most {limit} tasks are held out: hold fewer out, or raise benchmark.limit"
        yield Mismatch(("learning", "held_out"), message)


def _replies_by_themselves(config: ExperimentConfig) -> Iterator[Mismatch]:
    if "shared_cache" in getattr(config.protocol, "needs", ()):
        message = "replies that were said into one cache are no lesson: a learner reads each by itself"
        yield Mismatch(("protocol",), f"{message}; use {config.protocol.kind} with another granularity")


def _canaries_to_heed(config: ExperimentConfig) -> Iterator[Mismatch]:
    if getattr(config.learning, "canary_limit", None) is not None and not getattr(config.protocol, "canaries", 0):
        message = "nobody judges canaries here: use comas, and give its `canaries` a share such as 0.02"
        yield Mismatch(("learning", "canary_limit"), message)


def _able_to_adapt(config: ExperimentConfig) -> Iterator[Mismatch]:
    for name, policy in config.policies.items():
        if policy.adapter and "lora" not in getattr(policy.engine, "capabilities", frozenset()):
            message = f"the engine {policy.engine.kind} takes no adapters; take vllm or transformers"
            yield Mismatch(("policies", name, "engine"), message)
