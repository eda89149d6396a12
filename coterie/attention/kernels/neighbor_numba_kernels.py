"""Kernels of `neighbor` for the CPU: numba, in vector registers, each for a range of rows.

One row of D numbers is one LLVM vector (`Lanes`), so that the sums over neighbours stay in registers: as loops over
arrays the same code runs at less than half the speed, because the compiler cannot know that output and input differ.
What kernels call stands in this file, too: numba keeps them on disk until the file they stand in changes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

# Without nnan and ninf: these would let the compiler assume that empty rows and infinite inputs do not happen.
_FAST = ("contract", "reassoc", "nsz", "arcp")


class Lanes(types.Type):  # type: ignore[misc]
    """The type of `width` numbers in vector registers."""

    def __init__(self, dtype: Any, width: int) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(f"Lanes({dtype}, {width})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(manager.lookup(lanes.dtype).get_value_type(), lanes.width))


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, vector: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _spread(builder: Any, scalar: Any, vector: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    pick = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), pick)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def load(context: Any, array: Any, offset: Any, width: Any) -> Any:
    """Lanes of a contiguous array, from an offset in elements on; `width` is a compile-time constant."""
    lanes = Lanes(array.dtype, width.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = context.get_value_type(lanes)
        place = _address(context, builder, array, args[0], args[1], vector)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return lanes(array, types.int64, width), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(context: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Write lanes into a contiguous array, from an offset in elements on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, array, args[0], args[1], context.get_value_type(lanes))
        builder.store(args[2], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def zeros(context: Any, array: Any, width: Any) -> Any:
    """Lanes of zeros, of an array's dtype."""
    lanes = Lanes(array.dtype, width.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(lanes), None)

    return lanes(array, width), generate


@intrinsic  # type: ignore[untyped-decorator]
def dot(context: Any, left: Any, right: Any) -> Any:
    """The inner product of two lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar, vector = context.get_value_type(left.dtype), context.get_value_type(left)
        name = f"llvm.vector.reduce.fadd.v{left.width}f{left.dtype.bitwidth}"
        reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(scalar, [scalar, vector]), name)
        product = builder.fmul(*args, flags=_FAST)
        return builder.call(reduce, [ir.Constant(scalar, -0.0), product], fastmath=_FAST)

    return left.dtype(left, left), generate


@intrinsic  # type: ignore[untyped-decorator]
def add(context: Any, lanes: Any, factor: Any, other: Any) -> Any:
    """Lanes + factor * other."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scaled = builder.fmul(_spread(builder, args[1], args[2].type), args[2], flags=_FAST)
        return builder.fadd(args[0], scaled, flags=_FAST)

    return lanes(lanes, lanes.dtype, lanes), generate


@intrinsic  # type: ignore[untyped-decorator]
def times(context: Any, lanes: Any, factor: Any) -> Any:
    """Lanes * factor."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(args[0], _spread(builder, args[1], args[0].type), flags=_FAST)

    return lanes(lanes, lanes.dtype), generate


@intrinsic  # type: ignore[untyped-decorator]
def _as_float(context: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


def _exp(x: Any) -> Any: ...


@overload(_exp, inline="always")  # type: ignore[untyped-decorator]
def _exp_for(x: Any) -> Callable[[Any], Any]:
    """e^x for x <= 0; in fp32 a polynomial, which vectorises and is as near as its argument's last bit."""

    def exact(x: Any) -> Any:
        return math.exp(x)

    def fast(x: Any) -> Any:
        power = x * np.float32(1.4426950408889634)
        if power < np.float32(-126):  # which NaN is not, so that it stays
            power = np.float32(-126)
        whole = np.floor(power + np.float32(0.5))
        f = power - whole
        # 2^f for |f| <= 1/2, fitted for the smallest relative error, which is 2e-9.
        value = f * np.float32(1.535335306e-4) + np.float32(1.339887459e-3)
        value = value * f + np.float32(9.618437358e-3)
        value = value * f + np.float32(5.550332471e-2)
        value = value * f + np.float32(2.402264791e-1)
        value = value * f + np.float32(6.931472029e-1)
        value = value * f + np.float32(1)
        return value * _as_float(np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)))

    return fast if x == types.float32 else exact


@njit(inline="always")  # type: ignore[untyped-decorator]
def _score(
    width: Any, i: Any, h: Any, q: Any, k: Any, index: Any, distance: Any, slope: Any, bias: Any, scale: Any,
    heads: Any, key_heads: Any, s: Any
) -> Any:  # fmt: skip
    """Write the logits of one query and head into s [K], -inf into empty slots; returns how many are not empty."""
    found = 0
    if q is not None:
        row = load(q, (i * heads + h) * width, width)
    key_head = h // (heads // key_heads)
    for j in range(index.shape[1]):
        m = index[i, j]
        if m < 0:
            s[j] = -np.inf
            continue
        found += 1
        x = s.dtype.type(0)
        if q is not None:
            x += scale * dot(row, load(k, (m * key_heads + key_head) * width, width))
        if distance is not None:
            x -= slope[h] * distance[i, j]
        if bias is not None:
            x += bias[i, j, h]
        s[j] = x
    return found


