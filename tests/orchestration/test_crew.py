"""Shards of a world, cut and put together."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from test_trainer import Points, trainer

from coterie.agents.learning.ppo import Batch, add
from coterie.orchestration.crew import share

SIZES, STEPS, AGENTS = [2, 3, 1], 4, 2


def test_every_row_goes_to_the_shard_that_holds_it_in_the_order_given():
    rollout = torch.arange(STEPS * sum(SIZES) * AGENTS).view(STEPS, sum(SIZES), AGENTS)
    rows = torch.randperm(rollout.numel(), generator=torch.Generator().manual_seed(0))[:30]
    parts = rollout.split(SIZES, 1)
    found = [part.flatten()[own] for part, own in zip(parts, share(rows, SIZES, AGENTS), strict=True)]
    assert torch.equal(torch.cat(found).sort().values, rows.sort().values)
    for part, own in zip(parts, found, strict=True):
        assert own.tolist() == [row for row in rows.tolist() if row in part]


def test_one_shard_holds_all_rows():
    rows = torch.tensor([5, 1, 3])
    assert share(rows, [6], AGENTS)[0] is rows


@pytest.mark.parametrize("central", [False, True])
def test_gradients_of_shards_add_up_to_that_of_all_environments(central):
    made = trainer(*(Points(num_envs=size, seed=size, deaths=True) for size in SIZES), central=central)
    found = made.crew.collect(0, 0)
    made.crew.prepare([one.advantage for one in found])
    batches = [shard._batch for shard in made.crew.shards]
    shapes = [(16, size, AGENTS) for size in SIZES]
    whole = Batch(*(
        field[0]  # nobody has a critic of the team
        if field[0] is None
        else torch.cat([x.view(*shape, *x.shape[1:]) for x, shape in zip(field, shapes, strict=True)], 1).flatten(0, 2)
        for field in zip(*batches, strict=True)
    ))  # fmt: skip
    (rows, *_), total = made.learner._minibatches(whole.alive, 1, 0, 0), whole.alive.sum()
    pieces = add(made.crew.differentiate(share(rows, SIZES, AGENTS), total))
    expected = made.learner.differentiate(whole, rows, total)
    torch.testing.assert_close(pieces.facts, expected.facts)
    torch.testing.assert_close(pieces.parameters, expected.parameters)


def test_shards_have_noise_of_their_own():
    made = trainer(*(Points(num_envs=4) for _ in range(2)))
    made.crew.begin()
    first, second = (one.reward for one in made.crew.collect(0, 0))
    assert not torch.equal(first, second)


def test_the_number_that_is_none_is_found_in_its_shard():
    poisoned = Points(num_envs=6)
    poisoned.poison = 4 * 12
    made = trainer(Points(num_envs=10), poisoned)
    with pytest.raises(Exception, match="no number") as caught:
        made.iterate()
    assert "step 3 of the rollout, environment 13" in caught.value.where
