"""Positions: which numbers of a stream are accounted for. Not what they held, and no database.

Invariant: ``up_to`` is the largest number with nothing missing at or below it, ``gaps`` are exactly the missing ranges between it and
``top``, in order, disjoint and not adjacent; whatever the order in which numbers arrive, the result is the same.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from protocol.receipt import Gap

__all__ = ["GAPS_STORED_MAX", "Position"]

GAPS_STORED_MAX = 4096  # an outbox has at most 1,024 records on the way; four times that is no outbox of ours


@dataclass(slots=True)
class Position:
    """Where a stream stands. Numbers begin at 1; 0 means that nothing came yet."""

    top: int = 0
    gaps: list[Gap] = field(default_factory=list)

    @property
    def up_to(self) -> int:
        """Everything up to and including this is accounted for."""
        return self.gaps[0].first - 1 if self.gaps else self.top

    def accounts(self, seq: int) -> bool:
        """Tell whether a number is accounted for."""
        if seq > self.top:
            return False
        at = bisect_left(self.gaps, seq, key=lambda gap: gap.last)
        return at == len(self.gaps) or seq < self.gaps[at].first

    def account(self, first: int, last: int) -> bool:
        """Account for the closed range; ``False`` (and no change) when that would make more than ``GAPS_STORED_MAX`` gaps."""
        grown = self._filled(first, last)
        if last > self.top:
            if first > self.top + 1:
                grown = [*grown, Gap(self.top + 1, first - 1)]
            if len(grown) > GAPS_STORED_MAX:
                return False
            self.top = last
        elif len(grown) > GAPS_STORED_MAX:
            return False
        self.gaps = grown
        return True

    def _filled(self, first: int, last: int) -> list[Gap]:
        """The gaps without the range; the same list when it touches none."""
        begin = bisect_left(self.gaps, first, key=lambda gap: gap.last)
        end = begin
        rest: list[Gap] = []
        while end < len(self.gaps) and self.gaps[end].first <= last:
            gap = self.gaps[end]
            if gap.first < first:
                rest.append(Gap(gap.first, first - 1))
            if gap.last > last:
                rest.append(Gap(last + 1, gap.last))
            end += 1
        return self.gaps if begin == end else [*self.gaps[:begin], *rest, *self.gaps[end:]]