@functools.cache
def forward_kernel(width: int) -> Any:
    """By query: output and lse."""

    @njit(nogil=True, fastmath=set(_FAST), error_model="numpy", cache=True)
    def forward(low, high, q, k, v, index, distance, slope, bias, scale, o, lse):  # type: ignore[no-untyped-def]
        heads, key_heads = o.shape[1], v.shape[1]
        s = np.empty(index.shape[1], o.dtype)
        for i in range(low, high):
            for h in range(heads):
                found = _score(width, i, h, q, k, index, distance, slope, bias, scale, heads, key_heads, s)
                top = s.dtype.type(-np.inf)
                for j in range(len(s)):
                    top = max(top, s[j])
                total = s.dtype.type(0)
                for j in range(len(s)):
                    s[j] = _exp(s[j] - top)
                    total += s[j]
                row = zeros(o, width)
                if found:
                    key_head = h // (heads // key_heads)
                    for j in range(len(s)):
                        m = index[i, j]
                        if m >= 0:
                            row = add(row, s[j], load(v, (m * key_heads + key_head) * width, width))
                    row = times(row, 1 / total)
                    lse[i, h] = top + math.log(total)
                else:
                    lse[i, h] = -np.inf
                store(o, (i * heads + h) * width, row)

    return forward


@functools.cache
def backward_rows_kernel(width: int) -> Any:
    """By query: gradients of q, distance, slope and bias, and what the pass by key reads: p and dL/ds of each edge."""

    @njit(nogil=True, fastmath=set(_FAST), error_model="numpy", cache=True)
    def backward_rows(  # type: ignore[no-untyped-def]
        low, high, size, q, k, v, index, distance, slope, bias, scale, o, lse, grad_o, grad_lse, grad_q,
        grad_distance, grad_slope, edges
    ):  # fmt: skip
        slots, heads, key_heads = index.shape[1], lse.shape[1], v.shape[1]
        s = np.empty(slots, v.dtype)
        part = low // size
        for i in range(low, high):
            for h in range(heads):
                key_head = h // (heads // key_heads)
                _score(width, i, h, q, k, index, distance, slope, bias, scale, heads, key_heads, s)
                is_empty = lse[i, h] == -np.inf
                for j in range(slots):
                    s[j] = _exp(s[j] - lse[i, h])
                out = load(grad_o, (i * heads + h) * width, width)
                mean = dot(out, load(o, (i * heads + h) * width, width)) - grad_lse[i, h]
                row, sloped = zeros(v, width), v.dtype.type(0)
                for j in range(slots):
                    m, edge = index[i, j], i * slots + j
                    if m < 0 or is_empty:
                        edges[edge, h, 0] = 0
                        edges[edge, h, 1] = 0
                        continue
                    d = s[j] * (dot(out, load(v, (m * key_heads + key_head) * width, width)) - mean)
                    edges[edge, h, 0] = s[j]
                    edges[edge, h, 1] = d
                    if q is not None:
                        row = add(row, d, load(k, (m * key_heads + key_head) * width, width))
                    if distance is not None:
                        grad_distance[i, j] -= slope[h] * d
                        sloped -= distance[i, j] * d
                if q is not None:
                    store(grad_q, (i * heads + h) * width, times(row, scale))
                if distance is not None:
                    grad_slope[part, h] += sloped

    return backward_rows


@functools.cache
def backward_keys_kernel(width: int) -> Any:
    """By key: gradients of k and v, summed over incoming edges in their order."""

    @njit(nogil=True, fastmath=set(_FAST), error_model="numpy", cache=True)
    def backward_keys(low, high, q, grad_o, edges, offsets, incoming, slots, scale, grad_k, grad_v):  # type: ignore[no-untyped-def]
        heads, key_heads = grad_o.shape[1], grad_v.shape[1]
        group = heads // key_heads
        reciprocal = 1.0 / slots
        for m in range(low, high):
            for key_head in range(key_heads):
                keys, values = zeros(grad_v, width), zeros(grad_v, width)
                for place in range(offsets[m], offsets[m + 1]):
                    edge = np.int64(incoming[place])
                    i = np.int64((edge + 0.5) * reciprocal)  # exact, and far cheaper than an integer division
                    for h in range(key_head * group, (key_head + 1) * group):
                        p, d = edges[edge, h, 0], edges[edge, h, 1]
                        if p == 0 and d == 0:  # not allowed: 0 times what an idle query holds may be NaN
                            continue
                        values = add(values, p, load(grad_o, (i * heads + h) * width, width))
                        if q is not None:
                            keys = add(keys, d, load(q, (i * heads + h) * width, width))
                store(grad_v, (m * key_heads + key_head) * width, values)
                if q is not None:
                    store(grad_k, (m * key_heads + key_head) * width, times(keys, scale))

    return backward_keys


@njit(nogil=True, cache=True)
def count_and_place(index, offsets, edges):  # type: ignore[no-untyped-def]
    """A counting sort by key; offsets begin as zeros [M + 2] and end one place to the right."""
    for edge in range(len(index)):
        offsets[index[edge] + 2 if index[edge] >= 0 else 0] += 1
    empty = offsets[0]
    offsets[0], offsets[1] = 0, empty
    for m in range(2, len(offsets)):
        offsets[m] += offsets[m - 1]
    empty = 0
    for edge in range(len(index)):
        if index[edge] < 0:
            edges[empty] = edge
            empty += 1
        else:
            edges[offsets[index[edge] + 1]] = edge
            offsets[index[edge] + 1] += 1
    offsets[0] = empty
