import torch
from hypothesis import given
from hypothesis import strategies as some

from coterie.agents.learning.packing import fit, pack


@given(some.lists(some.integers(1, 40), max_size=30))
def test_rows_hold_each_turn_once_and_are_no_wider_than_the_longest(lengths):
    rows = fit(lengths)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in row) <= max(lengths) for row in rows)


def test_micro_batches_keep_to_their_size(turns):
    examples = turns(40)
    batches = pack(examples, 64)
    assert len(batches) > 3
    assert all(batch.ids.numel() <= 64 or len(batch.ids) == 1 for batch in batches)
    assert sorted(turn for batch in batches for turn in batch.turns) == list(range(40))


def test_a_turn_longer_than_a_micro_batch_goes_alone(turns):
    assert len(pack(turns(5), 1)) >= 2


def test_what_is_learnt_are_the_ids_that_were_sampled(turns):
    examples = turns(20)
    for batch in pack(examples, 100):
        flat, targets = batch.ids.flatten(), batch.targets.tolist()
        for turn in batch.turns:
            example, size = examples[turn], len(examples[turn].token_ids)
            said, targets = targets[:size], targets[size:]
            assert tuple(said) == example.token_ids
        where = batch.before + 1
        assert torch.equal(flat[where], batch.targets)
        assert torch.equal(batch.positions.flatten()[where] - 1, batch.positions.flatten()[batch.before])


def test_a_packed_turn_stands_whole_in_its_row(turns):
    examples = turns(20)
    (batch,) = pack(examples, 10_000)
    rows = [list(row) for row in batch.ids.tolist()]
    text = ",".join(",".join(map(str, row)) for row in rows)
    for example in examples:
        assert ",".join(map(str, (*example.prompt_ids, *example.token_ids))) in text


def test_nothing_is_no_batch():
    assert pack([], 100) == []
