"""An engine without a model: it runs the Python code of the last message in a sandbox, and replies with what came out.

A seat whose policy has this engine is AutoGen's user proxy that executes code (arXiv 2308.08155). As an engine's, its
replies are journalled, replayed on resume, counted as calls, and given up at a deadline. They cost no tokens: nothing
goes through a model.
"""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Sequence
from typing import Any

from coterie import sandbox
from coterie.agents.engines import chat
from coterie.agents.engines.base import Capability
from coterie.agents.engines.config import PythonConfig
from coterie.agents.engines.weights import refuse_adapters
from coterie.errors import EngineError
from coterie.text import PYTHON, blocks, clean, unfence
from coterie.types import EncodedPrompt, Place, Prompt, Sample, Sampling


class PythonEngine:
    """Runs fenced code blocks, each reply in a fresh sandbox; see `coterie.sandbox` for what shuts them in."""

    capabilities: frozenset[Capability] = frozenset()
    is_continuous = True

    def __init__(self, config: PythonConfig, model: str, seed: int, exact: bool) -> None:
        self.config, self.max_batch = config, config.max_batch
        self._isolation: sandbox.Isolation | None = None

    async def start(self) -> None:
        """Find out how code is isolated here.

        Raises:
            EnvironmentMissing: not at all, and it was not said that it may run all the same.
        """
        self._isolation = await asyncio.to_thread(sandbox.find)
        self._free = asyncio.Semaphore(self.config.max_batch)

    def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        """As they are; they cost nothing."""
        return [EncodedPrompt(prompt, 0) for prompt in prompts]

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        """As `base.Engine.generate`."""
        if self._isolation is None:
            raise EngineError("the engine was not started", where="PythonEngine", remedy="await start() first")
        refuse_adapters(prompts)
        replies = await asyncio.gather(*(self._reply(encoded.prompt, self._isolation) for encoded in prompts))
        return [Sample(_until(reply, sampling.stop), "stop", 0, 0) for reply in replies]

    async def _reply(self, prompt: Prompt, isolation: sandbox.Isolation) -> str:
        code = _find_code(chat.as_messages(prompt)[-1].content)
        if not code:
            return "There is no code to run. Put code between ```python and ```, and print the result."
        limits = sandbox.Limits(seconds=self.config.seconds, memory=self.config.memory * 2**20)
        async with self._free:
            result = await asyncio.to_thread(sandbox.run, code, (), limits, isolation)
        return _report(result, self.config.longest)

    async def close(self) -> None:
        """Nothing is left running between calls. Safe to call twice."""
        self._isolation = None

    def describe(self) -> dict[str, Any]:
        """As `base.Engine.describe`."""
        return {"engine": "python", "isolation": self._isolation.name if self._isolation else ""}


def _find_code(text: str) -> str:
    """The blocks of Python as one program: those that are called so, else those without a language."""
    lines = unfence(text).splitlines()
    found = [(language, textwrap.dedent("\n".join(lines[a:b]))) for a, b, language in blocks(lines)]
    called = [code for language, code in found if language in PYTHON[1:]]
    return "\n\n".join(called or [code for language, code in found if not language]).strip()


def _until(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0]
    return text


def _report(result: sandbox.Result, longest: int) -> str:
    """What an agent is told. It names no time and no path, so that the same code gives the same words."""
    shown = clean(result.stdout).strip()
    shown = shown if len(shown) <= longest else shown[:longest] + " [cut]"
    output = f"The code printed:\n{shown}" if shown else "The code printed nothing."
    if not result.error:
        return output
    reason = {"time": "it took too long", "exit": "its process ended early"}.get(result.error, clean(result.detail))
    return f"The code failed: {reason}\n{output}"
