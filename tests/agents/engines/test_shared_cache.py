import itertools
from collections.abc import Sequence

import pytest
import torch
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

from coterie.agents import tiny
from coterie.agents.engines import shared_cache
from coterie.agents.engines.decoding import CausalModel
from coterie.agents.engines.live import LiveWeights
from coterie.agents.engines.shared_cache import begin
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.errors import EngineError
from coterie.types import EncodedPrompt, Message, Place, Sample, Sampling

SAMPLING = Sampling(1.0, max_tokens=40)
SUM = "12 + 34 ="
PERSONAS = ("", "Be calm.", "You are bold.")
TEXT = AutoTokenizer.from_pretrained(tiny.folder())


@pytest.fixture(scope="module")
def model() -> CausalModel:
    return CausalModel.load(str(tiny.folder()), "cpu", "float32")


def prompt(question: str, persona: str = "") -> EncodedPrompt:
    system = (Message("system", persona),) if persona else ()
    ids = ChatTokenizer(TEXT, 2048).render((*system, Message("user", question)))
    return EncodedPrompt(ids, len(ids))


GROUPS = [
    [prompt("12 + 34 + 56 + 78 =")] * 3,
    [prompt(SUM, persona) for persona in PERSONAS],
    [prompt("1 + 2 =")],
]


def places(groups: Sequence[Sequence[EncodedPrompt]]) -> list[list[Place]]:
    return [[Place(f"t{g}", 0, f"a{n}") for n in range(len(group))] for g, group in enumerate(groups)]


def alone(model, groups, sampling=SAMPLING, text=TEXT) -> list[Sample]:
    prompts, keys = itertools.chain(*groups), itertools.chain(*places(groups))
    return model.generate([*prompts], sampling, [*keys], 7, text.decode, 0, lambda: False)


def together(model, groups, sight="all", sampling=SAMPLING, keys=None, text=TEXT) -> list[Sample]:
    thinking = begin(groups, keys or places(groups), 7, sight, sampling.max_tokens)
    return model.generate_together(thinking, sampling, text.decode, 0, lambda: False)


@pytest.fixture(scope="module")
def single(model) -> list[Sample]:
    return alone(model, GROUPS)


@pytest.fixture(scope="module")
def seeing(model) -> list[Sample]:
    return together(model, GROUPS)


def ids(samples: Sequence[Sample]) -> list[tuple[int, ...] | None]:
    return [sample.token_ids for sample in samples]


def test_one_thinker_is_ordinary_decoding(model):
    ones = [[prompt(question)] for question in ("1 + 2 =", SUM, "56 + 78 - 90 + 11 =")]
    single, group = alone(model, ones), together(model, ones)
    assert ids(group) == ids(single) and len({sample.num_tokens for sample in group}) > 1
    assert [one.text for one in group] == [one.text for one in single]
    for one, other in zip(single, group, strict=True):
        assert other.logprobs == pytest.approx(one.logprobs, abs=1e-4)


@pytest.mark.slow
def test_the_built_in_model_says_in_a_group_what_it_says_alone(smollm):
    real, text = CausalModel.load(smollm, "cpu", "float32"), AutoTokenizer.from_pretrained(smollm)
    asked = [ChatTokenizer(text, 2048).render((Message("user", what),)) for what in ("4 + 3 =", "Name three colours.")]
    prompts, sampling = [EncodedPrompt(said, len(said)) for said in asked], Sampling(1.0, max_tokens=24)
    for groups, sight in (([[one] for one in prompts], "all"), ([prompts], "own")):
        said = ids(alone(real, groups, sampling, text))
        assert ids(together(real, groups, sight, sampling, text=text)) == said
        assert max(map(len, said)) > 8 and said[0] != said[1]


def test_thinkers_that_do_not_see_each_other_are_independent_samples(model, single):
    group = together(model, GROUPS, "own")
    assert ids(group) == ids(single)
    for one, other in zip(single, group, strict=True):
        assert other.logprobs == pytest.approx(one.logprobs, abs=1e-4)


def test_thinkers_that_see_each_other_say_something_else_after_the_first_token(single, seeing):
    assert [one[0] for one in ids(seeing)] == [one[0] for one in ids(single)], "nobody has said anything before"
    assert all(one != other for one, other in zip(ids(seeing)[:6], ids(single)[:6], strict=True))
    assert ids(seeing)[6] == ids(single)[6], "there is nobody to see"


