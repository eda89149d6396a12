"""Code in a process of its own, as Triton's interpreter wants it: it replaces kernels when they are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping

_ATTEMPT = """
try:
{code}
except Exception:
    failures[{name!r}] = traceback.format_exc()
"""


def run(code: str, **environment: str) -> str:
    """What it prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def interpret(preamble: str, cases: Mapping[str, str]) -> dict[str, str]:
    """All cases after one preamble, under Triton's interpreter: by case what went wrong."""
    attempts = [_ATTEMPT.format(code=textwrap.indent(code, "    "), name=name) for name, code in cases.items()]
    start, end = "\nimport json, os, traceback\nfailures = {}\n", "\nprint(json.dumps(failures))\n"
    found: dict[str, str] = json.loads(run(preamble + start + "".join(attempts) + end, TRITON_INTERPRET="1"))
    return found
