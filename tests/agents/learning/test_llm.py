from dataclasses import replace

import numpy as np
import pytest
import torch

from coterie.agents.learning import forcing
from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_settings import CorrectionSettings, KLSettings, LLMSettings, LoraSettings
from coterie.agents.learning.surrogates import CISPOLoss, GSPOLoss, PPOLoss
from coterie.errors import LearningError, ResumeError

FULL = LLMSettings(learning_rate=1e-3, updates=2)
LORA = replace(FULL, lora=LoraSettings(rank=4, alpha=8))


def make(tiny, settings=FULL, policies=("solver",), seed=3):
    return LanguageLearner(tiny, policies, settings, "cpu", seed)


@pytest.fixture
def load():
    def load(folder, dtype=torch.float32):
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

    return load


def alone(model, example):
    """Log-probabilities of one reply by a plain pass over prompt and reply alone."""
    ids = torch.tensor([[*example.prompt_ids, *example.token_ids]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(example.prompt_ids) - 1 : -1].log_softmax(-1)
    return logits.gather(1, torch.tensor(example.token_ids)[:, None])[:, 0].numpy()


def test_packed_log_probabilities_are_those_of_each_turn_alone(tiny, turns, load):
    examples, model = turns(16), load(tiny)
    for micro_batch_tokens in (1, 60, 10_000):
        found = make(tiny, replace(FULL, micro_batch_tokens=micro_batch_tokens)).logprobs("solver", examples)
        for example, numbers in zip(examples, found, strict=True):
            np.testing.assert_allclose(numbers, alone(model, example), atol=1e-5)


@pytest.mark.parametrize(("model", "family"), [("Qwen3", "Qwen3"), ("Gemma3", "Gemma3Text"), ("Mistral", "Mistral")])
def test_models_of_other_families_pack_too(model, family, tmp_path, turns, load):
    """Two of them with attention over a window, narrower than most turns."""
    import transformers

    window = {} if family == "Qwen3" else {"sliding_window": 6}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=24, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, **window,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, f"{model}ForCausalLM")(config).save_pretrained(tmp_path / "model")
    examples, model = turns(8), load(tmp_path / "model")
    found = make(str(tmp_path / "model")).logprobs("solver", examples)
    for example, numbers in zip(examples, found, strict=True):
        np.testing.assert_allclose(numbers, alone(model, example), atol=1e-5)


def test_a_model_that_bends_its_logits_is_refused(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=24, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.5,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "model")
    with pytest.raises(LearningError, match="bends its logits"):
        make(str(tmp_path / "model"))


def test_a_model_that_carries_a_state_from_turn_to_turn_is_refused(tmp_path):
    from transformers import Lfm2Config, Lfm2ForCausalLM

    config = Lfm2Config(
        vocab_size=24, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"], initializer_range=0.5,
    )  # fmt: skip
    Lfm2ForCausalLM(config).save_pretrained(tmp_path / "model")
    with pytest.raises(LearningError, match="see each other"):
        make(str(tmp_path / "model"))


def gradients(tiny, examples, settings):
    learner = make(tiny, replace(settings, precision="float64"))
    seen = {}

    def keep(where):
        seen.update({name: p.grad.clone() for name, p in learner._base.parameters("solver").items()})
        return 0.0, 0.0

    learner._optimisers["solver"].step = keep
    metrics = learner.update("solver", examples, iteration=0)
    return seen, metrics


@pytest.mark.parametrize(
    ("mode", "equal_roles"),
    [
        ("token_mean", True), ("token_mean", False), ("seq_mean_token_mean", True), ("seq_mean_token_sum", False),
        ("seq_mean_token_sum_norm", True),
    ],
)  # fmt: skip
def test_gradients_are_the_same_however_a_batch_is_split(tiny, turns, mode, equal_roles):
    settings = LLMSettings(
        aggregation=mode, equal_roles=equal_roles, updates=1, kl=KLSettings(0.5),
        correction=CorrectionSettings(low=0.85, high=1.15, mask=True),
    )  # fmt: skip
    examples = turns(9)
    whole, metrics = gradients(tiny, examples, replace(settings, micro_batch_tokens=10_000))
    assert 0 < metrics["dropped"] < 1
    for micro_batch_tokens in (1, 50):
        parts, other = gradients(tiny, examples, replace(settings, micro_batch_tokens=micro_batch_tokens))
        assert other["loss"] == pytest.approx(metrics["loss"], rel=1e-12)
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", [PPOLoss(), GSPOLoss(), CISPOLoss()])
def test_the_gradient_is_that_of_the_formula(tiny, turns, loss, load):
    """Written out turn by turn, with no packing and no weights; of one turn all advantages are 0."""
    examples = turns(6)
    examples[2] = replace(examples[2], advantage=np.zeros_like(examples[2].advantage))
    settings = LLMSettings(loss=loss, aggregation="seq_mean_token_mean", equal_roles=False, updates=1, correction=None)
    found, _ = gradients(tiny, examples, settings)
    model, total = load(tiny, torch.float64), 0.0
    for example in examples:
        ids = torch.tensor([[*example.prompt_ids, *example.token_ids]])
        logits = model(ids).logits[0, len(example.prompt_ids) - 1 : -1].log_softmax(-1)
        log_prob = logits.gather(1, torch.tensor(example.token_ids)[:, None])[:, 0]
        if isinstance(loss, GSPOLoss):
            log_prob = log_prob.mean().expand(len(log_prob))
        total = total - (log_prob * torch.tensor(example.advantage)).mean() / len(examples)
    total.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-7, atol=1e-10)


