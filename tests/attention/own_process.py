"""Code in a process of its own, as Triton's interpreter wants it: it replaces kernels when they are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    start = f"""
import json, os, sys, traceback
sys.path.insert(0, {str(Path(__file__).parent)!r})
import own_process
own_process.hasten_interpreter()
failures = {{}}
"""
    end = "\nprint(json.dumps(failures))\n"
    found: dict[str, str] = json.loads(run(preamble + start + "".join(attempts) + end, TRITON_INTERPRET="1"))
    return found


def hasten_interpreter() -> None:
    """Triton's interpreter patches its language whenever a kernel calls a function: longer work than the function.

    The kernel's own launch has patched it by then. What only a function reads is patched when that is first called.
    """
    from triton.runtime import interpreter

    known = set()

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        if function.fn not in known:
            known.add(function.fn)
            interpreter._patch_lang(function.fn)
        return function.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call  # type: ignore[method-assign]
