from typing import Any

import pytest
import torch
from scipy.stats import kurtosis
from torch import Tensor

from coterie.attention.head_roles import HeadProfile, assign_roles, excess_kurtosis, mean_profile, profile_heads
from coterie.attention.introspection import collect
from coterie.attention.statistics_request import StatisticsRequest
from coterie.attention.stats import AttentionStatistics, attention_statistics


def look(map_: Tensor, **labels: Any) -> dict[int, AttentionStatistics]:
    """Statistics of one layer whose heads have these maps [H, T, T]: keys are unit vectors, queries log weights."""
    heads, length, _ = map_.shape
    q = map_.clamp(min=1e-30).log()[None]
    k = torch.eye(length).expand(1, heads, length, length).contiguous()
    which = StatisticsRequest(span=True, sink=1, mass=int(labels["labels"].max()) + 1 if labels else 0)
    return {7: attention_statistics(q, k, None, which, scale=1.0, **labels)}


def make_maps(length: int = 48) -> Tensor:
    """Heads that look at the token before, at all alike, at the first token, and at token 20."""
    at = torch.arange(length)
    maps = torch.full((4, length, length), 1e-6)
    maps[0, at, (at - 1).clamp(min=0)] = 1
    maps[1] = 1
    maps[2, :, 0] = 1
    maps[3, :, 20] = 1
    maps[3, at < 20, at[at < 20]] = 1
    return maps.tril() / maps.tril().sum(-1, keepdim=True)


def test_heads_get_the_roles_they_were_made_for() -> None:
    labels = torch.arange(48).div(4, rounding_mode="floor")[None]
    profile = profile_heads(look(make_maps(), labels=labels))
    assert profile.layers == (7,)
    roles = assign_roles(profile, local=0.25, distant=0.25, receivers=2)
    assert roles.local == ((7, 0),)
    assert roles.distant == ((7, 2),)
    assert roles.sink == ((7, 2),)
    assert set(roles.receiver) == {(7, 2), (7, 3)}


def test_a_head_that_parks_its_mass_on_the_first_token_is_not_global_without_it() -> None:
    labels = torch.arange(48).div(4, rounding_mode="floor")[None]
    found = look(make_maps(), labels=labels)
    roles = assign_roles(profile_heads(found, without_sink=True), local=0.25, distant=0.25, receivers=1)
    assert roles.receiver == ((7, 3),)
    plain, bare = profile_heads(found).span[0], profile_heads(found, without_sink=True).span[0]
    uniform = (
        [(t - s) for t in range(48) for s in range(1, t + 1)],
        [1 / (t + 1) for t in range(48) for s in range(1, t + 1)],
    )
    expected = sum(d * w for d, w in zip(*uniform, strict=True)) / sum(uniform[1])
    assert float(bare[1]) == pytest.approx(expected, rel=1e-4)
    assert float(plain[2]) == pytest.approx(47 / 2, rel=1e-3)


def test_kurtosis_is_fishers() -> None:
    values = torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0)) ** 3
    expected = torch.from_numpy(kurtosis(values.double().numpy(), axis=-1)).float()
    torch.testing.assert_close(excess_kurtosis(values), expected, rtol=1e-4, atol=1e-4)


def test_kurtosis_of_too_few_values_is_not_known() -> None:
    assert excess_kurtosis(torch.tensor([1.0, 2.0, 9.0])).isnan()
    assert excess_kurtosis(torch.ones(9)).isnan()


def test_received_attention_is_that_of_sentences_that_are_read_from_later_ones(smol_model: Any) -> None:
    ids = torch.randint(1000, 9000, (1, 60), generator=torch.Generator().manual_seed(3))
    labels = torch.arange(60).div(6, rounding_mode="floor")[None]
    with torch.no_grad(), collect(smol_model, StatisticsRequest(span=True, mass=10), [11], labels=labels) as found:
        smol_model(ids)
    smol_model.set_attn_implementation("eager")
    with torch.no_grad():
        a = smol_model(ids, output_attentions=True).attentions[11][0]
    smol_model.set_attn_implementation("sdpa")
    blocks = a.view(9, 10, 6, 10, 6).mean((2, 4))
    received = torch.stack([blocks[:, i + 4 :, i].mean(-1) for i in range(6)], -1)
    torch.testing.assert_close(profile_heads(found).kurtosis[0], excess_kurtosis(received), rtol=1e-3, atol=1e-3)


def test_what_was_not_collected_is_not_known_and_gives_no_role() -> None:
    found = attention_statistics(torch.randn(1, 3, 9, 4), torch.randn(1, 3, 9, 4), None, StatisticsRequest(span=True))
    profile = profile_heads({0: found})
    assert profile.sink.isnan().all() and profile.kurtosis.isnan().all()
    roles = assign_roles(profile)
    assert roles.receiver == roles.sink == () and len(roles.local) == len(roles.distant) == 1


def test_ties_go_to_lower_layers_and_heads() -> None:
    same = torch.ones(2, 3)
    roles = assign_roles(HeadProfile((4, 9), same, same, same), local=0.5, distant=0.5, receivers=2)
    assert roles.local == roles.distant == ((4, 0), (4, 1), (4, 2))
    assert roles.receiver == ((4, 0), (4, 1))


def test_a_mean_profile_counts_each_sequence_alike() -> None:
    one, two = (HeadProfile((0,), *(torch.full((1, 2), value) for _ in range(3))) for value in (1.0, 4.0))
    assert mean_profile([one, two]).span.tolist() == [[2.5, 2.5]]
    with pytest.raises(ValueError, match="same layers"):
        mean_profile([one, HeadProfile((1,), one.span, one.sink, one.kurtosis)])
    with pytest.raises(ValueError, match="found is empty"):
        profile_heads({})
