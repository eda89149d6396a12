import pytest
import torch

from coterie.attention.topology import Topology, morton_order


def random_index(agents: int = 63, keys: int = 63, slots: int = 5) -> torch.Tensor:
    return torch.randint(-1, keys, (agents, slots), generator=torch.Generator().manual_seed(agents))


def ring(agents: int) -> torch.Tensor:
    at = torch.arange(agents)
    return torch.stack([(at - 1) % agents, (at + 1) % agents], 1)


@pytest.mark.parametrize(("agents", "keys"), [(63, 63), (63, 4), (4, 70), (1, 1)])
def test_the_inverse_lists_every_edge_once_by_key_and_ascending(agents, keys):
    topology = Topology(random_index(agents, keys), keys)
    offsets, edges = topology.inverse
    flat = topology.index.flatten()
    for key in range(keys):
        expected = (flat == key).nonzero().flatten()
        assert torch.equal(edges[offsets[key] : offsets[key + 1]].long(), expected)
    assert sorted(edges.tolist()) == list(range(flat.numel()))


def test_the_inverse_by_sorting_is_the_inverse_by_counting(monkeypatch):
    counted = Topology(random_index()).inverse
    monkeypatch.setattr(Topology, "device", torch.device("cuda"))  # which sorts; the tensors lie where they lay
    by_sort = Topology(random_index()).inverse
    assert torch.equal(counted.offsets, by_sort.offsets)
    assert torch.equal(counted.edges, by_sort.edges)


def test_the_inverse_is_worked_out_once():
    topology = Topology(random_index())
    assert topology.inverse is topology.inverse


@pytest.mark.parametrize(("index", "num_keys", "symmetric"), [
    (ring(7), None, True),
    ((torch.arange(7)[:, None] + 1) % 7, None, False),
    (torch.tensor([[1, -1], [0, -1], [-1, -1]]), None, True),
    (torch.tensor([[1, 1], [0, -1]]), None, False),
    (torch.tensor([[1], [0]]), 3, False),
])  # fmt: skip
def test_a_graph_is_symmetric_where_every_edge_has_its_opposite(index, num_keys, symmetric):
    assert Topology(index, num_keys).is_symmetric is symmetric


@pytest.mark.parametrize("dimensions", [2, 3])
def test_sorting_keeps_the_graph_and_brings_neighbours_together(dimensions):
    positions = torch.rand(500, dimensions, generator=torch.Generator().manual_seed(0))
    index = torch.cdist(positions, positions).topk(5, largest=False).indices
    index[3, 2:] = -1
    topology = Topology(index)
    moved = topology.sort_by(positions)
    order = moved.order
    named = torch.where(moved.index < 0, -1, order[moved.index.long()])
    assert torch.equal(named, index[order])

    def apart(topology: Topology) -> float:
        steps = (topology.index - torch.arange(500)[:, None]).abs()
        return float(steps[topology.index >= 0].float().mean())

    assert apart(moved) < apart(topology) / 3


def test_morton_order_runs_through_the_quarters_of_a_square_one_after_the_other():
    cells = torch.cartesian_prod(torch.arange(4), torch.arange(4)).double()
    ordered = cells[morton_order(cells)]
    quarters = (ordered[:, 0] >= 2).int() + 2 * (ordered[:, 1] >= 2).int()
    assert quarters.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4


@pytest.mark.parametrize("positions", [torch.zeros(0, 2), torch.ones(5, 3), torch.full((2, 2), 1e30)])
def test_points_that_cannot_be_told_apart_keep_their_order(positions):
    assert morton_order(positions).tolist() == list(range(len(positions)))


def test_writing_to_the_given_index_changes_nothing():
    index = random_index().to(torch.int32)
    topology = Topology(index)
    index.fill_(10_000)
    assert int(topology.index.max()) < 63


@pytest.mark.parametrize(("index", "num_keys", "message"), [
    (torch.zeros(3), None, "index has shape"),
    (torch.zeros(3, 2), None, "index is float32"),
    (torch.full((3, 2), 3), None, "index holds 3, expected -1 <= value < 3"),
    (torch.full((3, 2), -2), None, "index holds -2"),
    (torch.full((3, 2), 2**32), None, "index holds 4294967296"),
    (torch.zeros(3, 2, dtype=torch.int32), -1, "num_keys is -1"),
])  # fmt: skip
def test_a_wrong_index_is_refused(index, num_keys, message):
    with pytest.raises(ValueError, match=message):
        Topology(index, num_keys)


@pytest.mark.parametrize(("order", "message"), [
    (torch.zeros(63, dtype=torch.int64), "order holds a number twice"),
    (torch.arange(62), "order has shape"),
    (torch.arange(63).int(), "order is int32"),
    (torch.arange(63) + 1, "order holds 63"),
])  # fmt: skip
def test_a_wrong_order_is_refused(order, message):
    with pytest.raises(ValueError, match=message):
        Topology(random_index()).permute(order)


def test_keys_that_are_not_the_queries_cannot_be_renumbered_with_them():
    with pytest.raises(ValueError, match="num_keys is 70"):
        Topology(random_index(63, 70), 70).permute(torch.arange(63))


@pytest.mark.parametrize(("positions", "message"), [
    (torch.full((63, 2), torch.nan), "positions holds values that are not finite"),
    (torch.zeros(63, 4), "positions has 4 columns"),
    (torch.zeros(62, 2), "positions has shape"),
    (torch.zeros(63, 2).long(), "positions is int64"),
])  # fmt: skip
def test_wrong_positions_are_refused(positions, message):
    with pytest.raises(ValueError, match=message):
        Topology(random_index()).sort_by(positions)


def test_a_graph_is_full_if_no_slot_is_empty():
    index = random_index().clamp_min(0)
    assert Topology(index).is_full
    index[3, 1] = -1
    assert not Topology(index).is_full
