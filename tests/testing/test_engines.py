import asyncio
from dataclasses import replace

import pytest

from coterie.testing.config import FaultsConfig, ScriptedConfig
from coterie.testing.engines import check_engine
from coterie.testing.scripted import ScriptedEngine
from coterie.types import EncodedPrompt, Place, Sample, Sampling


def build(**fields: object) -> ScriptedEngine:
    return ScriptedEngine(ScriptedConfig(**fields), "none", 5, exact=True)


@pytest.mark.parametrize("continuous", [False, True])
def test_the_scripted_engine_keeps_the_promises_of_an_engine(continuous: bool) -> None:
    asyncio.run(check_engine(build(continuous=continuous)))


def test_a_short_batch_fails_the_checks() -> None:
    with pytest.raises(AssertionError, match="3 prompts gave 2 samples"):
        asyncio.run(check_engine(build(faults=FaultsConfig(wrong_length=1))))


def test_a_wrong_count_fails_the_checks() -> None:
    with pytest.raises(AssertionError, match="asked for at most 12|not the number of token ids"):
        asyncio.run(check_engine(build(faults=FaultsConfig(lie=1))))


def test_text_beyond_a_stop_string_fails_the_checks() -> None:
    class Deaf(ScriptedEngine):
        async def generate(self, prompts: list[EncodedPrompt], sampling: Sampling, keys: list[Place]) -> list[Sample]:
            return await super().generate(prompts, replace(sampling, stop=()), keys)

    with pytest.raises(AssertionError, match="goes on after a stop string"):
        asyncio.run(check_engine(Deaf(ScriptedConfig(), "none", 5, exact=True)))
