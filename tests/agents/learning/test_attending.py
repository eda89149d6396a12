"""The attention of replies on labelled tokens, against maps that are made in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from coterie import rng
from coterie.agents.learning.attending import AttentionReader
from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_settings import LLMSettings, LoraSettings
from coterie.attention.introspection import middle_layers
from coterie.errors import LearningError


def label(examples, seed=0):
    return [rng.stream(seed, "label", e.key).integers(0, 5, len(e)) for e in examples]


def by_definition(model, example, labels):
    """From whole maps, one turn at a time."""
    ids = torch.tensor([[*example.prompt_ids, *example.token_ids]])
    with torch.no_grad():
        maps = model(input_ids=ids, output_attentions=True).attentions
    rows = slice(len(example.prompt_ids) - 1, len(example) - 1)
    mean = torch.stack([maps[layer][0, :, rows].mean(0).mean(0) for layer in middle_layers(model)]).mean(0).numpy()
    return [mean[labels == number].sum() for number in range(labels.max() + 1)]


@pytest.fixture(scope="module")
def reader(tiny):
    return AttentionReader(tiny, "cpu", micro_batch_tokens=64)


def test_packed_turns_and_shared_keys_give_what_whole_maps_give(tiny, turns, reader):
    examples = turns(count=10)
    labels = label(examples)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64, attn_implementation="eager")
    for example, given, found in zip(examples, labels, reader.influence("any", examples, labels), strict=True):
        np.testing.assert_allclose(found, by_definition(model, example, given), atol=1e-5)


def test_all_that_a_reply_pays_is_one(turns, reader):
    examples = turns(count=10)
    for found in reader.influence("any", examples, label(examples)):
        assert found.sum() == pytest.approx(1, abs=1e-5)


def test_it_does_not_matter_with_which_others_a_turn_is_read(tiny, turns, reader):
    examples = turns(count=8)
    labels, alone = label(examples), AttentionReader(tiny, "cpu", micro_batch_tokens=1)
    together = reader.influence("any", examples, labels)
    for example, given, found in zip(examples, labels, together, strict=True):
        np.testing.assert_allclose(alone.influence("any", [example], [given])[0], found, atol=1e-6)


def test_a_turn_that_says_nothing_pays_nothing(turns, reader):
    said, silent = turns(count=2)
    silent = replace(silent, token_ids=(), logprobs=np.zeros(0), advantage=np.zeros(0))
    examples = [silent, said]
    found = reader.influence("any", examples, label(examples))
    assert not found[0].any()
    assert found[1].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_a_learner_reads_what_its_policy_would(tiny, turns, reader, lora):
    examples = turns(count=6)
    labels = label(examples)
    learner = LanguageLearner(tiny, ["base"], LLMSettings(lora=lora, micro_batch_tokens=64), "cpu", 0)
    found = zip(learner.influence("base", examples, labels), reader.influence("any", examples, labels), strict=True)
    for mine, expected in found:
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_tokens_without_a_label_are_refused(turns, reader):
    (example,) = turns(count=1)
    with pytest.raises(LearningError, match="needs a label"):
        reader.influence("any", [example], [np.zeros(len(example) - 1, int)])
