"""Codes to the 64-byte vectors of a record and back. The order of bytes and bits: edge/checkpoint/layout.py."""

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import QUAD_COLUMNS, RUN_COLUMNS, RUN_QUADS, TILE_ROWS, Format

Codes = NDArray[np.uint8]
Words = NDArray[np.uint32]  # four codes, or parts of them, of one row


def pack_tiles(codes: Codes, form: Format, group: int) -> Words:
    """Codes of whole tiles as vectors.

    Shapes: codes [16 * T, C], C a multiple of `group`; result [T, C / group, vectors, 16].
    """
    quads = codes.view(np.uint32).reshape(-1, TILE_ROWS, codes.shape[1] // QUAD_COLUMNS).transpose(0, 2, 1)
    # [T, runs, 16 quads, 16 rows]
    runs = np.ascontiguousarray(quads).reshape(len(quads), -1, RUN_QUADS, TILE_ROWS)
    planes, lowest = [], 0
    for width in form.planes:
        planes.append(_join(runs >> np.uint32(lowest) & _mask(width) if len(form.planes) > 1 else runs, width))
        lowest += width
    joined = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
    return joined.reshape(len(quads), codes.shape[1] // group, -1, TILE_ROWS)


def unpack_lanes(words: Words, form: Format) -> Codes:
    """One lane of a record's vectors for each row and group. Shapes: [R, G, vectors]; result [R, G, group]."""
    num_rows, num_groups, num_vectors = words.shape
    run_vectors = RUN_QUADS * form.bits // 8
    runs = words.reshape(num_rows, num_groups * num_vectors // run_vectors, run_vectors)
    quads, lowest, start = np.zeros((*runs.shape[:2], RUN_QUADS), np.uint32), 0, 0
    for width in form.planes:
        end = start + RUN_QUADS * width // 8
        quads |= _split(runs[:, :, start:end], width) << np.uint32(lowest)
        lowest, start = lowest + width, end
    return quads.view(np.uint8).reshape(num_rows, num_groups, num_vectors // run_vectors * RUN_COLUMNS)


def _join(quads: Words, width: int) -> Words:
    """As many quads of `width` bits per code into a vector as go in: [T, runs, 16, 16] to [T, runs, 2 width, 16]."""
    parts = quads.reshape(*quads.shape[:2], -1, 8 // width, TILE_ROWS)
    joined = parts[:, :, :, 0]
    for place in range(1, 8 // width):
        joined = joined | parts[:, :, :, place] << np.uint32(place * width)
    return joined


def _split(vectors: Words, width: int) -> Words:
    """The reverse for one lane: [R, runs, 2 width] to [R, runs, 16]."""
    shifts = np.arange(0, 8, width, dtype=np.uint32)
    return (vectors[:, :, :, None] >> shifts & _mask(width)).reshape(*vectors.shape[:2], RUN_QUADS)


def _mask(width: int) -> np.uint32:
    """The lowest `width` bits of each byte."""
    return np.uint32(0x01010101 * (2**width - 1))
