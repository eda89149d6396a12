"""The same formulas in TRL, from its own trainers; it is no dependency: `pip install trl` to run these."""

import numpy as np
import pytest

from coterie.rewards.advantage import dr_grpo, grpo, rloo

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.slow
REWARDS = [0.0, 1.0, 0.5, 1.0, 0.25, 0.25, 0.25, 0.25]


@pytest.fixture(scope="module")
def parts():
    """A model of a few hundred weights and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(("<pad>", "<eos>", *"abcdefgh"))}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=10, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    return LlamaForCausalLM(config), tokenizer


def theirs(trainer, config, parts, folder, **options):
    """Advantages of two groups of four replies, whatever these say."""
    from datasets import Dataset

    model, tokenizer = parts
    prompts = ["a b", "c d"]
    made = trainer(
        model=model, reward_funcs=lambda completions, **_: REWARDS[: len(completions)], processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        args=config(output_dir=str(folder), use_cpu=True, bf16=False, num_generations=4, per_device_train_batch_size=8,
                    max_completion_length=4, report_to=[], beta=0.0, **options),
    )  # fmt: skip
    inputs = [{"prompt": prompt} for prompt in prompts for _ in range(4)]
    return made._generate_and_score_completions(inputs)["advantages"].numpy()


def ours(formula, *options):
    return np.concatenate([formula(REWARDS[:4], *options), formula(REWARDS[4:], *options)])


def test_grpo_is_that_of_trl(parts, tmp_path):
    found = theirs(trl.GRPOTrainer, trl.GRPOConfig, parts, tmp_path)
    assert ours(grpo, 1e-4) == pytest.approx(found, abs=1e-6)


def test_dr_grpo_is_that_of_trl(parts, tmp_path):
    found = theirs(trl.GRPOTrainer, trl.GRPOConfig, parts, tmp_path, scale_rewards="none")
    assert ours(dr_grpo) == pytest.approx(found, abs=1e-6)


def test_rloo_is_that_of_trl(parts, tmp_path):
    found = theirs(trl.RLOOTrainer, trl.RLOOConfig, parts, tmp_path)
    assert ours(rloo) == pytest.approx(found, abs=1e-6)
