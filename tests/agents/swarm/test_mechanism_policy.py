"""Policies whose tokens attend to each other by a mechanism of the literature."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coterie import registry
from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.config import MechanismPolicyConfig
from coterie.agents.swarm.networks import Actor
from coterie.errors import ConfigError
from coterie.types import ObservationLayout, WorldSpec

LAYOUT = ObservationLayout(19, 3, 6, 9)
SPEC = WorldSpec(8, LAYOUT.size, "continuous", 4, LAYOUT)
FITTING = (
    "alibi", "collapsed", "dgqa", "flow", "gated", "kdgqa", "learned_bias", "lightning", "linear", "long_short", "mqsa",
    "shifted_sparse", "squared_distance", "symmetric", "moh",
)  # fmt: skip


def make_actor(mechanism: str, **options: object) -> Actor:
    shape = replace(Architecture.preset("mechanism", "small"), heads=4, mechanism=mechanism, options=options)
    actor = Actor(shape, SPEC, seed=3)
    with torch.no_grad():
        actor.output.weight.mul_(100)
    return actor


def observe(rows: int) -> torch.Tensor:
    observation = torch.randn(rows, LAYOUT.size, generator=torch.Generator().manual_seed(0))
    observation[:2, 19:25] = 0
    return observation


@pytest.mark.parametrize("mechanism", FITTING)
def test_it_flies_by_any_mechanism_that_fits(mechanism):
    """Empty slots are as no slots, a row alone is as in a batch, and everything learns."""
    actor, observation = make_actor(mechanism), observe(12)
    action = actor(observation)
    alone = torch.cat([actor(row[None]) for row in observation])
    torch.testing.assert_close(action, alone, rtol=0, atol=5e-6)
    action.square().sum().backward()
    # Queries and keys where scores are made without them; a constant in all logits of a query; a router of one head.
    still = {"collapsed": 2, "symmetric": 2, "learned_bias": 1, "moh": 1}.get(mechanism, 0)
    learning = [bool(p.grad is not None and p.grad.any()) for p in actor.encoder.parameters()]
    assert learning.count(False) <= still


@pytest.mark.parametrize("mechanism", FITTING)
def test_every_neighbour_and_obstacles_are_seen(mechanism):
    actor, observation = make_actor(mechanism, **{"shifted_sparse": {"groups": 1}}.get(mechanism, {})), observe(12)[2:]
    for part in (slice(19, 25), slice(25, 31), slice(31, 37), slice(37, 46)):
        changed = observation.clone()
        changed[:, part] *= 0.9
        assert (actor(changed) - actor(observation)).abs().max() > 1e-5


def test_an_option_changes_what_is_computed():
    observation = observe(12)
    assert not torch.equal(make_actor("gated")(observation), make_actor("gated", by_head=True)(observation))


@pytest.mark.parametrize(
    ("mechanism", "why"),
    [
        ("gna", "needs a grid"), ("lamic", "needs roles of the tokens"), ("var", "reads roles"),
        ("lama", "has no queries"), ("native_sparse", "padding"),
        ("pgqa", "something else than the same row alone"), ("batch_group", "something else than the same row alone"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_starts(mechanism, why):
    config = MechanismPolicyConfig(attention=mechanism)
    with pytest.raises(ConfigError, match=f"{mechanism} does not fit a policy: .*{why}") as refusal:
        config.check(SPEC)
    assert refusal.value.where == "policy.attention"


def test_the_word_alone_is_short_for_the_published_options():
    short, long = MechanismPolicyConfig(attention="long_short"), MechanismPolicyConfig(attention={"kind": "long_short"})
    assert short.build() == long.build()
    built = MechanismPolicyConfig(attention={"kind": "long_short", "window": 2}, width=32).build()
    assert (built.mechanism, built.options, built.width) == ("long_short", {"window": 2}, 32)


@pytest.mark.parametrize(
    ("attention", "path", "name"),
    [
        ("gatet", ("attention", "kind"), "gatet"),
        ({"kind": "gated", "by_heads": True}, ("attention", "by_heads"), "by_heads"),
        ({"kind": "gated", "by_head": 1}, ("attention", "by_head"), ""),
    ],
)
def test_a_wrong_word_or_option_is_named_with_its_place(attention, path, name):
    (fault,) = MechanismPolicyConfig(attention=attention).faults()
    assert (fault.path, fault.name) == (path, name)
    assert not name or fault.known


def test_training_does_not_change_what_a_mechanism_computes():
    actor, observation = make_actor("dgqa", every=1), observe(4)
    actor.train()
    assert torch.equal(actor(observation), actor(observation))


def test_every_mechanism_either_fits_or_says_why_not():
    fitting = {"agent"}  # with an option, as the page says
    for name in registry.names("attention"):
        try:
            make_actor(name)
        except ConfigError as refusal:
            assert name in refusal.what and "Context(" not in refusal.what
        else:
            fitting.add(name)
    page = Path(__file__).parents[3] / "docs" / "swarm-policies.md"
    listed = re.search(r"\*\*They fit\*\*:(.*?)\n- ", page.read_text(), re.DOTALL)
    assert listed and fitting == set(re.findall("`([a-z_]+)`", listed.group(1)))
    assert fitting.issuperset(FITTING)