def test_checkpointing_and_chunks_of_logits_change_no_gradient(tiny, turns, monkeypatch):
    examples, settings = turns(6), replace(FULL, updates=1)
    plain, _ = gradients(tiny, examples, settings)
    monkeypatch.setattr(forcing, "_LOGITS_AT_ONCE", 24 * 5)
    again, _ = gradients(tiny, examples, replace(settings, gradient_checkpointing=True))
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("settings", [FULL, LORA])
def test_the_order_of_examples_and_doubles_do_not_matter(tiny, turns, settings):
    examples = turns(10)
    one, other = make(tiny, settings), make(tiny, settings)
    one.update("solver", examples, iteration=5)
    other.update("solver", [*examples[::-1], *examples[:3]], iteration=5)
    for name, tensor in one.weights("solver").items():
        assert torch.equal(tensor, other.weights("solver")[name])


def test_good_tokens_become_likelier_and_bad_ones_less(tiny, turns):
    learner, examples = make(tiny), turns()
    for number, example in enumerate(examples):
        examples[number] = replace(example, advantage=np.full_like(example.advantage, 1 - 2 * (number % 2)))
    before = learner.logprobs("solver", examples)
    learner.update("solver", examples, iteration=0)
    change = [float((b - a).mean()) for a, b in zip(before, learner.logprobs("solver", examples), strict=True)]
    assert np.mean(change[::2]) > 0 > np.mean(change[1::2])


@pytest.mark.parametrize("settings", [replace(FULL, warmup=3), replace(LORA, kl=KLSettings(0.1))])
def test_a_learner_that_was_put_back_goes_on_bit_for_bit(tiny, turns, settings):
    learner = make(tiny, settings)
    learner.update("solver", turns(8), iteration=0)
    both = learner.weights("solver"), learner.optimiser_state("solver")
    kept = [{name: tensor.clone() for name, tensor in part.items()} for part in both]
    expected = learner.update("solver", turns(8, seed=1), iteration=1)
    again = make(tiny, settings, seed=3)
    again.load("solver", *kept)
    assert again.update("solver", turns(8, seed=1), iteration=1) == expected
    for name, tensor in learner.weights("solver").items():
        assert torch.equal(tensor, again.weights("solver")[name])
    for name, tensor in learner.optimiser_state("solver").items():
        assert torch.equal(tensor, again.optimiser_state("solver")[name])


def test_weights_of_another_model_are_refused(tiny):
    with pytest.raises(ResumeError, match="another model"):
        make(tiny).load("solver", make(tiny, LORA).weights("solver"), {})


def test_adapters_of_one_model_learn_apart(tiny, turns):
    learner, alone = make(tiny, LORA, ("solver", "judge")), make(tiny, LORA, ("judge",))
    before = {name: tensor.clone() for name, tensor in learner.weights("judge").items()}
    learner.update("solver", turns(8), iteration=0)
    for name, tensor in learner.weights("judge").items():
        assert torch.equal(tensor, before[name])
    rollout, name = turns(8, seed=1), "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
    assert learner.update("judge", rollout, iteration=0) == alone.update("judge", rollout, iteration=0)
    assert not torch.equal(learner.weights("solver")[name], learner.weights("judge")[name])


@pytest.mark.parametrize("settings", [LORA, replace(FULL, kl=KLSettings(0.1))])
def test_the_reference_is_the_model_before_training(tiny, turns, settings):
    learner, examples = make(tiny, settings), turns(5)
    before = learner.logprobs("solver", examples)
    learner.update("solver", turns(8), iteration=0)
    for old, reference, new in zip(
        before, learner.reference_logprobs(examples), learner.logprobs("solver", examples), strict=True
    ):
        np.testing.assert_allclose(reference, old, atol=1e-6)
        assert not np.allclose(new, old, atol=1e-6)


