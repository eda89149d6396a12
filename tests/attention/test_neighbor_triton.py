import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is for Linux on x86-64")
from coterie.attention.kernels import neighbor_triton
from coterie.attention.kernels.compilation import compile_kernel

TESTS = Path(__file__).with_name("test_neighbor.py")


def run_properties(*options: str, **environment: str) -> str:
    """Pytest's words on `test_neighbor.py`, run with Triton's form in another process."""
    everything = {**os.environ, "COTERIE_ATTENTION": "triton", "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *options, str(TESTS)]
    result = subprocess.run(command, env=everything, capture_output=True, text=True, timeout=560)
    assert result.returncode == 0, result.stdout[-3000:]
    return result.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", ["formulas or idle or empty or nan", pytest.param("test", marks=pytest.mark.slow)])
def test_the_properties_of_the_kernel_hold_under_the_interpreter(which):
    """In another process: the interpreter replaces Triton's compiler when Triton is imported."""
    assert " passed" in run_properties("-k", which, TRITON_INTERPRET="1")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_every_property_of_the_kernel_holds_on_a_gpu_in_all_dtypes():
    assert " passed" in run_properties("-n", "8", TRITON_INTERPRET="0")


@pytest.mark.parametrize(("dtype", "width", "slots", "heads", "key_heads"), [
    ("fp32", 32, 16, 1, 1),
    ("bf16", 32, 16, 1, 1),
    ("fp16", 8, 16, 4, 2),
    ("fp32", 256, 64, 1, 1),
])  # fmt: skip
@pytest.mark.parametrize("has_empty", [False, True])
def test_kernels_compile_for_hopper_and_spill_nothing(dtype, width, slots, heads, key_heads, has_empty):
    for name, (kernel, types, constants) in neighbor_triton.signatures(
        dtype, width, slots, heads=heads, key_heads=key_heads, has_empty=has_empty
    ).items():
        usage = compile_kernel(kernel, types, constants, **neighbor_triton.LAUNCH)
        assert usage.stack == 0, name
        assert usage.registers <= 168, f"{name}: {usage}"  # twelve programs to a multiprocessor
        assert usage.vector_loads > 0, f"{name}: {usage}"


def test_the_form_with_biases_and_their_gradients_compiles_too():
    for name, (kernel, types, constants) in neighbor_triton.signatures("fp32", 32, 16, has_bias=True).items():
        assert compile_kernel(kernel, types, constants, **neighbor_triton.LAUNCH).stack == 0, name


def test_every_program_lies_on_the_first_axis_of_the_grid():
    flags = neighbor_triton.blocks(neighbor_triton.forward_kernel, 8, 1, 4)
    assert neighbor_triton._grid(10**7, 8, flags) == (-(-(10**7) // flags["ROWS"]) * 8,)
