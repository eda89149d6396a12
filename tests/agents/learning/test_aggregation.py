import pytest
import torch

from coterie.agents.learning.aggregation import token_weights

# Replies of 2, 1 and 3 tokens; the first two are answers.
REPLIES, ROLES = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 0, 0, 1, 1, 1])
ALL = torch.ones(6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token_mean", [1 / 6] * 6),
        ("seq_mean_token_mean", [1 / 6, 1 / 6, 1 / 3, 1 / 9, 1 / 9, 1 / 9]),
        ("seq_mean_token_sum", [1 / 3] * 6),
        ("seq_mean_token_sum_norm", [1 / 30] * 6),
    ],
)
def test_all_tokens_in_one(mode, expected):
    assert token_weights(REPLIES, ROLES, ALL, mode, 10, False).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token_mean", [1 / 6] * 3 + [1 / 6] * 3),
        ("seq_mean_token_mean", [1 / 8, 1 / 8, 1 / 4, 1 / 6, 1 / 6, 1 / 6]),
        ("seq_mean_token_sum", [1 / 4] * 3 + [1 / 2] * 3),
        ("seq_mean_token_sum_norm", [1 / 40] * 3 + [1 / 20] * 3),
    ],
)
def test_each_role_by_itself(mode, expected):
    assert token_weights(REPLIES, ROLES, ALL, mode, 10, True).tolist() == pytest.approx(expected)


def test_a_reply_of_which_nothing_counts_is_no_reply():
    counts = torch.tensor([True, True, False, True, True, False])
    expected = [1 / 4, 1 / 4, 0, 1 / 4, 1 / 4, 0]
    assert token_weights(REPLIES, ROLES, counts, "seq_mean_token_mean", 10, False).tolist() == pytest.approx(expected)


def test_a_role_of_which_nothing_counts_is_no_role():
    counts = torch.tensor([True] * 3 + [False] * 3)
    weight = token_weights(REPLIES, ROLES, counts, "token_mean", 10, True)
    assert weight.tolist() == pytest.approx([1 / 3] * 3 + [0] * 3)


def test_the_talkative_role_counts_as_much_as_the_other():
    replies, roles = torch.tensor([0] * 99 + [1]), torch.tensor([0] * 99 + [1])
    weight = token_weights(replies, roles, torch.ones(100, dtype=torch.bool), "token_mean", 10, True)
    assert float(weight[roles == 0].sum()) == pytest.approx(0.5) and float(weight[99]) == pytest.approx(0.5)


def test_nothing_has_no_weight():
    nothing = torch.empty(0, dtype=torch.long)
    assert len(token_weights(nothing, nothing, nothing.bool(), "token_mean", 10, True)) == 0
