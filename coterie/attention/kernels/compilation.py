"""What a Triton kernel needs of a GPU, learnt by compiling it: no GPU, no driver."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HOPPER = 90


class Usage(NamedTuple):
    """Of one program.

    Attributes:
        registers: Per thread; 255 at most.
        stack: Bytes per thread, which is where registers are spilled to.
        shared: Bytes per program.
        vector_loads: Instructions that load two numbers or more at once.
    """

    registers: int
    stack: int
    shared: int
    vector_loads: int


def compile_kernel(
    kernel: Any,
    types: Mapping[str, str],
    constants: Mapping[str, object],
    *,
    num_warps: int,
    num_stages: int | None = None,
    maxnreg: int | None = None,
    capability: int = HOPPER,
    aligned: Collection[str] = (),
) -> Usage:
    """Compile a kernel to a binary for an NVIDIA GPU. Pointers are taken to be aligned to 16 bytes, as torch's are.

    Args:
        kernel: Made by `triton.jit`, while TRITON_INTERPRET is not set.
        types: Of its arguments: "*fp32", "i64".
        constants: Its other arguments.
        num_warps: Per program.
        num_stages: Of the pipeline of loads; by default what Triton takes.
        maxnreg: Registers per thread at most.
        capability: Ten times the compute capability.
        aligned: Integers, such as strides, that are multiples of 16: what Triton sees when it launches the kernel.
    """
    names = list(kernel.arg_names)
    sixteens = [place for place, name in enumerate(names) if types.get(name, "").startswith("*") or name in aligned]
    source = ASTSource(
        kernel,
        {name: types.get(name, "constexpr") for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(place,): [["tt.divisibility", 16]] for place in sixteens},
    )
    wanted = {"num_warps": num_warps, "num_stages": num_stages, "maxnreg": maxnreg}
    options = {name: value for name, value in wanted.items() if value is not None}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    loads = re.findall(r"ld\.global\S*\.v[248]\.", compiled.asm["ptx"])
    return Usage(*_read_resources(compiled.asm["cubin"]), compiled.metadata.shared, len(loads))


def _read_resources(binary: bytes) -> tuple[int, int]:
    """Registers and stack."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK):(\d+)", report)}
    return found["REG"], found["STACK"]