def test_no_reference_is_kept_that_nobody_wants(tiny, turns):
    with pytest.raises(LearningError, match="not kept"):
        make(tiny).reference_logprobs(turns(2))


def test_a_penalty_keeps_the_policy_nearer_to_its_reference(tiny, turns):
    examples, moved = turns(12), []
    for weight in (1e-6, 3.0):
        learner = make(tiny, replace(FULL, updates=4, kl=KLSettings(weight)))
        for iteration in range(3):
            metrics = learner.update("solver", examples, iteration=iteration)
        moved.append(metrics["reference_kl"])
    assert moved[1] < moved[0] / 2


def test_a_broken_turn_is_named_and_changes_nothing(tiny, turns):
    learner, examples = make(tiny, replace(FULL, updates=1)), turns(6)
    before = {name: tensor.clone() for name, tensor in learner.weights("solver").items()}
    examples[4] = replace(examples[4], advantage=np.full_like(examples[4].advantage, np.nan))
    with pytest.raises(LearningError, match=r"policy solver, iteration 7, turn turn-004"):
        learner.update("solver", examples, iteration=7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.weights("solver").items())


def test_broken_weights_are_named(tiny, turns):
    learner = make(tiny, replace(FULL, updates=1))
    with torch.no_grad():
        learner.weights("solver")["model.norm.weight"].fill_(float("nan"))
    with pytest.raises(LearningError, match="iteration 2, turn turn-0"):
        learner.update("solver", turns(6), iteration=2)


def test_turns_without_tokens_and_no_turns_teach_nothing(tiny, turns):
    empty = replace(turns(1)[0], token_ids=(), logprobs=np.empty(0, np.float32), advantage=np.empty(0, np.float32))
    learner = make(tiny)
    before = {name: tensor.clone() for name, tensor in learner.weights("solver").items()}
    assert learner.update("solver", [empty], iteration=0)["updates"] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.weights("solver").items())


def test_turns_that_are_worth_nothing_cost_no_pass_and_make_no_step(tiny, turns, monkeypatch):
    learner, passed = make(tiny, replace(FULL, updates=1)), []
    teacher = learner._base.teacher
    work = teacher.forward
    monkeypatch.setattr(teacher, "forward", lambda batch, *a, **k: passed.append(batch) or work(batch, *a, **k))
    examples = [replace(e, advantage=e.advantage * (n == 3)) for n, e in enumerate(turns(8))]
    metrics = learner.update("solver", examples, iteration=0)
    assert metrics["updates"] == 1 and metrics["examples"] == 8 and 0.5 < metrics["flat"] < 1
    assert [len(batch.turns) for batch in passed] == [8, 1]
    examples = [replace(e, advantage=0 * e.advantage) for e in examples]
    assert learner.update("solver", examples, iteration=1)["updates"] == 0


def test_metrics_are_of_all_tokens_and_of_each_role(tiny, turns):
    examples = turns(9)
    exact = [replace(e, logprobs=p) for e, p in zip(examples, make(tiny).logprobs("solver", examples), strict=True)]
    metrics = make(tiny).update("solver", exact, iteration=0)
    assert metrics["tokens"] == sum(metrics[f"{role}/tokens"] for role in ("answer", "evaluate", "score"))
    assert metrics["examples"] == 9 and metrics["answer/examples"] == 3 and metrics["updates"] == 2
    assert abs(metrics["mismatch_kl"]) < 1e-6 and metrics["dropped"] == 0 and 0 < metrics["entropy"] < np.log(24)


def test_an_alarm_shows_an_engine_with_other_weights(tiny, turns):
    metrics = make(tiny).update("solver", turns(9), iteration=0)
    assert metrics["mismatch_kl"] > 1e-2


def test_several_policies_with_all_weights_of_one_model_are_refused(tiny):
    with pytest.raises(LearningError, match="2 policies"):
        make(tiny, FULL, ("solver", "judge"))


def test_a_policy_that_does_not_learn_here_is_named(tiny):
    with pytest.raises(LearningError, match="nobody"):
        make(tiny).weights("nobody")


@pytest.mark.parametrize("settings", [FULL, LORA])
def test_in_bfloat16_weights_stay_float32_and_log_probabilities_are_near(tiny, turns, settings):
    learner, plain, examples = make(tiny, replace(settings, precision="bfloat16")), make(tiny, settings), turns(8)
    pairs = zip(learner.logprobs("solver", examples), plain.logprobs("solver", examples), strict=True)
    assert np.mean([np.abs(one - other).mean() for one, other in pairs]) < 0.05
    learner.update("solver", examples, iteration=0)
    assert {tensor.dtype for tensor in learner.weights("solver").values()} == {torch.float32}
