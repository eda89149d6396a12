"""Signals of attention against maps that are made whole, in float64, one reply at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from coterie import rng
from coterie.agents.learning.examples import Example
from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_settings import LLMSettings, LoraSettings
from coterie.errors import LearningError
from coterie.testing.models import write_llama
from coterie.text import number_steps
from coterie.types import SignalRequest

VOCABULARY, LAYERS = 24, 12
RHYTHM = SignalRequest(frozenset({"waad", "fai"}))


@pytest.fixture(scope="module")
def deep(make_llama) -> str:
    return make_llama(LAYERS, 512, 0.1)


@pytest.fixture(scope="module")
def replies() -> list[Example]:
    found = []
    for number in range(7):
        draw = rng.stream(0, "reply", number)
        prompt, reply = (draw.integers(0, VOCABULARY, draw.integers(1, 130)) for _ in range(2))
        zeros = np.zeros(len(reply), np.float32)
        ids = tuple(map(int, prompt)), tuple(map(int, reply))
        found.append(Example(f"turn-{number}", "answer", *ids, zeros - 3, draw.standard_normal(len(reply))))
    return found


@pytest.fixture(scope="module")
def learner(deep) -> LanguageLearner:
    return LanguageLearner(deep, ("solver",), LLMSettings(micro_batch_tokens=700), "cpu", 0)


@pytest.fixture(scope="module")
def roles(learner, replies):
    return learner.assign_roles("solver", replies, RHYTHM)


@pytest.fixture(scope="module")
def maps(deep, replies) -> list[np.ndarray]:
    """Of each reply with its prompt, float64 [layers, heads, T, T]."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(deep, dtype=torch.float64, attn_implementation="eager")
    found = []
    for one in replies:
        ids = torch.tensor([[*one.prompt_ids, *one.token_ids]])
        with torch.no_grad():
            found.append(torch.cat(model(ids, output_attentions=True).attentions).numpy())
    return found


def cut(a, heads):
    return np.mean([a[layer, head] for layer, head in heads], 0)


def check(found, name, expected):
    assert len(found) == len(expected)
    for each, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(each[name], wanted, rtol=0, atol=1e-5)


