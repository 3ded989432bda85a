"""The checksum of pieces that lie side by side, from the checksums of the pieces."""

from functools import lru_cache

POLYNOMIAL = 0x82F63B78  # Castagnoli's, the lowest bit first
CHECKSUM_BITS = 32

Operator = tuple[int, ...]  # what becomes of each bit of a checksum, the lowest first


def joined_crc(first: int, second: int, second_nbytes: int) -> int:
    """CRC-32C of A + B from those of A and B. After zlib's crc32_combine."""
    return _apply(_zero_bytes(second_nbytes), first) ^ second


@lru_cache(maxsize=256)
def _zero_bytes(count: int) -> Operator:
    """What so many zero bytes make of a checksum: powers of what one zero bit makes of it."""
    result = tuple(1 << bit for bit in range(CHECKSUM_BITS))
    power: Operator = (POLYNOMIAL, *(1 << bit for bit in range(CHECKSUM_BITS - 1)))
    left = 8 * count
    while left:
        if left & 1:
            result = _after(power, result)
        power = _after(power, power)
        left >>= 1
    return result


def _after(second: Operator, first: Operator) -> Operator:
    return tuple(_apply(second, column) for column in first)


def _apply(operator: Operator, checksum: int) -> int:
    result = 0
    for column in operator:
        if checksum & 1:
            result ^= column
        checksum >>= 1
    return result
