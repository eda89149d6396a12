"""The page of mechanisms and its pictures are those of the mechanisms there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coterie import registry
from coterie.attention import catalogue
from coterie.attention.mechanisms.base import Options
from coterie.attention.mechanisms.bias import Alibi
from coterie.attention.mechanisms.gate import Gated
from coterie.attention.mechanisms.groups import BatchGroup
from coterie.attention.mechanisms.head_windows import LongShort
from coterie.attention.mechanisms.pooling import EfficientProbing
from coterie.attention.mechanisms.windows import GeneralizedNeighborhood

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_shows_every_mechanism_as_it_is() -> None:
    """If this fails: python -m coterie.attention.catalogue docs."""
    page = (DOCS / "attention.md").read_text("utf-8")
    assert catalogue.section(catalogue.load_measured(DOCS)) in page
    for name in registry.names("attention"):
        assert f"| **{name}**: " in page


def test_the_page_says_what_was_measured_and_what_is_slower() -> None:
    how = {"tokens": 8192, "threads": 2}
    gains = {"alibi": {"forward": 0.9, "with_backward": 1.5} | how, "gna": {"forward": 2.0, "with_backward": 3.0} | how}
    rows = catalogue.section({"mechanisms": gains}).splitlines()
    said = [row for row in rows if "on 2 CPU threads at 8192 tokens" in row]
    assert [row.split("**")[1] for row in said] == ["alibi", "gna"]
    assert ": 0.9 times as fast (slower), with a backward pass 1.5 times as fast<br>" in said[0]
    assert ": 2.0 times as fast, with a backward pass 3.0 times as fast<br>" in said[1]


def test_every_mechanism_has_a_small_picture_and_nothing_else_has() -> None:
    pictures = {path.stem: path.stat().st_size for path in (DOCS / catalogue.PICTURES).iterdir()}
    assert sorted(pictures) == registry.names("attention")
    assert max(pictures.values()) <= 30_000


def test_a_picture_is_what_the_module_computes() -> None:
    short, *_, long = catalogue.reach(LongShort(window=5)) > 0
    at = torch.arange(catalogue.TOKENS)
    behind = at[:, None] - at
    assert torch.equal(long, behind >= 0) and torch.equal(short, (behind >= 0) & (behind < 5))
    weights = catalogue.reach(Alibi())
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_where_sequences_meet_the_picture_is_of_a_batch() -> None:
    weights = catalogue.reach(BatchGroup())[0].unflatten(1, (6, 6)).unflatten(0, (6, 6)) > 0
    assert torch.equal(weights.any(0).any(1), torch.eye(6, dtype=torch.bool)), "moments do not mix"
    assert weights.any(1).any(-1).sum() > 6, "no series sees another"


def test_a_pooled_vector_has_a_row_for_each_number() -> None:
    rows = catalogue.reach(EfficientProbing.small())[0]
    assert rows.shape == (catalogue.HEADS.features, catalogue.TOKENS)
    shares = rows / rows.sum(-1, keepdim=True)
    assert (shares[2:] - shares[:-2]).abs().amax(-1).min() > 0.01, "queries look alike"


def test_heads_that_see_the_same_are_drawn_once() -> None:
    side = catalogue.TOKENS * 4
    assert catalogue.draw(GeneralizedNeighborhood.small()).shape == (side, side, 3)
    assert catalogue.draw(LongShort.small()).shape == (side, 2 * side + 4, 3)


@pytest.mark.parametrize(("mechanism", "needed"), [(GeneralizedNeighborhood(), ["a grid"]), (Alibi(), []),
                                                   (Gated(), ["hidden states"])])  # fmt: skip
def test_what_a_mechanism_needs_is_what_it_is_given(mechanism: Options, needed: list[str]) -> None:
    assert catalogue.needs(mechanism) == needed
