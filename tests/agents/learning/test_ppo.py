import pytest
import torch

from coterie.agents.learning import ppo
from coterie.agents.learning.ppo import Batch, LearningError, PPOLearner
from coterie.agents.learning.settings import PPOSettings
from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.networks import Actor, Critic
from coterie.types import ObservationLayout, WorldSpec

SPEC = WorldSpec(3, 18 + 12, "continuous", 4, ObservationLayout(18, 2))


def learner(kind="attention", device="cpu", **settings):
    chosen = PPOSettings(**{"epochs": 1, "minibatch": 96, **settings})
    shape = Architecture(kind, width=8, heads=2, head_size=4, final_width=8)
    return PPOLearner(Actor(shape, SPEC), Critic(shape, SPEC, central=chosen.central), chosen, device)


def batch(made, steps=64, dead=0.0):
    generator = torch.Generator().manual_seed(0)
    rows = steps * SPEC.num_agents
    observation = torch.randn(rows, SPEC.observation_size, generator=generator)
    action, log_prob = made.act(observation, torch.randn(rows, 4, generator=generator))
    advantage, target = torch.randn(2, rows, generator=generator)
    alive = torch.rand(rows, generator=generator) >= dead
    return Batch(observation, action, log_prob, advantage, made.judge(observation), target, alive)


def update(made, given, iteration=0, **progress):
    """Of a batch that is here."""
    prepared = made.prepare(given)

    def differentiate(rows, total):
        return made.differentiate(prepared, rows, total)

    return made.update(given.alive, differentiate, 1, iteration, **progress)


@pytest.mark.parametrize("central", [False, True])
def test_pieces_of_a_minibatch_add_up_to_its_gradient(monkeypatch, central):
    def differentiate(rows_at_once):
        monkeypatch.setattr(ppo, "_ROWS_AT_ONCE", rows_at_once)
        made = learner(central=central)
        given = batch(made, dead=0.2)
        return made.differentiate(made.prepare(given), torch.arange(len(given.alive)), given.alive.sum())

    whole, pieces = differentiate(10_000), differentiate(21)
    torch.testing.assert_close(whole.facts, pieces.facts)
    torch.testing.assert_close(whole.parameters, pieces.parameters)


def test_losses_of_mechanisms_are_learnt():
    def gradient(load):
        shape = Architecture("mechanism", width=8, heads=4, final_width=8, mechanism="moh", options={"load": load})
        made = PPOLearner(Actor(shape, SPEC), Critic(shape, SPEC, central=False), PPOSettings(epochs=1), "cpu")
        given = batch(made)
        return made.differentiate(made.prepare(given), torch.arange(len(given.alive)), given.alive.sum()).parameters

    without, once, twice = (gradient(load) for load in (0.0, 1.0, 2.0))
    torch.testing.assert_close(twice - without, 2 * (once - without))
    assert (once - without).norm() > 1e-3


def test_no_rows_teach_nothing():
    made = learner(central=True)
    taught = made.differentiate(made.prepare(batch(made)), torch.arange(0), torch.tensor(5))
    assert not any(bool(found.any()) for found in taught)


@pytest.mark.parametrize("central", [False, True])
def test_an_epoch_sees_every_row_that_counts_once(central):
    made = learner(central=central)
    given = batch(made, dead=0.5)
    seen = torch.cat(made._minibatches(given.alive, 1, 2, 0))
    assert len(seen.unique()) == len(seen)
    assert set(given.alive.nonzero()[:, 0].tolist()) <= set(seen.tolist())
    if not central:
        assert len(seen) == int(given.alive.sum())


def test_minibatches_of_a_central_critic_hold_whole_teams():
    made = learner(central=True)
    for rows in made._minibatches(torch.ones(90, dtype=torch.bool), 1, 2, 0):
        assert (rows.view(-1, 3) == rows.view(-1, 3)[:, :1] + torch.arange(3)).all()
        assert (rows.view(-1, 3)[:, 0] % 3 == 0).all()


def test_minibatches_are_of_equal_size():
    sizes = [len(rows) for rows in learner()._minibatches(torch.ones(250, dtype=torch.bool), 1, 2, 0)]
    assert sizes == [84, 83, 83]


def test_other_epochs_and_iterations_have_other_minibatches():
    made, alive = learner(), torch.ones(90, dtype=torch.bool)
    orders = [made._minibatches(alive, *place)[0].tolist() for place in ((1, 2, 0), (1, 2, 1), (1, 3, 0), (2, 2, 0))]
    assert len(set(map(tuple, orders))) == 4


def test_what_pays_becomes_likelier():
    made = learner(epochs=10, target_kl=None)
    given = batch(made)
    given = given._replace(advantage=(given.action[:, 0] > 0).float() * 2 - 1)
    before = made.actor(given.observation)[:, 0].mean()
    update(made, given)
    assert made.actor(given.observation)[:, 0].mean() > before + 0.01


def test_gradients_are_cut_to_their_greatest_norm():
    made = learner(max_grad_norm=1e-3)
    given = batch(made)
    made._step(made.differentiate(made.prepare(given), torch.arange(len(given.alive)), given.alive.sum()), 5e-4)
    for network in (made.actor, made.critic):
        norm = torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).norm()
        assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_actions_vary_no_less_than_asked_for():
    made = learner(min_std=0.9)
    with torch.no_grad():
        made.actor.log_std.fill_(-3.0)
    update(made, batch(made))
    assert bool((made.actor.log_std.exp() > 0.899).all())


def test_the_learning_rate_of_the_next_update_is_told():
    made = learner(target_kl=100.0)
    assert update(made, batch(made)).learning_rate == made.rate == pytest.approx(7.5e-4)


def test_the_learning_rate_falls_with_what_is_left_of_the_training():
    made, kept = learner(target_kl=None, learning_rate=4e-4), learner(target_kl=None, learning_rate=4e-4, decay=False)
    given = batch(made)
    assert update(made, given, remaining=0.25).learning_rate == pytest.approx(1e-4)
    assert update(kept, given, remaining=0.25).learning_rate == pytest.approx(4e-4)
    before = [parameter.clone() for parameter in made.actor.parameters()]
    update(made, given, 1, remaining=0.0)
    assert all(map(torch.equal, before, made.actor.parameters()))


def test_a_target_that_is_no_number_is_an_error():
    made = learner(normalise_values=False)
    given = batch(made)
    given.target[5] = torch.nan
    with pytest.raises(LearningError, match="value loss"):
        update(made, given)


def test_observations_are_normalised_for_those_who_act_with_what_was_known_then():
    made = learner()
    assert made.observations is not None
    given = batch(made)._replace(observation=batch(made).observation * 30)
    before = made.prepare(given).observation
    made.observations.update(given.observation)
    assert float(made.observations.count[0]) == len(given.alive)
    assert not torch.equal(made.prepare(given).observation, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("central", [False, True])
def test_recorded_updates_are_those_of_the_same_kernels_started_one_by_one(monkeypatch, central):
    def weights(shapes):
        torch.manual_seed(0)
        made = learner(device="cuda", central=central)
        monkeypatch.setattr(made._teaching, "_most", shapes)
        given = Batch(*(x if x is None else x.cuda() for x in batch(learner(central=central), dead=0.2)))
        for iteration in range(4):
            update(made, given, iteration)
        assert any(made._teaching._seen.values()) == bool(shapes)
        return made.weights()

    torch.testing.assert_close(weights(8), weights(0))
