# cython: language_level=3, boundscheck=False, wraparound=False
"""CRC-32C over bytes, in hardware where the CPU has it. Not a MAC: it finds accidents, never attacks.

Invariant: ``crc32c(b, crc32c(a)) == crc32c(a + b)``.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef extern from "crc32c.h" nogil:
    int crc32c_uses_hardware
    void crc32c_init()
    uint32_t crc32c_update(uint32_t value, const uint8_t *data, size_t length)
    uint32_t crc32c_by_table(uint32_t crc, const uint8_t *data, size_t length)

__all__ = ["HARDWARE", "crc32c", "crc32c_table_only"]

crc32c_init()
HARDWARE = bool(crc32c_uses_hardware)


def crc32c(const uint8_t[::1] data not None, uint32_t value=0):
    """Continue the CRC-32C ``value`` over ``data``."""
    cdef size_t length = data.shape[0]
    if length == 0:
        return value
    if length < 4096:
        return crc32c_update(value, &data[0], length)
    with nogil:
        value = crc32c_update(value, &data[0], length)
    return value


def crc32c_table_only(const uint8_t[::1] data not None, uint32_t value=0):
    """The same by table, so that a test reaches this path on a CPU with the instruction."""
    cdef size_t length = data.shape[0]
    if length == 0:
        return value
    return <uint32_t>~crc32c_by_table(~value, &data[0], length)
