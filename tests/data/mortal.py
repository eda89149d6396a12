"""A plugin: the scripted engine in a process that dies when it is told to.

MORTAL="<call> <seconds>" kills the process with SIGKILL so many seconds after that call of the engine began; without
the variable nothing happens.
"""

import os
import signal
import threading
from typing import Literal

from coterie import register
from coterie.testing.config import ScriptedConfig
from coterie.testing.scripted import ScriptedEngine


class MortalConfig(ScriptedConfig):
    """Like scripted."""

    kind: Literal["mortal"] = "mortal"


class MortalEngine(ScriptedEngine):
    """See the module."""

    async def generate(self, prompts, sampling, keys):
        call, seconds = (float(x) for x in os.environ.get("MORTAL", "-1 0").split())
        if self.num_calls == call:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return await super().generate(prompts, sampling, keys)


register("engine", "mortal", config=f"{__name__}:MortalConfig", impl=f"{__name__}:MortalEngine", summary="dies")
