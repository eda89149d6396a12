"""Every failure has a name: a code, what happened, where, and what to do.

A `CoterieError` is printed without a traceback and ends the command with its `exit_code`. Anything else that escapes
is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CoterieError(Exception):
    """Base of all named failures.

    Args:
        what: One sentence on what happened.
        where: The place: a file, a YAML path, a host, a turn.
        remedy: What the reader can do about it.
    """

    code: ClassVar[str] = "E_FAILED"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  what to do: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive the default pickling, and Ray sends errors between processes.
        return _rebuild, (type(self), self.what, self.where, self.remedy)


def _rebuild(kind: type[CoterieError], what: str, where: str, remedy: str) -> CoterieError:
    return kind(what, where=where, remedy=remedy)


class ConfigError(CoterieError):
    """The experiment file is wrong; nothing was started."""

    code = "E_CONFIG"
    exit_code = 2


class PluginError(ConfigError):
    """A plugin failed to import or registered something unusable."""

    code = "E_PLUGIN"


class EnvironmentMissing(CoterieError):
    """The machine lacks something: a package, a model, memory, a server, a key."""

    code = "E_ENVIRONMENT"
    exit_code = 3


class ResumeError(CoterieError):
    """A run cannot be taken up again."""

    code = "E_RESUME"
    exit_code = 4


class EngineError(CoterieError):
    """An engine failed, hung or answered with something that is no answer."""

    code = "E_ENGINE"


class EngineTimeout(EngineError):
    """An engine did not answer before the deadline."""

    code = "E_TIMEOUT"


class GradingTimeout(CoterieError):
    """The process that graded an answer was ended at its deadline or for its memory, or died."""

    code = "E_GRADING_TIMEOUT"


class WorkerLost(CoterieError):
    """An actor or its node died. The supervisor starts another and re-issues what was open."""

    code = "E_WORKER_LOST"


class JournalError(CoterieError):
    """The journal cannot be opened, written or trusted."""

    code = "E_JOURNAL"


class NondeterminismError(JournalError):
    """One key was written twice with different payloads."""

    code = "E_NONDETERMINISM"


class Interrupted(CoterieError):
    """The user stopped the run; everything journalled is kept."""

    code = "E_INTERRUPTED"
    exit_code = 130


class LearningError(CoterieError):
    """A policy cannot learn: a loss or a gradient is no number any more, or the model or the turns do not fit."""

    code = "E_LEARNING"


class CreditError(CoterieError):
    """Credit cannot be given: it would mint reward, or the model or the replies do not tell what its rule reads."""

    code = "E_CREDIT"


class ProtocolError(CoterieError):
    """A protocol raised where it should not."""

    code = "E_PROTOCOL"
