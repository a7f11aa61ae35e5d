"""Deliver: a batch of blocks into a sink, and which lines had to stay behind. Not retries: a failing world raises and nothing is decided.

A refused batch is halved until the single refused line is found; all others are stored. Writing a line twice is harmless (the same point is
overwritten), which also covers servers that store the good part of a refused batch.
Invariant: a line is called bad only after the same server has taken a line known to be good; else the fault is the server's set-up, and
everything waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.influx.sink import Fault, Refused, Sink, SinkError
from ingest.projection import Reject, RejectReason, StoredBlock

__all__ = ["CANARY", "LINES_REJECTED_MAX", "Item", "deliver"]

CANARY = b"projector,name=influx canary=1 "
"""A line that every server takes, with the time of the batch: written before anything is called bad. One series, one point a bad batch."""

LINES_REJECTED_MAX = 16  # single refused lines of one block that are looked for; past it the rest of the block is one reject


@dataclass(frozen=True, slots=True)
class Item:
    """A block and its lines."""

    stored: StoredBlock
    lines: bytes


def deliver(sink: Sink, items: Sequence[Item]) -> list[Reject]:
    """Write all lines of ``items``; return those that the server refuses for good.

    Raises ``SinkError`` when the world fails, or when the server refuses even a line that is known to be good.
    """
    refused = sink.write(b"".join(item.lines for item in items))
    if refused is None:
        return []
    if not refused.too_large:
        _check_canary(sink, items[0].stored, refused)
    return _halve_blocks(sink, items, refused)


def _check_canary(sink: Sink, stored: StoredBlock, refused: Refused) -> None:
    answer = sink.write(CANARY + b"%d\n" % (stored.t0_ms * 1_000_000))
    if answer is not None:
        raise SinkError(Fault.REFUSES_ALL, f"{answer.message}; before it: {refused.message}")


def _halve_blocks(sink: Sink, items: Sequence[Item], refused: Refused) -> list[Reject]:
    """``items`` together were refused."""
    if len(items) == 1:
        return _Lines(sink, items[0].stored).rejected(items[0].lines.splitlines(keepends=True), refused)
    found: list[Reject] = []
    middle = len(items) // 2
    for half in (items[:middle], items[middle:]):
        answer = sink.write(b"".join(item.lines for item in half))
        if answer is not None:
            found.extend(_halve_blocks(sink, half, answer))
    return found


class _Lines:
    """The search inside one block, with its bound."""

    __slots__ = ("_found", "_sink", "_skipped", "_stored")

    def __init__(self, sink: Sink, stored: StoredBlock) -> None:
        self._sink, self._stored = sink, stored
        self._found: list[Reject] = []
        self._skipped = 0

    def rejected(self, lines: Sequence[bytes], refused: Refused) -> list[Reject]:
        """The rejects of a refused block."""
        self._halve(lines, refused)
        if self._skipped:
            detail = f"{self._skipped} more lines not tried: {LINES_REJECTED_MAX} of this block were refused"
            self._found.append(Reject(self._stored, RejectReason.REFUSED_BY_SERVER, detail))
        return self._found

    def _halve(self, lines: Sequence[bytes], refused: Refused) -> None:
        """``lines`` together were refused."""
        if len(lines) == 1:
            text = lines[0].decode("utf-8", "replace").rstrip("\n")
            self._found.append(Reject(self._stored, RejectReason.REFUSED_BY_SERVER, refused.message, text))
            return
        middle = len(lines) // 2
        for half in (lines[:middle], lines[middle:]):
            if len(self._found) >= LINES_REJECTED_MAX:
                self._skipped += len(half)
                continue
            answer = self._sink.write(b"".join(half))
            if answer is not None:
                self._halve(half, answer)
