"""Writing whole blocks, for the twin: choices, header, rows and reasons to symbols, symbols to bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from native.reference.channel import AFFINE, BOUNDED, CONSTANT, DIVISOR, LEVELS, REMAINDER, WIDE, Channel, signed
from native.reference.choose import NO_PRICE, PLAN_BYTES, prepare, prepare_planned, residual_price
from native.reference.crc32c import crc32c
from native.reference.lattice import chance
from native.reference.layout import (
    CHANNEL_SCALES,
    CLOCK_CHANNEL,
    CLOCK_GAPS,
    CLOCK_REGULAR,
    DEPENDENT,
    FLAG_CLASSES,
    FLAG_FRESH,
    FLAG_GAP,
    FLAG_MASK,
    FLAG_MASKS,
    FLAG_PERIOD,
    FLAG_REASONS,
    FLAG_SECONDS,
    KEY,
    LAPLACE,
    MAGIC,
    STANDALONE,
    TWO_STATES_FROM,
    zigzag,
)
from native.reference.rans import STATE_LOW, Symbols
from native.reference.session import PRICE_FRESH, Session, carried_codes, carried_price
from native.reference.tables import CALM, HEAD

__all__ = ["Job", "write_block"]


@dataclass(slots=True)
class _Lane:
    """One channel, or the clock, with its rows."""

    values: list[int]
    valid: list[bool] | None
    channel: Channel = field(default_factory=Channel)
    carried: bool = False
    codes: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Job:
    """One block to write; columns are lists of Python integers."""

    ts_ms: list[int]
    cells: list[list[int]]
    valid: list[list[bool]] | None
    reasons: list[int] | None
    bounds: list[int]
    params: bytes | None
    lanes: list[_Lane] = field(default_factory=list)
    clock: int = CLOCK_REGULAR
    calm: int = 0
    period_ms: int = 1000

    def prepare(self, session: Session | None = None) -> None:
        """Make every choice; ``session`` is given for a dependent block."""
        self._find_clock()
        for k, column in enumerate(self.cells):
            lane = _Lane(column, None if self.valid is None else self.valid[k])
            self.lanes.append(lane)
            old = session.channels[k] if session else None
            self._prepare_lane(
                lane, self.bounds[k], old, None if self.params is None else self.params[PLAN_BYTES * k : PLAN_BYTES * (k + 1)]
            )
        if self.clock == CLOCK_CHANNEL:
            start = self.ts_ms[0]
            lane = _Lane([signed(signed(stamp - start) - signed(self.period_ms * row)) for row, stamp in enumerate(self.ts_ms)], None)
            self.lanes.append(lane)
            self._prepare_lane(lane, 0, None, None)

    def _find_clock(self) -> None:
        rows = len(self.ts_ms)
        if rows < 2:
            return
        gaps = [after - before for before, after in zip(self.ts_ms, self.ts_ms[1:], strict=False)]
        period = min(gaps)
        if period > 0 and max(gaps) < 2**63 and all(gap % period == 0 for gap in gaps):
            missing = sum(gap != period for gap in gaps)
            if missing * 3 <= rows:
                self.period_ms = period
                if missing:
                    self.clock, self.calm = CLOCK_GAPS, chance(missing, rows - 1, 0)
                return
        self.clock = CLOCK_CHANNEL
        period = sorted(map(signed, gaps))[(rows - 1) // 2]
        even = (period + 500) // 1000 * 1000 if 0 < period < 2**63 - 501 else 0
        self.period_ms = even if even > 0 and abs(period - even) <= even // 16 else period

    def _prepare_lane(self, lane: _Lane, bound: int, old: Channel | None, plan: bytes | None) -> None:
        values = lane.values if lane.valid is None else [value for value, good in zip(lane.values, lane.valid, strict=True) if good]
        codes = carried_codes(old, values, bound) if old else None
        price = carried_price(old, codes) if old and codes is not None else None
        if not values:
            fresh = NO_PRICE, Channel(mode=CONSTANT), codes or []
        elif price is not None and price <= PRICE_FRESH:
            fresh = NO_PRICE, Channel(), []
        elif plan is not None:
            fresh = NO_PRICE, *prepare_planned(values, bound, plan)
        else:
            fresh = prepare(values, bound)
        lane.carried = price is not None and (fresh[0] == NO_PRICE or price <= fresh[0] + PRICE_FRESH)
        lane.channel, compact = (old.copied(), codes or []) if lane.carried and old else fresh[1:]
        lane.channel.masked = False
        if lane.valid is not None:
            self._find_mask(lane.channel, lane.valid)
        following = iter(compact)
        lane.codes = [next(following, 0) if lane.valid is None or lane.valid[row] else 0 for row in range(len(lane.values))]
        if lane.carried:
            lane.channel.carry_on()
        else:
            lane.channel.start()

    @staticmethod
    def _find_mask(channel: Channel, valid: Sequence[bool]) -> None:
        before = [True, *valid[:-1]]
        drops = sum(was and not now for was, now in zip(before, valid, strict=True))
        backs = sum(now and not was for was, now in zip(before, valid, strict=True))
        channel.masked = drops > 0
        channel.drop = chance(drops, sum(before), 0)
        channel.back = chance(backs, len(before) - sum(before), 0)


# ---- writing


def write_block(job: Job, session: Session | None = None, *, dependent: bool = False) -> bytes:
    """A whole block; ``session`` is brought up to date."""
    job.prepare(session if dependent else None)
    rows, channels = len(job.ts_ms), len(job.cells)
    two = rows * channels >= TWO_STATES_FROM
    symbols = Symbols()
    low = _put_clock(symbols, job, session if dependent else None, 32 if two else 16)
    symbols.flag(job.valid is not None, FLAG_MASKS)
    symbols.flag(job.reasons is not None, FLAG_REASONS)
    for k, lane in enumerate(job.lanes):
        _put_channel(symbols, job, lane, leans=dependent and k < channels)
    _put_rows(symbols, job, two=two)
    if job.reasons is not None:
        _put_reasons(symbols, job.reasons)
    states = [STATE_LOW | low & 0xFFFF, STATE_LOW | low >> 16 & 0xFFFF]
    states, words = symbols.encode(states)
    head = bytes([MAGIC | (DEPENDENT if dependent else KEY if session is not None else STANDALONE)]) + _varint(rows) + bytes([channels])
    if dependent and session:
        head += bytes([session.chain + 1])
    body = head + b"".join(state.to_bytes(4, "little") for state in states[: 2 if two else 1]) + words
    crc = crc32c(body)
    if session is not None:
        session.channels = [lane.channel for lane in job.lanes[:channels]]
        session.chain = session.chain + 1 if dependent else 0
        session.last_ms, session.period_ms, session.crc = job.ts_ms[-1], job.period_ms, crc
    return body + crc.to_bytes(4, "little")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _put_clock(symbols: Symbols, job: Job, session: Session | None, free_bits: int) -> int:
    """Returns what goes into the start states."""
    start = job.ts_ms[0]
    usual = session.period_ms if session else 1000
    symbols.chosen(HEAD["clock"], job.clock)
    symbols.flag(job.period_ms != usual, FLAG_PERIOD)
    if job.period_ms != usual:
        symbols.number(zigzag(job.period_ms))
    if session:
        late = signed(start - session.last_ms - session.period_ms)
        symbols.flag(late != 0, FLAG_PERIOD)
        if late:
            symbols.number(zigzag(late))
        low = session.crc
    else:
        seconds = start % 1000 == 0
        symbols.flag(not seconds, FLAG_SECONDS)
        low = zigzag(start // 1000 if seconds else start)
        symbols.number(low >> free_bits)
    if job.clock == CLOCK_GAPS:
        symbols.raw(job.calm, 6)
    return low


def _put_channel(symbols: Symbols, job: Job, lane: _Lane, *, leans: bool) -> None:
    channel = lane.channel
    if job.valid is not None:
        symbols.flag(channel.masked, FLAG_MASK)
        if channel.masked:
            symbols.raw(channel.drop, 6)
            symbols.raw(channel.back, 6)
    if leans:
        symbols.flag(not lane.carried, FLAG_FRESH)
    if lane.carried:
        return
    _put_lattice(symbols, channel)
    if channel.mode in {CONSTANT, WIDE}:
        return
    symbols.chosen(HEAD["predictor"], channel.predictor)
    symbols.chosen(HEAD["shape"], channel.shape)
    symbols.chosen(HEAD["bounded_scale" if channel.mode == BOUNDED else "scale"], channel.middle)
    if channel.mode == BOUNDED:
        return
    symbols.flag(len(channel.scales) == 3, FLAG_CLASSES)
    for scale in channel.scales if len(channel.scales) == 3 else ():
        symbols.chosen(HEAD["scale"], scale)


def _put_lattice(symbols: Symbols, channel: Channel) -> None:
    symbols.chosen(HEAD["mode"], channel.mode)
    symbols.reading(channel.first)
    if channel.mode == DIVISOR:
        symbols.number(channel.step)
    elif channel.mode == AFFINE:
        symbols.number(channel.step)
        symbols.raw(channel.offset & 65535, 16)
        symbols.number(zigzag(channel.offset >> 16))
        symbols.number(zigzag(channel.origin))
    elif channel.mode == LEVELS:
        _put_levels(symbols, channel)
    elif channel.mode == REMAINDER:
        symbols.raw(len(str(channel.unit)) - 2, 2)
        symbols.raw(channel.zero, 6)
    elif channel.mode == WIDE:
        symbols.raw(channel.predictor, 2)
        symbols.raw(channel.middle, 8)
    elif channel.mode == BOUNDED:
        symbols.number(channel.step >> 1, HEAD["bound"])


def _put_levels(symbols: Symbols, channel: Channel) -> None:
    gaps = [after - before for before, after in zip(channel.levels, channel.levels[1:], strict=False)]
    usual = sorted(gaps)[(len(gaps) - 1) // 2]
    steps = [max(1, (gap + usual // 2) // usual) for gap in gaps]
    rests = [gap - count * usual for gap, count in zip(gaps, steps, strict=True)]
    best, best_price = 0, NO_PRICE
    for scale in range(CHANNEL_SCALES):
        table, low = Channel(shape=LAPLACE).table(scale, 0)
        price = sum(residual_price(table, rest >> low) + 256 * low for rest in rests)
        if price < best_price:
            best, best_price = scale, price
        elif price // 2 > best_price:
            break
    symbols.raw(len(channel.levels), 8)
    symbols.raw(channel.origin, 8)
    symbols.number(usual)
    symbols.chosen(HEAD["scale"], best)
    table, low = Channel(shape=LAPLACE).table(best, 0)
    for count, rest in zip(steps, rests, strict=True):
        symbols.flag(count > 1, FLAG_GAP)
        if count > 1:
            symbols.number(count - 2)
        symbols.residual(table, rest >> low)
        symbols.raw(rest, low)


def _put_rows(symbols: Symbols, job: Job, *, two: bool) -> None:
    active = [lane for lane in job.lanes if not lane.channel.silent]
    for row, stamp in enumerate(job.ts_ms):
        symbols.state = 0
        if row and job.clock == CLOCK_GAPS:
            missing = (stamp - job.ts_ms[row - 1]) // job.period_ms - 1
            symbols.flag(missing != 0, CALM[job.calm])
            if missing:
                symbols.gamma(missing - 1)
        for turn, lane in enumerate(active):
            symbols.state = turn & 1 if two else 0
            channel = lane.channel
            if channel.masked and lane.valid is not None:
                good = lane.valid[row]
                symbols.flag(good != channel.present, CALM[channel.drop if channel.present else channel.back])
                channel.present = good
                if not good:
                    channel.level += channel.slope
                    continue
            if channel.waiting:
                channel.waiting = False
            else:
                channel.encode(symbols, lane.codes[row], lane.values[row], row)
    symbols.state = 0


def _put_reasons(symbols: Symbols, reasons: Sequence[int]) -> None:
    marked = [index for index, reason in enumerate(reasons) if reason]
    symbols.number(len(marked))
    before = 0
    for index in marked:
        symbols.number(index - before)
        symbols.raw(reasons[index], 8)
        before = index
