"""Slow twin of ``native/crc32c``: one bit-reflected table, one byte at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["HARDWARE", "crc32c", "crc32c_table_only"]

HARDWARE = False
_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected; RFC 3720 appendix B.4


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_entry(byte) for byte in range(256))


def crc32c(data: Buffer, value: int = 0) -> int:
    """Continue the CRC-32C ``value`` over ``data``."""
    if not 0 <= value <= 0xFFFFFFFF:
        raise OverflowError("value is not a 32-bit unsigned integer")
    crc = value ^ 0xFFFFFFFF
    for byte in memoryview(data).cast("B"):
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


crc32c_table_only = crc32c
