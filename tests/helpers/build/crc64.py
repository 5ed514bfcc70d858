"""CRC-64/GO-ISO, the checksum that tar-split keeps of every file."""

from __future__ import annotations

_ONES = (1 << 64) - 1


def crc64(data: bytes) -> bytes:
    """Eight bytes, big-endian.

    The generator x^64 + x^4 + x^3 + x + 1 is sparse, and squaring is linear over GF(2), so for any
    power of two k x^(64k) = x^(4k) + x^(3k) + x^k + 1. Whole halves of a long message thus fold
    onto the rest with four shifts of one big integer, which is far faster here than a table walk.
    Bit 0 is the highest power: the CRC is a reflected one.
    """
    bits = 8 * len(data) + 64
    value = int.from_bytes(data, "little") ^ _ONES
    while bits > 64:
        k = 1 << (((bits - 1) // 64).bit_length() - 1)
        high_bits = bits - 64 * k
        high, low = value & ((1 << high_bits) - 1), value >> high_bits
        bits = max(64 * k, high_bits + 4 * k)
        room = bits - high_bits
        value = low << (bits - 64 * k)
        value ^= (
            (high << room) ^ (high << room - k) ^ (high << room - 3 * k) ^ (high << room - 4 * k)
        )
    return (value ^ _ONES).to_bytes(8, "big")
