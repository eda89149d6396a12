from dataclasses import replace

import pytest
import torch

from coterie.agents.engines.tokens import ChatTokenizer
from coterie.agents.tiny import tokenizer, train
from coterie.agents.tiny.lessons import Lesson
from coterie.agents.tiny.muon import orthogonalise
from coterie.text import fence
from coterie.types import Message

SMALL = train.Settings(
    layers=4, first_layers=2, deepened=1, width=64, heads=2, inner=64, steps=2, lessons=4, part_tokens=300, warmup=1
)


def _ids(lengths: list[int]) -> list[train.Ids]:
    return [train.Ids(tuple(range(n)), (False,) * (n // 2) + (True,) * (n - n // 2)) for n in lengths]


def _trained(settings: train.Settings) -> dict[str, torch.Tensor]:
    model = train.train(settings, tokenizer.build(), lambda line: None)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_same_seed_gives_the_same_weights_with_any_number_of_threads() -> None:
    state = torch.random.get_rng_state()
    one, two = _trained(replace(SMALL, threads=1)), _trained(replace(SMALL, threads=2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = _trained(replace(SMALL, seed=8))
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_deeper_model_says_what_the_shallower_one_said_and_learns_in_every_layer() -> None:
    model = train.build_model(SMALL, 50, 1, 0)
    deeper, ids = train.deepen(model, 4), torch.arange(2, 40)[None]
    assert len(deeper.model.layers) == 4
    torch.testing.assert_close(deeper(input_ids=ids).logits, model(input_ids=ids).logits)
    deeper(input_ids=ids).logits.logsumexp(-1).sum().backward()
    assert all(layer.mlp.down_proj.weight.grad.abs().max() > 0 for layer in deeper.model.layers)
    with pytest.raises(ValueError, match="multiple"):
        train.deepen(model, 3)


def test_what_is_learnt_are_the_reply_and_quoted_replies() -> None:
    text = tokenizer.build()
    said = Message("user", f"Question:\n1 + 1 =\nA solution, between <<< and >>>:\n{fence('Answer: 2')}\n?")
    found = train.encoder(ChatTokenizer(text, 2048), text)(Lesson((said,), "Score: 3"))
    learnt = [token for token, flag in zip(found.ids, found.is_learnt, strict=True) if flag]
    assert text.decode(learnt) == "Answer: 2\n>>>Score: 3<|end|>"


def test_parts_hold_each_lesson_once_and_little_padding() -> None:
    batch = _ids([40, 300, 45, 50, 120, 130, 42])
    parts = list(train.split(batch, 300))
    assert sorted(len(item.ids) for part in parts for item in part) == sorted(len(item.ids) for item in batch)
    assert all(len(part) * max(len(item.ids) for item in part) <= 300 for part in parts)


def test_each_place_predicts_what_stands_behind_it() -> None:
    ids, wanted = train.tensors(_ids([6, 4]), pad=0)
    assert ids.tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 0, 0]]
    assert wanted.tolist() == [[-100, -100, 3, 4, 5, -100], [-100, 2, 3, -100, -100, -100]]


@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (32, 96)])
def test_orthogonalised_matrices_have_singular_values_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert 0.4 < values.min() and values.max() < 1.3


def test_the_rate_rises_then_falls_to_a_fiftieth() -> None:
    settings = train.Settings()
    rates = [train.rate(step, settings) for step in range(settings.steps)]
    assert rates[settings.warmup - 1] == max(rates) == settings.learning_rate
    assert rates[-1] == pytest.approx(settings.learning_rate / 50, rel=0.01)
