"""Options that no mechanism can have are refused where it is made, by name."""

from __future__ import annotations

import pytest
import torch

from coterie.attention.mechanisms.base import Heads, Mechanism, Options
from coterie.attention.mechanisms.bias import LearnedBias, SvdBias
from coterie.attention.mechanisms.edits import Suppression
from coterie.attention.mechanisms.groups import HierarchicalGroup
from coterie.attention.mechanisms.head_maps import Dynamic
from coterie.attention.mechanisms.head_windows import HiLo, LongShort, ShiftedSparse
from coterie.attention.mechanisms.linear import Lightning
from coterie.attention.mechanisms.mixture import MixtureOfHeads
from coterie.attention.mechanisms.routing import Routing, TokenAggregation
from coterie.attention.mechanisms.windows import GeneralizedNeighborhood, Halo, InwardWindow


@pytest.mark.parametrize(
    ("mechanism", "option", "value", "wanted"),
    [
        (GeneralizedNeighborhood, "window", (7, 0), "1 or more"), (GeneralizedNeighborhood, "stride", 0, "1 or more"),
        (Halo, "halo", -1, "0 or more"), (InwardWindow, "half", (-1, 2), "0 or more"), (HiLo, "low", 1.5, "0 to 1"),
        (ShiftedSparse, "groups", 0, "1 or more"), (LongShort, "short", -0.1, "0 to 1"), (SvdBias, "axes", 4, "1 to 3"),
        (LearnedBias, "rank", 0, "1 or more"), (MixtureOfHeads, "active", 2.0, "0 to 1"),
        (Dynamic, "every", 0, "1 or more"), (Dynamic, "decay", 1.5, "0 to 1"), (Lightning, "depth", 2.0, "0 to 1"),
        (HierarchicalGroup, "within", 1.5, "0 to 1"), (Routing, "decay", -0.5, "0 to 1"),
        (TokenAggregation, "decay", 1.5, "0 to 1"), (Suppression, "keep", -1.0, "0 or more"),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_named(mechanism: type[Options], option: str, value: object, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"{mechanism.about.name}: {option} is .*, expected {wanted}"):
        mechanism(**{option: value})


@pytest.mark.parametrize(
    ("mechanism", "axes"),
    [
        (GeneralizedNeighborhood((5,)), (60,)), (GeneralizedNeighborhood((3, 3, 3)), (3, 4, 5)),
        (SvdBias(axes=1), (60,)), (SvdBias(), (6, 10)),
    ],
)  # fmt: skip
def test_made_up_inputs_fit_the_options(mechanism: Mechanism, axes: tuple[int, ...]) -> None:
    draw, heads = torch.Generator().manual_seed(0), Heads(2, 2, 4, 8)
    context = mechanism.context(60, draw, heads, 1)
    assert context.grid == axes
    assert mechanism.module(heads)(*torch.randn(3, 1, 2, 60, 4, generator=draw), context).isfinite().all()


def test_a_value_that_no_type_of_an_option_takes_is_said_at_the_option() -> None:
    """And not at the types' names, which nobody wrote."""
    for package in ("pydantic", "ruamel.yaml"):
        pytest.importorskip(package)
    from coterie.attention.choice import find_faults

    assert {fault.path for fault in find_faults("gna", {"stride": "x"})} == {("stride",)}
    assert [fault.path for fault in find_faults("gna", {"window": ["x", 7]})] == [("window", 0)]
