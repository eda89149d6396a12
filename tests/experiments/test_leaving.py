import asyncio
import subprocess
import sys
import threading

import pytest

from coterie.experiments.leaving import finished, in_thread


def test_work_in_a_thread_gives_its_result_or_its_error():
    assert asyncio.run(in_thread(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_thread(divmod, 7, 0))


def test_nobody_waits_for_work_whose_caller_was_cancelled():
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        go_on.wait(60)
        ended.set()

    async def cancel():
        asked = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(begun.wait, 60)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(cancel())
    assert not ended.is_set()
    go_on.set()
    assert ended.wait(60)


def test_work_that_is_to_be_finished_is_so_before_its_caller_is_cancelled():
    begun, go_on, kept = threading.Event(), threading.Event(), []

    def write():
        begun.set()
        return go_on.wait(60)

    async def commit():
        kept.append(await asyncio.to_thread(write))

    async def cancel():
        asked = asyncio.create_task(finished(commit()))
        await asyncio.to_thread(begun.wait, 60)
        asked.cancel()
        await asyncio.wait([asked], timeout=0.01)
        assert not asked.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(cancel())
    assert kept == [True]


def test_a_process_ends_at_once_with_its_code_and_all_it_has_said():
    code = """
import asyncio, threading
from coterie.experiments.leaving import in_thread, leave
async def begin():
    asyncio.create_task(in_thread(threading.Event().wait))
    await asyncio.sleep(0)
asyncio.run(begin())
print("said", end="")
leave(130)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "said", "")
