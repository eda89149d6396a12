"""What tables of roles let through, and moving a reference to its target."""

import pytest
import torch

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.isolation import LAMIC_ROLES, Composite, Isolation, Lamic, reposition

HEADS = Heads(2, 1, 4, 8)


def seen(mechanism: Lamic | Isolation, tokens: Tokens) -> torch.Tensor:
    """Which keys each query sees, bool [N, N], by what its output takes of values that are unit vectors."""
    n = (tokens.group if tokens.group is not None else tokens.role).shape[-1]
    q, v = torch.zeros(1, 2, n, n), torch.eye(n)[None, None]
    return mechanism.module(HEADS)(q, q[:, :1], v, Context(data=Data(tokens)))[0, 0] > 0


def role(name: str) -> int:
    return LAMIC_ROLES.index(name)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_region_sees_its_own_reference_and_text_and_other_regions_late(stage: int) -> None:
    names = ["region", "region", "reference", "reference", "subject text", "background", "shared text"]
    roles, groups = torch.tensor([role(name) for name in names]), torch.tensor([1, 2, 1, 2, 1, 0, 0])
    late = stage == 2
    assert seen(Lamic(stage), Tokens(role=roles, group=groups))[0].tolist() == [
        True, late, True, False, True, late, late
    ]  # fmt: skip


def test_where_regions_overlap_both_subjects_are_seen() -> None:
    roles = torch.tensor([role("region"), role("reference"), role("reference"), role("reference")])
    tokens = Tokens(role=roles, group=torch.tensor([3, 1, 2, 4]))
    assert seen(Lamic(), tokens)[0].tolist() == [True, True, True, False]


def test_the_published_table_is_symmetric() -> None:
    for stage in (1, 2):
        table = Lamic(stage).table
        assert table == tuple(zip(*table, strict=True))


def test_subjects_are_isolated_and_the_background_is_free() -> None:
    roles, groups = torch.tensor([1, 1, 1, 0]), torch.tensor([1, 1, 2, 0])
    assert seen(Isolation(), Tokens(role=roles, group=groups)).tolist() == [
        [True, True, False, True], [True, True, False, True], [False, False, True, True], [True] * 4
    ]  # fmt: skip


def test_a_table_without_roles_says_what_it_lacks() -> None:
    q = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="role"):
        Lamic().module(HEADS)(q, q, q, Context())
    with pytest.raises(ValueError, match="group"):
        Isolation().module(HEADS)(q, q, q, Context(data=Data(Tokens(role=torch.zeros(3, dtype=torch.long)))))


def test_a_subject_is_moved_to_its_target() -> None:
    image = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    moved, within = reposition(image.flatten(2, 3), (4, 5), (0, 1, 2, 3), (2, 2, 4, 4))
    expected = torch.zeros_like(image)
    expected[:, :, 2:4, 2:4] = image[:, :, 0:2, 1:3]
    torch.testing.assert_close(moved, expected.flatten(2, 3))
    assert within.nonzero().flatten().tolist() == [12, 13, 17, 18]


def test_a_subject_is_scaled_to_its_target() -> None:
    rows = torch.arange(8.0, dtype=torch.float64)[:, None].expand(8, 6).reshape(1, 1, 48, 1)
    larger, _ = reposition(rows, (8, 6), (2, 0, 4, 6), (0, 0, 8, 6))
    # Cell p of 8 lies at (p + 0.5) / 4 of 2 cells from 2 on.
    at = 2 + (torch.arange(8) + 0.5) / 4 - 0.5
    torch.testing.assert_close(larger.view(8, 6)[:, 0], at.double())


@pytest.mark.parametrize(("grid", "source", "target", "named"), [
    ((3, 4), (0, 0, 1, 1), (0, 0, 1, 1), "20 tokens"),
    ((4, 5), (0, 0, 0, 1), (0, 0, 1, 1), "source"),
    ((4, 5), (0, 0, 1, 1), (0, 0, 5, 1), "target"),
])  # fmt: skip
def test_a_box_that_does_not_fit_is_named(
    grid: tuple[int, int], source: tuple[int, ...], target: tuple[int, ...], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        reposition(torch.zeros(1, 1, 20, 2), grid, source, target)


def test_visual_tokens_keep_their_value_and_cost_one_pair_each() -> None:
    draw = torch.Generator().manual_seed(0)
    mechanism, visual, text = Composite(), 30, 10
    context = mechanism.context(visual + text, draw, HEADS, 1)
    assert int((context.data.queries.role == 0).sum()) == visual
    q, k, v = (torch.randn(1, h, visual + text, 4, generator=draw) for h in (2, 1, 1))
    o = mechanism.module(HEADS)(q, k, v, context)
    torch.testing.assert_close(o[:, :, :visual], v[:, :, :visual].expand(-1, 2, -1, -1))
    assert mechanism.pairs(visual + text) == visual + text * (visual + text)
