import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is for Linux on x86-64")
from coterie.attention.kernels import neighbor_triton
from coterie.attention.kernels.compilation import compile_kernel

TESTS = Path(__file__).with_name("test_neighbor.py")


def test_every_property_of_the_kernel_holds_under_the_interpreter():
    """In another process: the interpreter replaces Triton's compiler when Triton is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "COTERIE_ATTENTION": "triton", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(TESTS)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout


@pytest.mark.parametrize(("dtype", "width", "slots", "heads", "key_heads"), [
    ("fp32", 32, 16, 1, 1),
    ("bf16", 32, 16, 1, 1),
    ("fp16", 8, 16, 4, 2),
    ("fp32", 256, 64, 1, 1),
])  # fmt: skip
def test_kernels_compile_for_hopper_and_spill_nothing(dtype, width, slots, heads, key_heads):
    for name, (kernel, types, constants) in neighbor_triton.signatures(
        dtype, width, slots, heads=heads, key_heads=key_heads
    ).items():
        usage = compile_kernel(kernel, types, constants, **neighbor_triton.LAUNCH)
        assert usage.stack == 0, name
        assert usage.registers <= 128, f"{name}: {usage}"
        assert usage.vector_loads > 0, f"{name}: {usage}"


def test_the_form_with_biases_and_their_gradients_compiles_too():
    for name, (kernel, types, constants) in neighbor_triton.signatures("fp32", 32, 16, has_bias=True).items():
        assert compile_kernel(kernel, types, constants, **neighbor_triton.LAUNCH).stack == 0, name


def test_every_program_lies_on_the_first_axis_of_the_grid():
    flags = neighbor_triton.blocks(neighbor_triton.forward_kernel, 8, 1)
    assert neighbor_triton._grid(10**7, 8, flags) == (-(-(10**7) // flags["ROWS"]) * 8,)