def test_each_token_is_drawn_by_what_all_have_said_before(model, seeing):
    """The definition, in one pass without a cache: own prompt, everybody's words so far, positions P + n * L + k."""
    prompts, said, length = [one.prompt for one in GROUPS[1]], seeing[3:6], SAMPLING.max_tokens
    assert len({one.num_tokens for one in said}) > 1, "nobody goes on being seen after its end"
    start = max(map(len, prompts))
    cells = [(n, None, p, token) for n, ids in enumerate(prompts) for p, token in enumerate(ids)]
    for n, one in enumerate(said):
        cells += [(n, k, start + n * length + k, token) for k, token in enumerate(one.token_ids)]
    mask = torch.tensor([[sees(query, key) for key in cells] for query in cells])
    added = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[None, None]
    tokens, positions = torch.tensor([[c[3] for c in cells]]), torch.tensor([[c[2] for c in cells]])
    with torch.inference_mode():
        logits = model._model(input_ids=tokens, attention_mask=added, position_ids=positions).logits[0]
    # By who read which token last, the odds of what it said next.
    odds = {(cell[0], cell[1]): row for cell, row in zip(cells, torch.log_softmax(logits, -1), strict=True)}
    for n, one in enumerate(said):
        found = [float(odds[n, k - 1 if k else None][token]) for k, token in enumerate(one.token_ids)]
        assert found == pytest.approx(one.logprobs, abs=1e-4)


def sees(query, key) -> bool:
    (reader, now, here, _), (writer, then, there, _) = query, key
    if then is None:
        return writer == reader and (now is not None or there <= here)
    return now is not None and then <= now


def test_groups_of_one_batch_do_not_touch_each_other(model, seeing):
    assert ids(together(model, GROUPS[1:2], keys=places(GROUPS)[1:2])) == ids(seeing[3:6])


def test_what_all_prompts_begin_with_is_computed_once(seeing):
    assert [sample.num_cached_tokens for sample in seeing[:3]] == [0, *[len(GROUPS[0][0].prompt) - 1] * 2]
    cells = begin(GROUPS[:1], places(GROUPS[:1]), 7, "all", 8)[0].opening()
    assert len(cells) == len(GROUPS[0][0].prompt) - 1


def test_positions_tell_who_speaks():
    [group] = begin([GROUPS[1]], places(GROUPS)[1:2], 7, "all", 8)
    [blind] = begin([GROUPS[1]], places(GROUPS)[1:2], 7, "own", 8)
    lengths = [len(one.prompt) for one in GROUPS[1]]
    for one in (*group.replies, *blind.replies):
        one.ids += [5, 6]
    assert [cell.position for cell in group.newest(1, 0)] == [max(lengths) + n * 8 + 1 for n in range(3)]
    assert [cell.position for cell in blind.newest(1, 0)] == [length + 1 for length in lengths]


def test_a_thinker_that_is_done_says_nothing_more_and_is_seen():
    [group] = begin([GROUPS[1]], places(GROUPS)[1:2], 7, "all", 8)
    for thinker, said in enumerate(([5], [5, 6], [5, 6])):
        group.replies[thinker].ids += said
    before = shared_cache.tabulate([group.opening() + group.newest(-1, 0) + group.newest(0, 0)], 0, "cpu")
    last = shared_cache.tabulate([group.newest(1, 0)], 0, "cpu")
    seen = shared_cache.attended(last, torch.cat([before, last], 1), torch.float32)[0, 0] == 0
    assert seen[1, -6:].tolist() == [True, True, True, False, True, True]


def test_stop_strings_end_a_thinker(model):
    samples = together(model, GROUPS, sampling=Sampling(1.0, max_tokens=30, stop=("+",)))
    assert all("+" not in sample.text and sample.finish == "stop" for sample in samples)


def test_a_model_that_forgets_tokens_is_refused():
    config = MistralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=4,
    )  # fmt: skip
    mistral = MistralForCausalLM(config).eval()
    model = CausalModel(mistral, frozenset(), LiveWeights(mistral, 0, 1))
    group = [EncodedPrompt((1, 2, 3), 3)] * 2
    with pytest.raises(EngineError, match="do not keep every token"):
        together(model, [group], sampling=Sampling(max_tokens=2))
