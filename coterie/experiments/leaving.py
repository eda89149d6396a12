"""Work that a second Ctrl-C does not wait for, and work that it does not cut short.

An update, or the start of a learner, may take minutes, and cannot be ended from outside. What it was about to learn is
in no checkpoint yet, so it is left where it is, `in_thread`: its thread ends with the process. A checkpoint takes
seconds, and with the facts that lead to it it is `finished`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_NAME = "coterie-left-to-itself"


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """As `asyncio.to_thread`, but if the caller is cancelled, nobody waits for the thread any more."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work(*arguments)
        except BaseException as cause:
            error = cause
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=_NAME, daemon=True).start()
    return await done


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """What comes of some work; a caller that is cancelled meanwhile is so when it is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def leave(code: int) -> int:
    """The exit code of this process; ends it at once if such work still goes on, which the interpreter would tear."""
    if any(thread.name == _NAME for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
