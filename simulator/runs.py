"""Runs: a set of whole numbers that mostly follow one another, kept as closed ranges. For counting what came through, in little memory.

Invariant: the ranges are disjoint, in order, and never touch.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

__all__ = ["Runs"]


class Runs:
    """A growing set of integers."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for number in numbers:
            self.add(number)

    def add(self, number: int) -> bool:
        """Add a number; tell whether it is new."""
        at = bisect_right(self._starts, number)
        if at and number <= self._ends[at - 1]:
            return False
        joins_left = bool(at) and self._ends[at - 1] == number - 1
        joins_right = at < len(self._starts) and self._starts[at] == number + 1
        if joins_left and joins_right:
            self._ends[at - 1] = self._ends[at]
            del self._starts[at], self._ends[at]
        elif joins_left:
            self._ends[at - 1] = number
        elif joins_right:
            self._starts[at] = number
        else:
            self._starts.insert(at, number)
            self._ends.insert(at, number)
        return True

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number)
        return bool(at) and number <= self._ends[at - 1]

    def __iter__(self) -> Iterator[int]:
        for start, end in self.ranges():
            yield from range(start, end + 1)

    def __len__(self) -> int:
        return sum(end - start + 1 for start, end in self.ranges())

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The closed ranges in order."""
        return zip(self._starts, self._ends, strict=True)
