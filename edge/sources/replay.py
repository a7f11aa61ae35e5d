"""The replay source: a recorded CSV played as if a cooler sent it. Not an importer: rows go the same way as live ones, at a chosen speed.

Invariant: every line of the file becomes a reading or a counted refusal; its number in the file is its counter, so playing the same file
again adds nothing.
"""

import asyncio
import csv
import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from math import isnan
from pathlib import Path

import structlog

from edge.settings import ReplayColumn, ReplaySource
from edge.sources.origin import Origin, Sample, Times
from edge.sources.status import SourceStatus
from edge.sources.surroundings import Surroundings
from protocol.profile import Profile
from protocol.reading import Reading
from protocol.refusal import Reason, Refusal
from protocol.units import MS_PER_S, DeviceId

__all__ = ["ReplayReader"]

CHUNK_ROWS = 256  # lines read at once: one commit's worth
POLL_S = 0.05  # how often recorded time is looked at: two samples of a 10 Hz recording
CELL_CHARS_MAX = 4096  # of one line's cell; a longer one is not a number
ALWAYS_MS = 2**62  # any recorded time is believed: that it is old is the point of a recording

log = structlog.get_logger("edge.replay")


class ReplayReader:
    """One ``[[source.replay]]``; ``run`` returns when the file has been played."""

    def __init__(self, settings: ReplaySource, around: Surroundings) -> None:
        self.name = settings.name
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[Reason] = Counter()
        self._settings = settings
        self._around = around
        self._device = DeviceId(settings.serial)
        self._profile = around.devices[self._device]
        self._times = Times(ahead_ms_max=ALWAYS_MS, behind_ms_max=ALWAYS_MS)
        self._columns = _columns(settings, self._profile)
        self._started: tuple[int, int] | None = None
        self._last_good_s: float | None = None
        self._why = "not started"

    async def run(self) -> None:
        """Play the file once. Raises ``OSError`` when it cannot be read, ``ValueError`` when it lacks a column."""
        self._why = ""
        boot = await asyncio.to_thread(_file_number, self._settings.file)
        lines = await asyncio.to_thread(_Lines, self._settings)
        try:
            while chunk := await asyncio.to_thread(lambda: list(islice(lines, CHUNK_ROWS))):
                await self._play([self.decode(cells, number, boot) for number, cells in chunk])
        finally:
            await asyncio.to_thread(lines.close)
        self._why = "played to the end"
        log.info("replay_finished", source=self.name, rows=self.counts["messages"], refused=sum(self.refusals.values()))

    async def _play(self, found: list[Reading | Refusal]) -> None:
        """Store what is due, wait, store the rest: in the order of the file, each part on disk before the next is offered."""
        readings = []
        for one in found:
            if isinstance(one, Refusal):
                self.refusals[one.reason] += 1
            else:
                readings.append(one)
        while readings:
            due = self._count_due(readings)
            if due:
                await self._around.intake.settle(self._around.intake.submit(readings[:due]))
                self._last_good_s = self._around.timer()
                readings = readings[due:]
            else:
                await asyncio.sleep(POLL_S)

    def _count_due(self, readings: list[Reading]) -> int:
        """How many readings, from the first, the Clock has reached."""
        if self._settings.speed == 0:
            return len(readings)
        now_ms = self._around.clock.monotonic_ms()
        if self._started is None:
            self._started = (now_ms, readings[0].ts_ms)
        reached_ms = self._started[1] + (now_ms - self._started[0]) * self._settings.speed
        return next((index for index, reading in enumerate(readings) if reading.ts_ms > reached_ms), len(readings))

    def decode(self, cells: dict[str, str], number: int, boot: int) -> Reading | Refusal:
        """Return the reading in one line: ``number`` counts lines from 1, ``boot`` stands for the file."""
        self.counts["messages"] += 1
        ts_ms = _time_ms(cells.get(self._settings.time_column, ""), self._settings)
        if ts_ms is None:
            return Refusal(Reason.BAD_VALUE, f"line {number}: no time")
        values: dict[int, float | int] = {}
        for position, column in self._columns:
            text = (cells.get(column.column) or "").strip()
            try:
                value = float(text) if text else float("nan")
            except ValueError:
                return Refusal(Reason.BAD_VALUE, f"line {number}: {column.column} is no number")
            if not isnan(value):
                values[position] = value * column.multiply + column.add
        origin = Origin(self._device, self._profile, self._around.stamp(), self._times)
        return Sample(values, ts_ms, number, boot).reading(origin)

    def status(self) -> SourceStatus:
        """Return what health shows; a recording that was played to its end is in order."""
        is_ended = self._why == "played to the end"
        return SourceStatus(
            name=self.name,
            kind="replay",
            ok=is_ended or not self._why,
            why=self._why,
            has_succeeded=self._last_good_s is not None,
            silent_s=0.0 if is_ended else None,
            counts={**self.counts, **{f"refused_{reason}": times for reason, times in self.refusals.items()}},
        )


class _Lines(Iterator[tuple[int, dict[str, str]]]):
    """The lines of a CSV as cells by column name, numbered from 1; blocks, so it is used from a thread."""

    def __init__(self, settings: ReplaySource) -> None:
        self._settings = settings
        self._number = 0
        self._file = settings.file.open(encoding="utf-8-sig", errors="replace", newline="")
        self._reader = csv.DictReader(self._file, delimiter=settings.delimiter)
        wanted = {settings.time_column, *(one.column if isinstance(one, ReplayColumn) else one for one in settings.columns.values())}
        absent = sorted(wanted - set(self._reader.fieldnames or ()))
        if absent:
            self.close()
            raise ValueError(f"{settings.file}: no column {', '.join(absent)}; there are: {', '.join(self._reader.fieldnames or ())}")

    def __next__(self) -> tuple[int, dict[str, str]]:
        self._number += 1
        try:
            cells = next(self._reader)
        except csv.Error:
            return self._number, {}  # a line that is no CSV (a cell over 128 KiB): it has no time and is refused as such
        return self._number, {name: text for name, text in cells.items() if isinstance(text, str) and len(text) <= CELL_CHARS_MAX}

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        self._file.close()


def _columns(settings: ReplaySource, profile: Profile) -> list[tuple[int, ReplayColumn]]:
    return [
        (profile.index(channel), column if isinstance(column, ReplayColumn) else ReplayColumn(column=column))
        for channel, column in settings.columns.items()
    ]


def _time_ms(text: str, settings: ReplaySource) -> int | None:
    """The time of a line in wall milliseconds; ``None`` when it is none."""
    try:
        if settings.time_format in {"s", "ms"}:
            return settings.start_wall_ms + round(float(text) * (MS_PER_S if settings.time_format == "s" else 1))
        moment = datetime.strptime(text.strip(), settings.time_format)  # noqa: DTZ007 - the next line gives it a zone
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * MS_PER_S)
    except (ValueError, OverflowError):
        return None


def _file_number(path: Path) -> int:
    """A 63-bit number of the file's content: the same recording is the same source, wherever it lies."""
    with path.open("rb") as file:
        return int.from_bytes(hashlib.file_digest(file, "sha256").digest()[:8], "big") >> 1
