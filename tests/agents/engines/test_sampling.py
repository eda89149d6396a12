import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.agents.engines import sampling
from coterie.types import Place, Sampling

V = 1000


def draw(logits: torch.Tensor, wanted: Sampling, uniforms: torch.Tensor) -> torch.Tensor:
    return sampling.sample(logits, sampling.Rows.build([wanted] * len(logits)), uniforms)


def expected(logits: np.ndarray, wanted: Sampling, uniform: float) -> int:
    """The definition, token by token, in float64."""
    scaled = logits.astype(np.float64) / wanted.temperature
    probs = np.exp(scaled - scaled.max())
    probs /= probs.sum()
    order = np.arange(len(probs))
    if wanted.top_k or wanted.top_p < 1:
        order = np.argsort(-probs, kind="stable")[: wanted.top_k or None]
        mass = probs[order]
        before = np.cumsum(mass) - mass
        order = order[(before < wanted.top_p * mass.sum()) | (np.arange(len(mass)) == 0)]
    cdf = np.cumsum(probs[order])
    return int(order[np.searchsorted(cdf, uniform * cdf[-1], side="right")])


@pytest.mark.parametrize(
    "wanted",
    [Sampling(1.0), Sampling(0.3), Sampling(2.0, top_k=7), Sampling(1.0, top_p=0.5), Sampling(0.7, 0.8, 40)],
    ids=str,
)
def test_tokens_follow_the_definition(wanted: Sampling) -> None:
    rng = np.random.default_rng(3)
    logits, uniforms = rng.normal(size=(300, V)).astype(np.float32) * 3, rng.random(300)
    tokens = draw(torch.from_numpy(logits), wanted, torch.from_numpy(uniforms)).tolist()
    wanted_tokens = [expected(row, wanted, u) for row, u in zip(logits, uniforms, strict=True)]
    # float32 probabilities may move a uniform over a boundary, rarely.
    assert sum(a != b for a, b in zip(tokens, wanted_tokens, strict=True)) <= 1


@pytest.mark.parametrize("wanted", [Sampling(1.0), Sampling(1.0, top_k=9), Sampling(0.8, top_p=0.9)], ids=str)
def test_a_row_does_not_depend_on_its_batch(wanted: Sampling) -> None:
    logits, uniforms = torch.randn(64, V, generator=torch.Generator().manual_seed(1)), torch.linspace(0, 0.99, 64)
    whole = draw(logits, wanted, uniforms)
    assert torch.equal(whole[:5], draw(logits[:5], wanted, uniforms[:5]))
    assert torch.equal(whole[40:41], draw(logits[40:41], wanted, uniforms[40:41]))


@pytest.mark.parametrize("wanted", [Sampling(1.0), Sampling(1.0, top_k=3), Sampling(1.0, top_p=0.3)], ids=str)
@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_forbidden_tokens_are_never_drawn(wanted: Sampling, uniform: float) -> None:
    logits = torch.full((1, V), -torch.inf)
    logits[0, [17, 900]] = 1.0
    token = int(draw(logits, wanted, torch.tensor([uniform], dtype=torch.float64)))
    assert token in (17, 900)


def test_temperature_zero_takes_the_lowest_id_among_the_largest() -> None:
    logits = torch.zeros(2, V)
    logits[1, [30, 20]] = 5.0
    assert draw(logits, Sampling(0.0), torch.tensor([0.9, 0.9])).tolist() == [0, 20]


def test_rows_of_one_batch_may_have_different_settings() -> None:
    logits = torch.randn(3, V, generator=torch.Generator().manual_seed(2))
    settings, uniforms = [Sampling(0.0), Sampling(1.0), Sampling(1.0, top_k=2)], torch.full((3,), 0.7)
    mixed = sampling.sample(logits, sampling.Rows.build(settings), uniforms)
    alone = [int(draw(logits[i : i + 1], s, uniforms[i : i + 1])) for i, s in enumerate(settings)]
    assert mixed.tolist() == alone


def test_equal_logits_are_cut_by_id() -> None:
    tokens = draw(torch.zeros(200, V), Sampling(1.0, top_k=4), torch.linspace(0, 0.999, 200))
    assert set(tokens.tolist()) == {0, 1, 2, 3}


@given(st.integers(0, 400), st.integers(0, 400))
def test_uniforms_depend_on_the_position_alone(first: int, second: int) -> None:
    place = Place("t", 1, "a")
    fresh, used = sampling.UniformStream(7, place), sampling.UniformStream(7, place)
    used.at(first)
    assert used.at(second) == fresh.at(second)
    assert used.at(second) != sampling.UniformStream(7, Place("t", 1, "a", repeat=1)).at(second)


def test_logprobs_are_those_of_log_softmax() -> None:
    logits, tokens = torch.randn(4, V).bfloat16(), torch.tensor([1, 5, 9, 999])
    reference = logits.double().log_softmax(-1)[torch.arange(4), tokens]
    assert torch.allclose(sampling.logprobs_of(logits, tokens).double(), reference, atol=1e-5)
