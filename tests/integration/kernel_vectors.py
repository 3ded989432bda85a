"""Inputs of the native kernels and the results that the numpy reference has for them, as the file that
edge/native/selftest.cpp reads: it tests a build that no Python here can load."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge import reference
from edge.checkpoint.layout import Format, MatrixLayout
from tests.unit.edge.kernels.random_arrays import FLOATS, QUANTIZED, Random

ALIGNMENT = 64
TOKENS = (1, 2, 3, 5, 7, 16, 33)


@dataclass(frozen=True, slots=True)
class Case:
    """One call: the kernel's sizes and arrays in the order that selftest.cpp names, and what it must return."""

    name: str
    sizes: Sequence[int]
    arrays: Sequence[NDArray[Any]]
    expected: NDArray[Any]
    limit: float = 2e-6  # relative L2 distance


def write_vectors(path: Path, cases: Sequence[Case]) -> None:
    """Write the file."""
    out = bytearray(struct.pack("<q", len(cases)))
    for case in cases:
        out += struct.pack(f"<q{len(case.name)}s", len(case.name), case.name.encode())
        out += struct.pack(f"<q{len(case.sizes)}q", len(case.sizes), *case.sizes)
        arrays = [*case.arrays, np.array([case.limit], np.float64), case.expected.astype(np.float32)]
        out += struct.pack("<q", len(arrays))
        for array in arrays:
            out += struct.pack("<q", array.nbytes)
            out += bytes(-len(out) % ALIGNMENT) + array.tobytes()
    path.write_bytes(out)


def all_cases() -> list[Case]:
    """Every kernel on sizes that fit no vector, tile or task; the products in every format."""
    random = Random(31)
    return [*_products(random), *_experts(random), *_layers(random)]


def _products(random: Random) -> Iterator[Case]:
    for form in Format:
        for (rows, cols, group), tokens in zip([(37, 50, 64), (5, 64, 128), (85, 700, 192)] * 3, TOKENS, strict=False):
            w, x = random.matrix(form, rows, cols, group), random.floats(tokens, cols)
            yield Case("matmul", _sizes(w.layout), [w.data, x], reference.matmul(x, w))


def _experts(random: Random) -> Iterator[Case]:
    for form in (*FLOATS, *QUANTIZED):
        layout, block = random.expert(form, 72, 130)
        x, rows = random.floats(4, 130), np.array([3, 0, 1], np.int32)
        sizes = [*_sizes(layout.gate), *_sizes(layout.up), *_sizes(layout.down)]
        sizes += [layout.gate_offset, layout.up_offset, layout.down_offset, layout.block_bytes]
        # Between the products an activation may lie between two integers, where its last bits decide.
        yield Case("expert_ffn", sizes, [block, x, rows], reference.expert_ffn(x[rows], block, layout), 3e-5)


def _layers(random: Random) -> Iterator[Case]:
    q, k, v = random.floats(9, 6, 40), random.floats(80, 2, 40), random.floats(80, 2, 40)
    yield Case("attention", [9, 62, 6, 2, 40], [q, k, v], reference.attention(q, k, v, 62))
    q, k, v = random.floats(9, 2, 24), random.floats(9, 2, 24), random.floats(9, 6, 45)
    g, beta, state = -abs(random.floats(9, 6)), abs(random.floats(9, 6)) % 1, random.floats(6, 24, 45)
    delta = reference.gated_delta(q, k, v, g, beta, state.copy())
    yield Case("gated_delta", [9, 2, 6, 24, 45], [q, k, v, g, beta, state], delta)
    x, weight, inputs = random.floats(29, 301), random.floats(4, 301), random.floats(3, 301)
    convolved = reference.causal_conv(x, weight, inputs.copy())
    yield Case("causal_conv", [29, 301, 4], [x, weight, inputs], convolved)
    x, weight = random.floats(19, 77), random.floats(77)
    yield Case("rms_norm", [19, 77], [x, weight], reference.rms_norm(x, weight, 1e-6, plus_one=False))
    yield Case("silu_mul", [19 * 77], [x, x[::-1].copy()], reference.silu_mul(x, x[::-1]))
    yield Case("route", [19, 77, 5], [x], reference.route(x, 5)[1])
    text = random.rng.integers(0, 256, 9999, np.uint8)
    crc = reference.crc32c(text.tobytes())
    yield Case("crc32c", [], [text], np.array([crc >> 16, crc & 0xFFFF]), 0)


def _sizes(layout: MatrixLayout) -> list[int]:
    """As the native MatrixLayout takes them."""
    shape = [int(layout.format), layout.rows, layout.cols, layout.group]
    return [*shape, layout.padded_cols, layout.record_bytes, layout.nbytes]
