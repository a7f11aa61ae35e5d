"""Range coder of the twin: symbols are collected in reading order and coded backwards; 32-bit states, 16-bit words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from native.reference.tables import HEAD, Table
from native.shared import DecodeError

__all__ = ["PROBABILITY", "STATE_LOW", "Source", "Symbols"]

PROBABILITY = 4096
STATE_LOW = 65536
_BITS = 12
_READING_CLEAR = 3300


class Symbols:
    """What is to be coded: (state, start, frequency), in reading order."""

    def __init__(self) -> None:
        self.state = 0
        self._items: list[tuple[int, int, int]] = []

    def put(self, start: int, frequency: int) -> None:
        """One symbol."""
        self._items.append((self.state, start, frequency))

    def raw(self, value: int, bits: int) -> None:
        """The low ``bits`` bits of ``value``, twelve at a time from the lowest."""
        while bits > 0:
            now = min(bits, _BITS)
            frequency = PROBABILITY >> now
            self.put((value & ((1 << now) - 1)) * frequency, frequency)
            value >>= now
            bits -= now

    def gamma(self, value: int) -> None:
        """Elias gamma of ``value + 1`` with its length in six bits."""
        length = (value + 1).bit_length()
        self.raw(length - 1, 6)
        self.raw(value + 1, length - 1)

    def chosen(self, sums: Sequence[int], index: int) -> None:
        """One of several, by a cumulative prior."""
        self.put(sums[index], sums[index + 1] - sums[index])

    def flag(self, flag: int, clear: int) -> None:
        """A bit that is 0 with frequency ``clear``."""
        self.put(*((clear, PROBABILITY - clear) if flag else (0, clear)))

    def number(self, value: int, lengths: Sequence[int] = HEAD["length"]) -> None:
        """A number of up to 64 bits."""
        self.chosen(lengths, value.bit_length())
        self.raw(value, value.bit_length() - 1)

    def reading(self, value: int) -> None:
        """A signed number that is mostly positive."""
        self.number(abs(value))
        if value:
            self.flag(value < 0, _READING_CLEAR)

    def residual(self, table: Table, residual: int) -> None:
        """A residual, or the escape, its sign and its excess."""
        if -table.radius <= residual <= table.radius:
            symbol = residual + table.radius
            self.put(table.start[symbol], table.frequency[symbol])
            return
        self.put(table.start[-2], table.frequency[-1])
        self.raw(residual < 0, 1)
        self.gamma(abs(residual) - table.radius - 1)

    def encode(self, states: list[int]) -> tuple[list[int], bytes]:
        """Code everything from ``states``; returns the final states and the words."""
        words: list[int] = []
        for state, start, frequency in reversed(self._items):
            x = states[state]
            if x >> 20 >= frequency:
                words.append(x & 0xFFFF)
                x >>= 16
            states[state] = (x // frequency << _BITS) + x % frequency + start
        return states, b"".join(word.to_bytes(2, "little") for word in reversed(words))


class Source:
    """The same symbols back; DecodeError when the words end too early."""

    def __init__(self, states: list[int], words: bytes) -> None:
        self.states = states
        self.state = 0
        self._words = words
        self._at = 0

    @property
    def exhausted(self) -> bool:
        """Whether every word was used."""
        return self._at == len(self._words)

    def _advance(self, start: int, frequency: int) -> None:
        x = self.states[self.state]
        x = frequency * (x >> _BITS) + (x & (PROBABILITY - 1)) - start
        if x < STATE_LOW:
            if self._at + 2 > len(self._words):
                raise DecodeError("truncated", "words end too early")
            x = x << 16 | int.from_bytes(self._words[self._at : self._at + 2], "little")
            self._at += 2
        self.states[self.state] = x

    def _slot(self) -> int:
        return self.states[self.state] & (PROBABILITY - 1)

    def raw(self, bits: int) -> int:
        """``bits`` bits."""
        value = shift = 0
        while bits > 0:
            now = min(bits, _BITS)
            part = self._slot() >> (_BITS - now)
            self._advance(part << (_BITS - now), PROBABILITY >> now)
            value |= part << shift
            shift += now
            bits -= now
        return value

    def gamma(self) -> int:
        """Elias gamma, minus 1."""
        length = self.raw(6)
        return (1 << length | self.raw(length)) - 1

    def chosen(self, sums: Sequence[int]) -> int:
        """Which of several."""
        index = bisect_right(sums, self._slot()) - 1
        self._advance(sums[index], sums[index + 1] - sums[index])
        return index

    def flag(self, clear: int) -> bool:
        """A bit."""
        flag = self._slot() >= clear
        self._advance(*((clear, PROBABILITY - clear) if flag else (0, clear)))
        return flag

    def number(self, lengths: Sequence[int] = HEAD["length"]) -> int:
        """A number of up to 64 bits."""
        length = self.chosen(lengths)
        return 1 << (length - 1) | self.raw(length - 1) if length else 0

    def reading(self) -> int:
        """A signed number; 64 bits, wrapping."""
        size = self.number()
        value = -size if size and self.flag(_READING_CLEAR) else size
        return (value + 2**63) % 2**64 - 2**63

    def residual(self, table: Table) -> int:
        """A residual."""
        symbol = bisect_right(table.start, self._slot()) - 1
        self._advance(table.start[symbol], table.frequency[symbol])
        if symbol < 2 * table.radius + 1:
            return symbol - table.radius
        negative = self.raw(1)
        size = self.gamma() + table.radius + 1
        return -size if negative else size
