import asyncio
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest

from coterie.agents.engines import chat
from coterie.agents.engines.base import Signal
from coterie.agents.engines.config import TransformersConfig
from coterie.agents.engines.transformers import TransformersEngine
from coterie.attention import scoring
from coterie.errors import EngineError, EngineTimeout, EnvironmentMissing
from coterie.testing.engines import check_started
from coterie.text import join_pieces
from coterie.types import Message, Place, Sample, Sampling

SAMPLING = Sampling(max_tokens=8)
QUESTIONS = [
    (Message("system", "You are calm."), Message("user", "What is 4 + 3?" + " Think." * 5 * i)) for i in range(4)
]
PLACES = [Place(f"t{i}", 0, "a") for i in range(4)]


@pytest.fixture(scope="module")
def engine(smollm: str) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(TransformersConfig(dtype="float32", device="cpu"), smollm, 3, exact=True)
    asyncio.run(engine.start())
    yield engine
    asyncio.run(engine.close())


def ask(engine: TransformersEngine, count: int, sampling: Sampling = SAMPLING) -> list[Sample]:
    return asyncio.run(engine.generate(engine.encode(QUESTIONS[:count], sampling), sampling, PLACES[:count]))


def test_transformers_keeps_the_promises_of_an_engine(engine: TransformersEngine) -> None:
    asyncio.run(check_started(engine))


def test_a_reply_in_pieces_of_one_token_reads_as_the_whole(engine: TransformersEngine) -> None:
    decode, whole = engine._tokenizer.decode, "na\u00efve \U0001f642 \u4e16\u754c, 2 + 2"  # type: ignore[union-attr]
    ids = engine._tokenizer.render((Message("user", whole),))  # type: ignore[union-attr]
    pieces = [chat.read_on(decode, ids[:i], ids[i : i + 1])[0] for i in range(len(ids))]
    assert join_pieces(pieces) == decode(ids) and whole in decode(ids)
    assert len([piece for piece in pieces if "\ufffd" in piece]) > 1, "no character was cut"


def test_padding_does_not_change_tokens_in_float32(engine: TransformersEngine) -> None:
    assert [s.token_ids for s in ask(engine, 4)[:2]] == [s.token_ids for s in ask(engine, 2)]


def test_a_choice_is_drawn_as_the_model_would_draw_it_among_them(engine: TransformersEngine) -> None:
    digits = ("1", "2", "3")
    samples = ask(engine, 2, Sampling(temperature=1.0, max_tokens=8, choices=digits))
    assert {sample.text for sample in samples} <= {*digits}
    spelt = [engine._tokenizer.spell(digit) for digit in digits]  # type: ignore[union-attr]
    for sample in samples:
        assert (sample.finish, sample.num_tokens) == ("stop", 1)
        scored = engine.score([sample.prompt_ids + ids for ids in spelt], ["logprobs"])
        among = np.array([one["logprobs"][-1] for one in scored], dtype=np.float64)
        among -= np.logaddexp.reduce(among)
        assert sample.logprobs[0] == pytest.approx(among[digits.index(sample.text)], abs=1e-3)


def test_a_choice_that_the_tokenizer_cannot_write_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(EngineError, match="cannot write '<.im_end.>'"):
        ask(engine, 1, Sampling(choices=("yes", "<|im_end|>")))


def test_scoring_gives_the_logprobs_of_sampling(engine: TransformersEngine) -> None:
    sample = ask(engine, 1)[0]
    scored = engine.score([sample.prompt_ids + sample.token_ids], ["logprobs", "entropy"])[0]
    assert scored["logprobs"][-sample.num_tokens :] == pytest.approx(sample.logprobs, abs=1e-3)
    assert scored["entropy"].dtype == np.float32
    assert scored["entropy"].shape == (sample.num_prompt_tokens + sample.num_tokens - 1,)
    assert (scored["entropy"] >= 0).all()


def test_scoring_in_chunks_changes_nothing(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = engine.encode(QUESTIONS[:1], SAMPLING)[0].prompt
    whole = engine.score([ids], ["logprobs"])[0]["logprobs"]
    monkeypatch.setattr(scoring, "_MAX_CHUNK", 5)
    assert engine.score([ids], ["logprobs"])[0]["logprobs"] == pytest.approx(whole, abs=1e-3)


def test_attention_signals_come_with_the_same_log_probabilities(engine: TransformersEngine) -> None:
    sequences = [asked.prompt for asked in engine.encode(QUESTIONS[:2], SAMPLING)]
    alone, together = engine.score(sequences, ["logprobs"]), engine.score(sequences, ["logprobs", "waad", "fai"])
    for one, two, prompt in zip(alone, together, sequences, strict=True):
        np.testing.assert_array_equal(one["logprobs"], two["logprobs"])
        assert two["waad"].shape == two["fai"].shape == (len(prompt) - 1,)
        assert ((two["waad"] > 0) & (two["waad"] <= 10)).all()


def test_every_signal_of_an_engine_is_one_of_the_models() -> None:
    assert get_args(Signal) == scoring.SIGNALS


def test_an_unknown_signal_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(EngineError, match="no such signal: surprise"):
        engine.score([(1, 2)], ["surprise"])


def test_the_event_loop_lives_while_the_model_computes(engine: TransformersEngine) -> None:
    async def ticks() -> int:
        task = asyncio.ensure_future(engine.generate(engine.encode(QUESTIONS, SAMPLING), SAMPLING, PLACES))
        count = 0
        while not task.done():
            await asyncio.sleep(0.001)
            count += 1
        return count

    assert asyncio.run(ticks()) > 20


def test_a_step_that_never_ends_is_a_timeout(engine: TransformersEngine) -> None:
    patient = engine.config
    engine.config = patient.model_copy(update={"stall": 1e-3})
    try:
        with pytest.raises(EngineTimeout):
            ask(engine, 1)
    finally:
        engine.config = patient


def test_a_missing_model_is_one_message() -> None:
    engine = TransformersEngine(TransformersConfig(), "no-org/no-model", 0, exact=False)
    with pytest.raises(EnvironmentMissing, match="cannot load the model"):
        asyncio.run(engine.start())


def test_an_impossible_device_is_one_message(smollm: str) -> None:
    engine = TransformersEngine(TransformersConfig(device="no-such-device"), smollm, 0, exact=False)
    with pytest.raises(EnvironmentMissing, match="does not run here") as caught:
        asyncio.run(engine.start())
    assert "device" in caught.value.remedy
