"""What the Triton kernels need on a Hopper GPU: registers, spills, shared memory. Compiles them; no GPU is there.

    python benchmarks/kernel_registers.py

Joins what other kernels' functions in `KERNELS` give; each yields (configuration, kernel name, usage).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _results import save

from coterie.attention.kernels import neighbor_triton, stats_triton, tile_triton
from coterie.attention.kernels.compilation import Usage, compile_kernel

Row = tuple[str, str, Usage]


def neighbor() -> Iterator[Row]:
    for dtype in ("fp32", "bf16"):
        for width, slots, heads in ((8, 16, 4), (10, 6, 1), (32, 16, 1), (64, 32, 1), (256, 64, 1)):
            for has_empty in (False, True):
                shape = {"heads": heads, "key_heads": heads, "has_empty": has_empty}
                for name, signature in neighbor_triton.signatures(dtype, width, slots, **shape).items():
                    usage = compile_kernel(*signature, **neighbor_triton.LAUNCH)
                    slots_are = "some empty" if has_empty else "all full"
                    yield f"{dtype}, D={width}, K={slots}, H={heads}, slots {slots_are}", name, usage


def stats() -> Iterator[Row]:
    for dtype, width in (("bf16", 64), ("bf16", 128), ("bf16", 256), ("fp32", 64), ("fp32", 128)):
        for name, (kernel, types, constants, options) in stats_triton.signatures(dtype, width).items():
            usage = compile_kernel(kernel, types, constants, aligned=stats_triton.STRIDES, **options)
            yield f"{dtype}, D={width}", name, usage


def tile() -> Iterator[Row]:
    for dtype, width, rank, rows, shared in (
        ("bf16", 64, 0, 128, 1), ("bf16", 128, 0, 128, 1), ("bf16", 64, 8, 128, 1),
        ("bf16", 64, 0, 1, 4), ("bf16", 128, 0, 1, 16), ("fp32", 64, 0, 128, 1),
    ):  # fmt: skip
        for name, (kernel, types, constants, options) in tile_triton.signatures(
            dtype, width, rank, rows, shared
        ).items():
            usage = compile_kernel(kernel, types, constants, aligned=tile_triton.STRIDES, **options)
            yield f"{dtype}, D={width}, R={rank}, rows={rows}, heads together={shared}", f"tile {name}", usage


KERNELS: list[Callable[[], Iterator[Row]]] = [neighbor, stats, tile]


if __name__ == "__main__":
    rows = [
        {"kernel": name, "configuration": configuration, **usage._asdict()}
        for kernel in KERNELS
        for configuration, name, usage in kernel()
    ]
    for row in rows:
        # Tiles of four warps that spill a little are quicker than of eight that do not.
        assert row["stack"] <= (512 if row["kernel"].startswith("tile") else 0), f"it spills registers: {row}"
    save("kernel_registers", {"target": "sm_90", "kernels": rows})
