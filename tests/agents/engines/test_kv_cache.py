import pytest
import torch
from transformers import AutoTokenizer
from transformers.cache_utils import DynamicCache, DynamicLayer

from coterie.agents.engines import kv_cache
from coterie.agents.engines.decoding import CausalModel
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.agents.tiny import folder
from coterie.types import EncodedPrompt, Message, Place, Sampling


def caches(steps: int) -> tuple[DynamicCache, DynamicCache]:
    """The same keys and values, one token at a time, in a plain cache and in one with room."""
    generator = torch.Generator().manual_seed(0)
    plain, roomy = DynamicCache(), DynamicCache()
    for step in range(steps):
        keys, values = torch.randn(2, 3, 2, 5 if step == 0 else 1, 4, generator=generator)
        held = plain.update(keys, values, 0)
        found = roomy.update(keys, values, 0)
        kv_cache.make_roomy(roomy)
        assert all(torch.equal(a, b) for a, b in zip(held, found, strict=True))
    return plain, roomy


@pytest.mark.parametrize("steps", [1, 2, 150])
def test_a_cache_with_room_holds_what_a_plain_one_holds(steps):
    plain, roomy = caches(steps)
    assert isinstance(roomy.layers[0], kv_cache.RoomyLayer)
    assert roomy.get_seq_length() == plain.get_seq_length() == 4 + steps
    assert torch.equal(roomy.layers[0].values, plain.layers[0].values)


def test_a_token_is_added_without_copying_those_before():
    _, roomy = caches(3)
    before = roomy.layers[0].keys.data_ptr()
    roomy.update(torch.ones(3, 2, 1, 4), torch.ones(3, 2, 1, 4), 0)
    assert roomy.layers[0].keys.data_ptr() == before


def test_rows_that_are_dropped_leave_the_others_as_they_were():
    plain, roomy = caches(4)
    assert kv_cache.can_drop(roomy) and not kv_cache.can_drop(plain) and not kv_cache.can_drop(None)
    roomy.batch_select_indices(torch.tensor([0, 2]))
    for cache, rows in ((plain, 3), (roomy, 2)):
        cache.update(torch.ones(rows, 2, 1, 4), torch.ones(rows, 2, 1, 4), 0)
    assert torch.equal(roomy.layers[0].keys, plain.layers[0].keys[[0, 2]])


def test_layers_of_another_kind_stay_as_they_are():
    class Own(DynamicLayer):
        pass

    cache = DynamicCache()
    cache.layers = [Own()]
    kv_cache.make_roomy(cache)
    assert type(cache.layers[0]) is Own and not kv_cache.can_drop(cache)


def test_replies_are_the_same_whoever_left_the_batch_before():
    model = CausalModel.load(str(folder()), "cpu", "float32")
    text = AutoTokenizer.from_pretrained(folder())
    chat = ChatTokenizer(text, 2048)
    prompts = [chat.render((Message("user", f"{sums} ="),)) for sums in ("1 + 2", "12 + 34", "56 + 78 - 90 + 11")]

    def say(numbers):
        asked = [EncodedPrompt(prompts[n], len(prompts[n])) for n in numbers]
        places = [Place(f"t{n}", 0, "a") for n in numbers]
        return model.generate(asked, Sampling(1.0, max_tokens=120), places, 7, text.decode, 0, lambda: False)

    together = say([0, 1, 2])
    longest = max(range(3), key=lambda number: together[number].num_tokens)
    assert together[longest].num_tokens > min(sample.num_tokens for sample in together)
    assert together[longest].token_ids == say([longest])[0].token_ids
