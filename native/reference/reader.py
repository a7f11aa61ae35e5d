"""Reading whole blocks, for the twin: every count is checked before it is used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from native.reference.channel import AFFINE, BOUNDED, CONSTANT, DIVISOR, LEVELS, REMAINDER, WIDE, Channel, signed
from native.reference.crc32c import crc32c
from native.reference.layout import (
    BLOCK_BYTES_MIN,
    BOUND_LIMIT,
    CLOCK_CHANNEL,
    CLOCK_GAPS,
    DEPENDENT,
    FLAG_CLASSES,
    FLAG_FRESH,
    FLAG_GAP,
    FLAG_MASK,
    FLAG_MASKS,
    FLAG_PERIOD,
    FLAG_REASONS,
    FLAG_SECONDS,
    LAPLACE,
    MAGIC,
    STANDALONE,
    TWO_STATES_FROM,
    WIDE_SCALE_MAX,
    unzigzag,
)
from native.reference.rans import STATE_LOW, Source
from native.reference.session import Session
from native.reference.tables import CALM, HEAD
from native.shared import CELLS_MAX, ROWS_MAX, DecodeError, FullBlock

__all__ = ["read_block"]


@dataclass(slots=True)
class _Head:
    """The plain bytes in front."""

    kind: int
    rows: int
    channels: int
    chain: int
    states: list[int]
    words: bytes
    crc: int


@dataclass(slots=True)
class _Clock:
    """How rows lie in time."""

    kind: int
    period_ms: int
    start_ms: int | None  # None: still in the coder's states
    seconds: bool
    start_high: int
    calm: int


def read_block(data: bytes, session: Session | None) -> FullBlock:
    """Decode; DecodeError with a reason for whatever is not a block."""
    head = _open(data)
    if head.kind == DEPENDENT:
        if session is None or len(session.channels) != head.channels or head.chain != session.chain + 1:
            raise DecodeError("missing_key", "the block leans on one that was not decoded")
        try:
            return _read(head, session)
        except DecodeError as error:
            # The bytes are whole, so what does not fit is the block it leans on.
            raise DecodeError("missing_key", str(error)) from error
    return _read(head, session)


def _open(data: bytes) -> _Head:  # noqa: C901 - one refusal after the other
    if len(data) < BLOCK_BYTES_MIN:
        raise DecodeError("truncated", f"{len(data)} bytes")
    if data[0] & 0xF0 != MAGIC:
        raise DecodeError("bad_magic", f"{data[0]:#04x}")
    if data[0] & 0x0F > DEPENDENT:
        raise DecodeError("bad_version", f"{data[0]:#04x}")
    crc = int.from_bytes(data[-4:], "little")
    if crc32c(data[:-4]) != crc:
        raise DecodeError("bad_crc", f"{len(data)} bytes")
    at, rows, shift = 1, 0, 0
    while True:
        rows |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 128 or shift == 21:
            break
    if data[at - 1] == 0 or data[at - 1] & 128:
        raise DecodeError("bad_count", "rows")
    channels = data[at]
    at += 1
    if rows > ROWS_MAX or rows * channels > CELLS_MAX:
        raise DecodeError("too_long", f"{rows} rows of {channels} channels")
    if channels == 0:
        raise DecodeError("bad_count", "channels")
    kind = data[0] & 0x0F
    chain = data[at] if kind == DEPENDENT else 0
    at += kind == DEPENDENT
    count = 2 if rows * channels >= TWO_STATES_FROM else 1
    if at + 4 * count + 4 > len(data):
        raise DecodeError("truncated", "states")
    states = [int.from_bytes(data[at + 4 * i : at + 4 * i + 4], "little") for i in range(count)]
    if min(states) < STATE_LOW:
        raise DecodeError("bad_header", "state")
    return _Head(kind, rows, channels, chain, states, data[at + 4 * count : -4], crc)


def _read(head: _Head, session: Session | None) -> FullBlock:
    source = Source(head.states, head.words)
    leans = session if head.kind == DEPENDENT else None
    clock = _get_clock(source, leans)
    masks, has_reasons = source.flag(FLAG_MASKS), source.flag(FLAG_REASONS)
    channels = []
    for k in range(head.channels + (clock.kind == CLOCK_CHANNEL)):
        old = leans.channels[k] if leans and k < head.channels else None
        channels.append(_get_channel(source, old, masks=masks, maskable=k < head.channels))
    offsets, columns, valid = _get_rows(source, head, clock, channels)
    reasons = _get_reasons(source, head) if has_reasons else None
    if not source.exhausted or any(state >> 16 != 1 for state in source.states):
        raise DecodeError("bad_end", "words or states are left over")
    low = sum((state & 0xFFFF) << 16 * index for index, state in enumerate(source.states))
    if leans and low != leans.crc & (1 << 16 * len(source.states)) - 1:
        raise DecodeError("missing_key", "another block came before")
    start = clock.start_ms
    if start is None:
        zigzagged = low | clock.start_high << 16 * len(source.states)
        start = unzigzag(zigzagged % 2**64)
        start = signed(start * 1000) if clock.seconds else start
    ts_ms = [signed(start + offset) for offset in offsets]
    if session is not None and head.kind != STANDALONE:
        session.channels, session.chain, session.crc = channels[: head.channels], head.chain, head.crc
        session.last_ms, session.period_ms = ts_ms[-1], clock.period_ms
    return FullBlock(np.array(ts_ms, np.int64), columns, valid if masks else None, reasons)


def _get_clock(source: Source, leans: Session | None) -> _Clock:
    kind = source.chosen(HEAD["clock"])
    period = leans.period_ms if leans else 1000
    if source.flag(FLAG_PERIOD):
        period = unzigzag(source.number())
    start, seconds, high = None, False, 0
    if leans:
        late = unzigzag(source.number()) if source.flag(FLAG_PERIOD) else 0
        start = signed(leans.last_ms + leans.period_ms + late)
    else:
        seconds = not source.flag(FLAG_SECONDS)
        high = source.number()
    calm = source.raw(6) if kind == CLOCK_GAPS else 0
    if calm >= len(CALM):
        raise DecodeError("bad_header", "clock")
    return _Clock(kind, period, start, seconds, high, calm)


def _get_channel(source: Source, old: Channel | None, *, masks: bool, maskable: bool) -> Channel:
    masked = masks and source.flag(FLAG_MASK)
    drop, back = (source.raw(6), source.raw(6)) if masked else (0, 0)
    if masked and (max(drop, back) >= len(CALM) or not maskable):
        raise DecodeError("bad_header", "mask")
    carried = old is not None and not source.flag(FLAG_FRESH)
    channel = old.copied() if carried and old else _get_choices(source)
    channel.masked, channel.drop, channel.back = masked, drop, back
    if carried:
        channel.carry_on()
    else:
        channel.start()
    return channel


def _get_choices(source: Source) -> Channel:  # noqa: C901 - one case a mode
    channel = Channel(mode=source.chosen(HEAD["mode"]), first=source.reading())
    if channel.mode == DIVISOR:
        channel.step = source.number()
    elif channel.mode == AFFINE:
        channel.step = source.number()
        channel.offset = source.raw(16)
        channel.offset += unzigzag(source.number()) * 65536
        channel.origin = unzigzag(source.number())
    elif channel.mode == LEVELS:
        _get_levels(source, channel)
    elif channel.mode == REMAINDER:
        channel.unit = 10 ** (source.raw(2) + 1)
        channel.zero = source.raw(6)
        channel.origin = channel.first // channel.unit
        if channel.zero >= len(CALM):
            raise DecodeError("bad_header", "remainder")
    elif channel.mode == WIDE:
        channel.predictor, channel.middle = source.raw(2), source.raw(8)
        if channel.predictor > 2 or channel.middle > WIDE_SCALE_MAX:
            raise DecodeError("bad_header", "wide")
    elif channel.mode == BOUNDED:
        bound = source.number(HEAD["bound"])
        if not 0 < bound < BOUND_LIMIT:
            raise DecodeError("bad_header", "bound")
        channel.step = 2 * bound + 1
    if channel.mode in {CONSTANT, WIDE}:
        return channel
    channel.predictor, channel.shape = source.chosen(HEAD["predictor"]), source.chosen(HEAD["shape"])
    channel.middle = source.chosen(HEAD["bounded_scale" if channel.mode == BOUNDED else "scale"])
    channel.scales = (channel.middle,)
    if channel.mode != BOUNDED and source.flag(FLAG_CLASSES):
        channel.scales = tuple(source.chosen(HEAD["scale"]) for _ in range(3))
    return channel


def _get_levels(source: Source, channel: Channel) -> None:
    count, channel.origin = source.raw(8), source.raw(8)
    usual = source.number()
    table, low = Channel(shape=LAPLACE).table(source.chosen(HEAD["scale"]), 0)
    if count < 2 or channel.origin >= count:
        raise DecodeError("bad_header", "levels")
    levels = [0]
    for _ in range(count - 1):
        steps = source.number() + 2 if source.flag(FLAG_GAP) else 1
        rest = source.residual(table) << low
        levels.append(levels[-1] + steps * usual + (rest | source.raw(low)))
    zero = channel.first - levels[channel.origin]
    channel.levels = [signed(level + zero) for level in levels]


def _get_rows(source: Source, head: _Head, clock: _Clock, channels: list[Channel]) -> tuple[list[int], np.ndarray, np.ndarray]:
    columns = np.zeros((head.rows, head.channels), np.int64)
    valid = np.ones((head.rows, head.channels), np.bool_)
    for k, channel in enumerate(channels[: head.channels]):
        if channel.silent:
            columns[:, k] = channel.first
    active = [(k, channel) for k, channel in enumerate(channels) if not channel.silent]
    two = len(source.states) == 2
    grid = 0
    offsets = []
    for row in range(head.rows):
        source.state = 0
        if row:
            missing = source.gamma() + 1 if clock.kind == CLOCK_GAPS and source.flag(CALM[clock.calm]) else 0
            grid += clock.period_ms * (missing + 1)
        off = 0
        for turn, (k, channel) in enumerate(active):
            source.state = turn & 1 if two else 0
            if channel.masked:
                channel.present ^= source.flag(CALM[channel.drop if channel.present else channel.back])
                if not channel.present:
                    channel.level += channel.slope
                    valid[row, k] = False
                    continue
            value = channel.decode(source, row)
            if k == head.channels:
                off = value
            else:
                columns[row, k] = value
        offsets.append(grid + off)
    source.state = 0
    return offsets, columns, valid


def _get_reasons(source: Source, head: _Head) -> np.ndarray:
    cells = head.rows * head.channels
    count = source.number()
    if not 0 < count <= cells:
        raise DecodeError("bad_value", "reasons")
    reasons = np.zeros(cells, np.uint8)
    at = 0
    for index in range(count):
        step = source.number()
        code = source.raw(8)
        if step >= cells - at or (index and step == 0) or code == 0:
            raise DecodeError("bad_value", "reasons")
        at += step
        reasons[at] = code
    return reasons.reshape(head.rows, head.channels)
