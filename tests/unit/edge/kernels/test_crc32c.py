"""CRC-32C against its published check value and the bit-by-bit definition."""

import numpy as np
import pytest

from edge import _native, kernels, reference
from tests.unit.edge.kernels.random_arrays import Random


def test_published_values() -> None:
    """The catalogue's check value and the iSCSI vectors of RFC 3720, B.4."""
    assert kernels.crc32c(b"123456789") == 0xE3069283
    assert kernels.crc32c(bytes(32)) == 0x8A9136AA
    assert kernels.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert kernels.crc32c(bytes(range(32))) == 0x46DD794E
    assert kernels.crc32c(b"") == 0


@pytest.mark.parametrize("size", [1, 7, 8, 63, 3071, 3072, 3073, 9999])
@pytest.mark.parametrize("start", [0, 1])
def test_any_length_and_alignment(size: int, start: int, random: Random) -> None:
    data = random.rng.integers(0, 256, size + start, np.uint8)[start:]
    expected = reference.crc32c(data.tobytes())
    assert kernels.crc32c(data) == expected
    assert _native.crc32c(data, 0, True) == expected  # what a CPU without the instruction computes


def test_seed_continues_a_text() -> None:
    text = bytes(range(256)) * 40
    assert kernels.crc32c(text[777:], kernels.crc32c(text[:777])) == kernels.crc32c(text)


def test_what_is_not_contiguous_bytes_is_refused() -> None:
    with pytest.raises((ValueError, TypeError, BufferError)):
        kernels.crc32c(memoryview(b"abcdef")[::2])