def test_heads_are_sorted_by_how_far_they_look_back_from_replies(roles, replies, maps):
    spans = []
    for one, a in zip(replies, maps, strict=True):
        size, said = a.shape[-1], len(one.prompt_ids)
        behind = np.maximum(np.arange(size)[:, None] - np.arange(size), 0)
        spans.append((a * behind).sum(-1)[4:9, :, said:].mean(-1))
    span = np.mean(spans, 0)
    assert roles["layers"] == [4, 5, 6, 7, 8]
    np.testing.assert_allclose(roles["span"], span, rtol=1e-5)
    order = np.argsort(span.flatten(), kind="stable")
    assert roles["local"] == [[4 + int(n) // 4, int(n) % 4] for n in order[:6]]
    assert roles["distant"] == [[4 + int(n) // 4, int(n) % 4] for n in order[::-1][:6]]


def test_spans_may_leave_out_what_is_parked_on_the_first_token(learner, replies, maps):
    found = learner.assign_roles("solver", replies, replace(RHYTHM, without_sink=True))
    spans = []
    for one, a in zip(replies, maps, strict=True):
        size, said = a.shape[-1], len(one.prompt_ids)
        behind = np.maximum(np.arange(size)[:, None] - np.arange(size), 0)
        rest = a[4:9, :, said:, 1:]
        spans.append((rest * behind[said:, 1:]).sum((-1, -2)) / rest.sum((-1, -2)))
    np.testing.assert_allclose(found["span"], np.mean(spans, 0), rtol=1e-5)


@pytest.mark.parametrize("window", [3, 10])
def test_waad_is_that_of_the_mean_map_of_local_heads(learner, replies, roles, maps, window):
    found = learner.score("solver", replies, replace(RHYTHM, window=window), roles)
    expected = []
    for one, a in zip(replies, maps, strict=True):
        size, said = a.shape[-1], len(one.prompt_ids)
        behind = np.maximum(np.arange(size)[:, None] - np.arange(size), 0)
        expected.append((cut(a, roles["local"]) * np.minimum(behind, window)).sum(-1)[said:])
    check(found, "waad", expected)


@pytest.mark.parametrize("horizon", [(10, 100), (10, 50), (0, 5), (3, None)])
def test_fai_is_the_mean_attention_of_the_replys_own_tokens_in_the_horizon(learner, replies, roles, maps, horizon):
    found = learner.score("solver", replies, replace(RHYTHM, horizon=horizon), roles)
    means, counts = [], []
    for one, a in zip(replies, maps, strict=True):
        size, said = a.shape[-1], len(one.prompt_ids)
        mean, low, high = cut(a, roles["distant"]), horizon[0], size if horizon[1] is None else horizon[1]
        readers = [range(max(s + low, said), min(size, s + high + 1)) for s in range(said, size)]
        means.append([mean[list(t), said + n].mean() if t else 0.0 for n, t in enumerate(readers)])
        counts.append([len(t) for t in readers])
    check(found, "fai", means)
    check(found, "fai_queries", counts)


@pytest.mark.parametrize("rows", ["last", "later"])
def test_received_attention_is_that_of_the_last_layer(learner, replies, maps, rows):
    found = learner.score("solver", replies, SignalRequest(frozenset({"received"}), rows=rows))
    expected = []
    for one, a in zip(replies, maps, strict=True):
        own = a[LAYERS - 1].mean(0)[len(one.prompt_ids) :, len(one.prompt_ids) :]
        expected.append(own[-1] if rows == "last" else own.sum(0) / np.arange(len(own), 0, -1))
    check(found, "received", expected)


def test_influence_of_a_step_is_its_greatest_in_any_head(tmp_path):
    folder = write_llama(tmp_path / "model", alphabet="ab\n", layers=LAYERS, width=32)
    learner = LanguageLearner(str(folder), ("solver",), LLMSettings(), "cpu", 0)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    # 3 is the end of a line. Two replies share a row; the last step of the longer one ends without a line's end.
    said = [(4, 5, 3, 4, 3, 5, 5, 5, 3, 4, 4), (5, 3, 4, 4, 3, 5, 3)]
    examples = [
        Example(f"turn-{n}", "answer", (5, 4) * 4 if not n else (4,), ids, np.zeros(len(ids)), np.zeros(len(ids)))
        for n, ids in enumerate(said)
    ]
    request = SignalRequest(frozenset({"influence"}), split="line", proximity=2)
    found = learner.score("solver", examples, request)
    steps = [[0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3], [0, 0, 1, 1, 1, 2, 2]]
    assert [one["step"].tolist() for one in found] == steps
    for one, step, score in zip(examples, np.array(steps, object), found, strict=True):
        with torch.no_grad():
            maps = model(torch.tensor([[*one.prompt_ids, *one.token_ids]]), output_attentions=True).attentions
        own = torch.cat(maps)[4:9, :, len(one.prompt_ids) :, len(one.prompt_ids) :].numpy()
        count, of = max(step) + 1, np.array(step)
        means = [[own[:, :, of == j][..., of == k].mean((-1, -2)) for k in range(count)] for j in range(count)]
        influence = [
            np.max(sum(means[j][k] for j in range(k + 2, count))) if k + 2 < count else np.nan for k in range(count)
        ]
        np.testing.assert_allclose(score["influence"], [influence[k] for k in step], atol=1e-5)


def test_signals_ride_on_the_pass_of_the_old_log_probabilities(learner, replies, roles):
    wanted = SignalRequest(frozenset({"waad", "fai", "received"}))
    alone, found = learner.logprobs("solver", replies), learner.score("solver", replies, wanted, roles)
    assert all(np.array_equal(a, b["old"]) for a, b in zip(alone, found, strict=True))


def test_signals_do_not_depend_on_what_is_scored_together(deep, learner, replies, roles):
    together = learner.score("solver", replies, RHYTHM, roles)
    apart = LanguageLearner(deep, ("solver",), LLMSettings(micro_batch_tokens=1), "cpu", 0)
    for one, expected in zip(replies, together, strict=True):
        (found,) = apart.score("solver", [one], RHYTHM, roles)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_an_update_with_what_was_scored_is_the_update_without(deep, replies, lora):
    settings = LLMSettings(micro_batch_tokens=700, learning_rate=1e-2, lora=lora)
    plain, scored = (LanguageLearner(deep, ("solver",), settings, "cpu", 0) for _ in range(2))
    scores = scored.score("solver", replies, RHYTHM, scored.assign_roles("solver", replies, RHYTHM))
    told = [replace(one, old=s["old"], entropy=s["entropy"]) for one, s in zip(replies, scores, strict=True)]
    calls = []
    scored._base.teacher.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    expected = plain.update("solver", replies, iteration=1)
    assert scored.update("solver", told, iteration=1) == expected
    assert all(calls)  # no pass but those that are learnt from
    for name, tensor in plain.weights("solver").items():
        assert torch.equal(tensor, scored.weights("solver")[name])


def test_sums_are_taken_in_float32_where_the_model_computes_in_bfloat16(deep, learner, replies, roles):
    rough = LanguageLearner(deep, ("solver",), LLMSettings(micro_batch_tokens=700, precision="bfloat16"), "cpu", 0)
    pairs = zip(
        rough.score("solver", replies, RHYTHM, roles), learner.score("solver", replies, RHYTHM, roles), strict=True
    )
    for one, expected in pairs:
        assert np.abs(one["waad"] - expected["waad"]).max() < 0.02
        assert np.abs(one["fai"] - expected["fai"]).max() < 0.005


@pytest.mark.slow
def test_several_processes_say_what_one_does(deep, learner, replies, roles):
    from coterie.agents.learning.sharded import ShardedLearner

    request = SignalRequest(frozenset({"waad", "fai", "received"}))
    sharded = ShardedLearner(deep, ("solver",), LLMSettings(micro_batch_tokens=300), "cpu", 0, 2)
    try:
        assigned, found = (
            sharded.assign_roles("solver", replies, RHYTHM),
            sharded.score("solver", replies, request, roles),
        )
    finally:
        sharded.close()
    assert assigned["local"] == roles["local"] and assigned["distant"] == roles["distant"]
    for one, expected in zip(found, learner.score("solver", replies, request, roles), strict=True):
        for name, values in expected.items():
            np.testing.assert_allclose(one[name], values, atol=1e-5, err_msg=name)


def test_roles_need_a_reply(learner):
    with pytest.raises(LearningError, match="there is none"):
        learner.assign_roles("solver", [], RHYTHM)


def test_a_model_that_bends_its_attention_is_refused_with_the_reason(tmp_path, replies):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, final_logit_softcapping=None, layer_types=["full_attention"] * 2,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "model")
    learner = LanguageLearner(str(tmp_path / "model"), ("solver",), LLMSettings(), "cpu", 0)
    with pytest.raises(LearningError, match="cannot be read: layer 0 has softcap"):
        learner.assign_roles("solver", replies, RHYTHM)


@pytest.mark.parametrize(
    ("split", "pieces", "steps"),
    [
        ("line", ["a", "b\n", "c", "\n", "\n", "d"], [0, 0, 1, 1, 1, 2]),
        ("paragraph", ["a", "\n", "b", "\n\n", "c", "\n", " \n", "d"], [0, 0, 0, 0, 1, 1, 1, 2]),
        ("sentence", ["No", ".", " Yes", ".5", "!", " ", "Go"], [0, 0, 0, 0, 0, 0, 1]),
        ("line", ["\n", "a"], [0, 0]),
        ("line", [], []),
    ],
)
def test_a_step_begins_with_the_first_token_after_the_end_of_the_last(split, pieces, steps):
    assert number_steps(pieces, split) == steps
