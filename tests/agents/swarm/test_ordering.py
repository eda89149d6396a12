import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.agents.swarm.ordering import find_places, sort_neighbours

NUMBER = st.sampled_from([-1.0, 0.0, 1.0, 2.0])
SLOTS = st.integers(2, 6).flatmap(lambda k: st.lists(st.lists(NUMBER, min_size=4, max_size=4), min_size=k, max_size=k))


def naive(slots: np.ndarray) -> np.ndarray:
    def key(slot):
        return (not slot.any(), float((slot[:3] ** 2).sum()), tuple(slot))

    return np.stack(sorted(slots, key=key))


@given(SLOTS)
def test_slots_are_sorted_by_distance_then_value_with_empty_ones_last(slots):
    given = torch.tensor(slots)
    assert torch.equal(sort_neighbours(given[None])[0], torch.tensor(naive(given.numpy())))


@given(SLOTS, st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_the_order_given(slots, random):
    moved = random.sample(slots, len(slots))
    assert torch.equal(sort_neighbours(torch.tensor([slots])), sort_neighbours(torch.tensor([moved])))


@given(SLOTS)
def test_places_are_a_permutation(slots):
    assert sorted(find_places(torch.tensor([slots]))[0].tolist()) == list(range(len(slots)))


def test_gradients_go_back_to_their_slots():
    neighbours = torch.tensor([[[3.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0]]], requires_grad=True)
    sort_neighbours(neighbours)[0, 0].sum().backward()
    assert neighbours.grad[0, :, 0].tolist() == [0, 1, 0]
