"""Grading in processes of its own."""

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from coterie.envs.grading import GradingPool
from coterie.errors import EnvironmentMissing, GradingTimeout

EQUAL = "coterie.envs.equality:is_equal"


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    """One pool for this file, with a short deadline."""
    made = GradingPool(EQUAL, size=2, cpu_seconds=1.0)
    yield made
    made.close()


def children() -> set[int]:
    """Ids of this process's children."""
    listed = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True)
    return {int(word) for word in listed.stdout.split()}


def test_no_process_is_started_before_the_first_call_and_none_is_left_after_close() -> None:
    before = children()
    made = GradingPool("operator:add")
    gc.collect()
    assert not children() - before
    assert made.call(2, 3) == 5
    assert len(children() - before) == 1
    made.close()
    assert not children() - before
    assert made.call("a", "b") == "ab"
    made.close()


HOSTILE = (
    "10**10**10", "9^{9^{9^{9}}}", r"\binom{10^9}{10^8}", "(" * 900 + "1" + ")" * 900,
    r"\frac{" * 300 + "1" + "}{2}" * 300, "x" * 2_000, "\x00\ud800", "__import__('os').getpid()",
)  # fmt: skip


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_answer_is_not_right_and_ends_in_time(pool: GradingPool, answer: str) -> None:
    start = time.monotonic()
    with contextlib.suppress(GradingTimeout):
        assert pool.call("3", answer) is not True
    assert time.monotonic() - start < 60


def test_a_call_that_hangs_is_ended_and_counted_and_the_next_one_works(pool: GradingPool) -> None:
    before = pool.num_killed
    with pytest.raises(GradingTimeout, match="could not be graded: it died"):
        pool.call("3", "9^{9^{9^{9}}}")
    assert pool.call("3", "3.0") is True
    assert pool.num_killed == before + 1


def test_a_child_that_sleeps_is_ended_by_the_limit_of_wall_time() -> None:
    made = GradingPool("time:sleep", size=1, wall_seconds=0.2)
    with pytest.raises(GradingTimeout, match=r"no word within 0\.2 s"):
        made.call(60)
    assert made.num_killed == 1
    made.close()


def test_a_child_that_dies_is_replaced() -> None:
    made = GradingPool("os:_exit", size=1)
    for status in (1, 0):
        with pytest.raises(GradingTimeout):
            made.call(status)
    assert made.num_killed == 2
    made.close()


def test_a_child_that_takes_all_memory_is_stopped() -> None:
    made = GradingPool("operator:mul", size=1, cpu_seconds=30.0)
    start = time.monotonic()
    assert made.call("x", 50_000_000_000) is None
    assert time.monotonic() - start < 30
    made.close()


def test_an_error_is_no_result_and_keeps_the_child() -> None:
    made = GradingPool("operator:truediv", size=1)
    assert made.call(1, 0) is None
    assert made.call(1, 2) == 0.5
    assert made.num_killed == 0
    made.close()


def test_calls_from_several_threads_share_the_children(pool: GradingPool) -> None:
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(pool.call(str(n), f"{n}.0")))  # type: ignore[misc]
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


def test_a_function_that_is_not_there_is_named() -> None:
    with pytest.raises(EnvironmentMissing, match="no_such_module"):
        GradingPool("no_such_module:f").call()


def test_a_child_knows_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1234")
    made = GradingPool("os:getenv", size=1)
    assert made.call("OPENAI_API_KEY") is None
    assert made.call("PATH")
    made.close()


def test_a_script_that_ends_leaves_no_child_and_says_nothing() -> None:
    code = (
        "from coterie.envs.grading import shared_pool; pool = shared_pool('os:getpid'); print(pool.call()); "
        "assert pool is shared_pool('os:getpid')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_call_that_was_interrupted_gives_its_answer_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    made = GradingPool("operator:add", size=1)
    assert made.call(1, 1) == 2

    def interrupt(seconds: float) -> bool:
        raise KeyboardInterrupt

    (child,) = made._slots.queue
    assert child is not None
    monkeypatch.setattr(child, "_receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.call(2, 2)
    assert made.call(3, 3) == 6
    made.close()
