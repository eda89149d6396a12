import asyncio
import subprocess
import sys

import pytest

from coterie.errors import EngineError
from coterie.testing import replies
from coterie.testing.config import FaultsConfig, ScriptedConfig
from coterie.testing.scripted import ScriptedEngine
from coterie.types import Message, Place, Sample, Sampling

SAMPLING = Sampling(max_tokens=64)
QUESTION = (Message("system", "You are calm."), Message("user", "What is 4 + 3 - 1?"))
PEERS = (*QUESTION, Message("user", "Others said:\n<<<\n1 + 1 makes 9\n>>>\n<<<\nI say 9.\n>>>\n<<<\n6\n>>>"))


def places(count: int) -> list[Place]:
    return [Place(f"t{i}", 0, "calm") for i in range(count)]


def ask(config: ScriptedConfig, count: int = 1, prompt=QUESTION, sampling: Sampling = SAMPLING) -> list[Sample]:
    async def run() -> list[Sample]:
        engine = ScriptedEngine(config, "none", seed=5, exact=True)
        await engine.start()
        return await engine.generate(engine.encode([prompt] * count, sampling), sampling, places(count))

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("expression", "value"),
    [("4 + 3", 7), ("4 - -3", 7), ("2 + 3 * 4", 14), ("-3 + 2", -1), ("8 / 4 / 2", 1), ("1 / 0", None)],
)
def test_arithmetic_is_evaluated_with_products_first(expression: str, value: int | None) -> None:
    assert replies.evaluate(expression) == value


def test_the_last_expression_outside_fences_is_solved() -> None:
    assert replies.solve(PEERS) == 6


def test_the_majority_of_fenced_answers_is_found() -> None:
    assert replies.majority(PEERS) == "9"
    assert replies.majority(QUESTION) is None


def test_accuracy_is_the_share_of_right_answers() -> None:
    right = sum(s.text == "The answer is 6." for s in ask(ScriptedConfig(accuracy=0.3), 400))
    assert 85 <= right <= 155


def test_full_conformity_repeats_the_majority() -> None:
    assert {s.text for s in ask(ScriptedConfig(conformity=1), 20, PEERS)} == {"The answer is 9."}


def test_a_sample_does_not_depend_on_its_batch() -> None:
    assert ask(ScriptedConfig(accuracy=0.5), 40)[:3] == ask(ScriptedConfig(accuracy=0.5), 3)


def test_replies_are_the_given_ones_all_of_them() -> None:
    assert {s.text for s in ask(ScriptedConfig(replies=("a", "b", "c")), 60)} == {"a", "b", "c"}


def test_echo_repeats_the_last_message_up_to_a_stop_string() -> None:
    assert ask(ScriptedConfig(mode="echo"), sampling=Sampling(stop=(" - ",)))[0].text == "What is 4 + 3"


def test_tokens_are_the_bytes_of_text_and_max_tokens_cuts_them() -> None:
    sample = ask(ScriptedConfig(replies=("Züge",)), sampling=Sampling(max_tokens=4))[0]
    assert (sample.text, sample.finish, sample.num_tokens) == ("Züg", "length", 4)
    assert bytes(sample.token_ids or ()) == "Züg".encode()
    assert len(sample.logprobs or ()) == 4 and max(sample.logprobs or ()) <= 0


def test_empty_and_cut_replies_stay_the_same_when_asked_again() -> None:
    config = ScriptedConfig(faults=FaultsConfig(empty=0.3, cut=0.3))

    async def run() -> tuple[list[Sample], list[Sample]]:
        engine = ScriptedEngine(config, "none", seed=5, exact=True)
        await engine.start()
        prompts = engine.encode([QUESTION] * 50, SAMPLING)
        first = await engine.generate(prompts, SAMPLING, places(50))
        return first, await engine.generate(prompts, SAMPLING, places(50))

    first, second = asyncio.run(run())
    assert first == second
    assert {s.finish for s in first} == {"stop", "length"} and "" in {s.text for s in first}


def test_a_crash_is_an_engine_error_and_another_attempt_may_succeed() -> None:
    async def run() -> int:
        engine = ScriptedEngine(ScriptedConfig(faults=FaultsConfig(crash=0.5)), "none", seed=5, exact=True)
        await engine.start()
        prompts, failures = engine.encode([QUESTION], SAMPLING), 0
        for _ in range(40):
            try:
                await engine.generate(prompts, SAMPLING, places(1))
            except EngineError:
                failures += 1
        return failures

    assert 8 <= asyncio.run(run()) <= 32


def test_a_hanging_call_can_be_cancelled_and_the_engine_goes_on() -> None:
    async def run() -> None:
        engine = ScriptedEngine(ScriptedConfig(faults=FaultsConfig(hang=1)), "none", seed=5, exact=True)
        await engine.start()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(
                    engine.generate(engine.encode([QUESTION], SAMPLING), SAMPLING, places(1)), timeout=0.05
                )

    asyncio.run(run())


def test_wrong_length_drops_a_sample_and_a_lie_claims_a_token_too_many() -> None:
    assert len(ask(ScriptedConfig(faults=FaultsConfig(wrong_length=1)), 3)) == 2
    liar = ask(ScriptedConfig(faults=FaultsConfig(lie=1)), 1)[0]
    assert liar.num_tokens == len(liar.token_ids or ()) + 1


def test_concurrent_calls_take_turns_unless_continuous() -> None:
    async def wall(continuous: bool) -> float:
        engine = ScriptedEngine(ScriptedConfig(delay=0.1, continuous=continuous), "none", seed=5, exact=False)
        await engine.start()
        clock = asyncio.get_running_loop().time
        begin, prompts = clock(), engine.encode([QUESTION], SAMPLING)
        await asyncio.gather(*(engine.generate(prompts, SAMPLING, [place]) for place in places(3)))
        return clock() - begin

    assert asyncio.run(wall(continuous=False)) >= 0.29
    assert asyncio.run(wall(continuous=True)) < 0.25


def test_the_scripted_engine_loads_no_torch() -> None:
    code = "import sys, coterie.testing.scripted; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
