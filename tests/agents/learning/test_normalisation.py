import pytest
import torch

from coterie.agents.learning.normalisation import ObservationNormaliser, ValueNormaliser
from coterie.types import ObservationLayout, WorldSpec


def observations(size, layout=None):
    return ObservationNormaliser(WorldSpec(1, size, "continuous", 1, layout))


SWARM = ObservationLayout(self_size=1, num_neighbours=2, neighbour_size=6, obstacle_size=2)


def test_returns_become_standard_and_come_back():
    normaliser, returns = ValueNormaliser(), torch.tensor([10.0, 30.0])
    normaliser.update(returns)
    assert normaliser.normalise(returns).tolist() == pytest.approx([-1.0, 1.0])
    assert normaliser.restore(normaliser.normalise(returns)).tolist() == pytest.approx([10.0, 30.0])


def test_before_any_return_values_are_what_they_are():
    assert ValueNormaliser().restore(torch.tensor([2.0])).tolist() == [2.0]


def test_equal_returns_break_nothing():
    normaliser = ValueNormaliser()
    normaliser.update(torch.full((4,), 3.0))
    assert torch.isfinite(normaliser.normalise(torch.full((4,), 3.0))).all()


def test_observations_of_any_world_are_standard():
    normaliser, seen = observations(2), torch.tensor([[5.0, 1.0], [7.0, -1.0]])
    normaliser.update(seen[:1])
    normaliser.update(seen[1:])
    assert normaliser(seen).tolist() == [pytest.approx([-1.0, 1.0]), pytest.approx([1.0, -1.0])]


def test_observations_by_layout_are_divided_by_their_root_mean_square():
    normaliser = observations(2, ObservationLayout(self_size=2))
    normaliser.update(torch.tensor([[3.0, 0.1], [-3.0, 0.1]]))
    assert normaliser(torch.tensor([[3.0, 0.2]])).tolist() == [pytest.approx([1.0, 2.0])]


def test_neighbours_share_their_statistics_place_and_motion_apart():
    normaliser = observations(SWARM.size, SWARM)
    normaliser.update(torch.tensor([[1.0, *[2.0] * 3, *[5.0] * 3, *[4.0] * 3, *[5.0] * 3, 3.0, 3.0]]))
    found = normaliser(torch.ones(1, SWARM.size))[0]
    place, motion = 10**-0.5, 0.2
    assert found.tolist() == pytest.approx([1.0, *([place] * 3 + [motion] * 3) * 2, 1 / 3, 1 / 3])


def test_empty_slots_stay_empty_and_count_for_nothing():
    normaliser = observations(SWARM.size, SWARM)
    normaliser.update(torch.tensor([[1.0, *[2.0] * 6, *[0.0] * 6, 3.0, 3.0]]))
    found = normaliser(torch.tensor([[1.0, *[2.0] * 6, *[0.0] * 6, 3.0, 3.0]]))[0]
    assert found.tolist() == pytest.approx([1.0] * 7 + [0.0] * 6 + [1.0] * 2)


def test_more_neighbours_than_were_trained_with_fit():
    normaliser = observations(SWARM.size, SWARM)
    normaliser.update(torch.full((4, SWARM.size), 2.0))
    assert normaliser(torch.full((1, SWARM.size + 12), 2.0)).tolist() == [pytest.approx([1.0] * (SWARM.size + 12))]


def test_an_observation_that_never_changes_is_not_blown_up_without_limit():
    normaliser = observations(1)
    normaliser.update(torch.full((8, 1), 4.0))
    assert normaliser(torch.tensor([[5.0]])).tolist() == [[10.0]]
