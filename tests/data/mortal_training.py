"""A plugin: a reward that any text can earn, in a process that dies when it is told to.

MORTAL="<number>" kills the process with SIGKILL before that commit of its journal; without the variable nothing
happens.
"""

import os
import signal
from typing import Literal

from coterie import register
from coterie.journal import Journal
from coterie.rewards.config import RewardConfig

_commit = Journal.commit
_left = int(os.environ.get("MORTAL", "-1"))


def _commit_or_die(self, facts=(), notes=()):
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    _commit(self, facts, notes)


Journal.commit = _commit_or_die


class DigitsConfig(RewardConfig):
    """The share of digits in a reply."""

    kind: Literal["digits"] = "digits"


class Digits:
    """See the config."""

    def __init__(self, config):
        pass

    def score(self, episode):
        return {key: sum(map(str.isdigit, t.text)) / max(len(t.text), 1) for key, t in episode.turns.items()}


register("reward", "digits", config=f"{__name__}:DigitsConfig", impl=f"{__name__}:Digits", summary="digits")
