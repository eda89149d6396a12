"""A constrained reply is one of the choices, drawn as the model would draw it among them."""

import pytest
import torch

from coterie.agents.engines.choosing import Choices

ONE, TEN, TWO, END = (1,), (1, 0), (2, 5), 9


def test_only_what_leads_to_a_choice_may_follow():
    choices = Choices([ONE, TEN, TWO], {END})
    assert choices.allowed([]) == (1, 2)
    assert choices.allowed([2]) == (5,)
    assert choices.allowed([7]) == ()


def test_a_choice_that_another_begins_with_has_to_be_ended():
    choices = Choices([ONE, TEN], {END})
    assert choices.allowed([1]) == (0, END)
    assert not choices.is_over([1])
    assert choices.is_over([1, 0])
    assert choices.is_over([1, END])


def test_a_mask_forbids_all_else_and_leaves_replies_that_are_over_alone():
    logits = torch.arange(20.0).reshape(2, 10)
    masked = Choices([ONE, TWO], {END}).mask(logits, [[], [1]])
    assert torch.isfinite(masked[0]).nonzero().flatten().tolist() == [1, 2]
    assert torch.equal(masked[0, 1:3], logits[0, 1:3])
    assert torch.equal(masked[1], logits[1])


@pytest.mark.parametrize("ids", [[], [1], [3, 4]])
def test_without_choices_everything_may_come(ids):
    choices, logits = Choices([], {END}), torch.ones(1, 10)
    assert choices.mask(logits, [ids]) is logits
    assert not choices.is_over(ids)
