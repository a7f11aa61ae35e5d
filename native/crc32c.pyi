"""CRC-32C over bytes, in hardware where the CPU has it."""

from typing_extensions import Buffer

__all__ = ["HARDWARE", "crc32c", "crc32c_table_only"]

HARDWARE: bool

def crc32c(data: Buffer, value: int = 0) -> int:
    """Continue the CRC-32C ``value`` over ``data``; 32 bits, unsigned."""

def crc32c_table_only(data: Buffer, value: int = 0) -> int:
    """The same result without the CPU's instruction."""
