import os
import subprocess
import sys

import pytest

ONE = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from coterie.envs.cores import count_cores"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores here")
def test_cores_that_are_not_allowed_do_not_count():
    command = [sys.executable, "-c", f"{ONE}; print(count_cores())"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "1"
