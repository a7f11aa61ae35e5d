"""Block codecs side by side: ours, and the peers that are installed.

The peers are favoured: they get integers already scaled to the printed resolution, shapes and number formats are known to their
decoders for free, time stamps are stored once a block as delta-of-delta varints, no framing between parts is counted.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from native import deltapack
from native.shared import Int64Array
from simulator.bench.optional import optional
from simulator.bench.report import Result, best_seconds
from simulator.bench.scenes import Run, blocks_of

__all__ = ["Codec", "measure", "peers", "sizes_of_sessions"]

Coder = Callable[[Run], list[bytes]]


@dataclass(frozen=True, slots=True)
class Codec:
    """A way to write a block as parts of bytes; ``decode`` gives back the codes."""

    name: str
    encode: Coder
    decode: Callable[[list[bytes], Run], Int64Array]
    timed: bool = True  # False: the varints are made in Python here, so a time would not be the library's


def _zigzag(deltas: Int64Array) -> Int64Array:
    return (deltas << 1) ^ (deltas >> 63)


def _varints(values: Int64Array) -> bytes:
    out = bytearray()
    for value in values.tolist():
        rest = value
        while rest > 127:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def _from_varints(data: bytes) -> Int64Array:
    values, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            values.append(value)
            value = shift = 0
    return np.array(values, np.int64)


def _stamps(run: Run) -> bytes:
    """The clock every peer is charged for."""
    return _varints(np.concatenate(([run.ts_ms[0]], _zigzag(np.diff(np.diff(run.ts_ms), prepend=0)))))


def _deltas(run: Run) -> Int64Array:
    return np.diff(run.codes.T, axis=1, prepend=0)


def _from_deltas(values: Int64Array, run: Run) -> Int64Array:
    signed = (values >> 1) ^ -(values & 1)
    return np.ascontiguousarray(np.cumsum(signed.reshape(run.codes.shape[::-1]), axis=1).T)


def _shuffled(values: Int64Array) -> bytes:
    """Sixteen-bit words, all low bytes before all high bytes, then the words that did not fit as varints."""
    fits = values < (1 << 16) - 1
    words = np.where(fits, values, (1 << 16) - 1).astype("<u2")
    return words.view(np.uint8).reshape(-1, 2).T.tobytes() + _varints(values[~fits])


def _from_shuffled(data: bytes, count: int) -> Int64Array:
    words = np.frombuffer(data, np.uint8, 2 * count).reshape(2, count).T.copy().view("<u2").ravel().astype(np.int64)
    words[words == (1 << 16) - 1] = _from_varints(data[2 * count :])
    return words


def _bytes_codec(name: str, compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]) -> Codec:
    """A general compressor over the stamps and the zigzag deltas, channel by channel, as varints or shuffled: whichever is smaller."""

    def encode(run: Run) -> list[bytes]:
        deltas = _zigzag(_deltas(run).ravel())
        by_varints, by_shuffle = compress(_stamps(run) + _varints(deltas)), compress(_stamps(run) + _shuffled(deltas))
        return [by_varints] if len(by_varints) <= len(by_shuffle) else [by_shuffle, b""]  # which of the two is known for free

    def decode(parts: list[bytes], run: Run) -> Int64Array:
        data = decompress(parts[0])[len(_stamps(run)) :]
        return _from_deltas(_from_varints(data) if len(parts) == 1 else _from_shuffled(data, run.codes.size), run)

    return Codec(name, encode, decode, timed=False)


def _general() -> Iterator[Codec]:
    yield _bytes_codec("zlib 9", lambda data: zlib.compress(data, 9), zlib.decompress)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]
    yield _bytes_codec(
        "LZMA raw",
        lambda data: lzma.compress(data, lzma.FORMAT_RAW, filters=filters),
        lambda data: lzma.decompress(data, lzma.FORMAT_RAW, filters=filters),
    )
    if zstd := optional("zstandard"):
        press, unpress = zstd.ZstdCompressor(level=19, write_content_size=False), zstd.ZstdDecompressor()
        yield _bytes_codec("zstd 19", press.compress, lambda data: unpress.decompress(data, max_output_size=1 << 24))
    if brotli := optional("brotli"):
        yield _bytes_codec("brotli 11", lambda data: brotli.compress(data, quality=11), brotli.decompress)
    if ppmd := optional("pyppmd"):
        options = {"max_order": 4, "mem_size": 1 << 20, "variant": "I"}
        yield _bytes_codec("PPMd order 4", lambda data: ppmd.compress(data, **options), lambda data: ppmd.decompress(data, **options))


def _pcodec() -> Iterator[Codec]:
    if not (pcodec := optional("pcodec")):
        return
    wrapped = optional("pcodec.wrapped")
    config = pcodec.ChunkConfig(compression_level=8)

    def encode(run: Run) -> list[bytes]:
        files = wrapped.FileCompressor()
        parts = [files.write_header()]
        for column in (run.ts_ms, *np.ascontiguousarray(run.codes.T.astype(np.int32))):
            chunk = files.chunk_compressor(column, config)
            parts += [chunk.write_meta(), *(chunk.write_page(page) for page, _ in enumerate(chunk.n_per_page()))]
        return parts

    def decode(parts: list[bytes], run: Run) -> Int64Array:
        files, _ = wrapped.FileDecompressor.new(parts[0])
        rows, channels = run.codes.shape
        columns = []
        for k in range(channels + 1):
            chunk, _ = files.chunk_decompressor(parts[1 + 2 * k], "i32" if k else "i64")
            columns.append(np.empty(rows, np.int32 if k else np.int64))
            chunk.read_page_into(parts[2 + 2 * k], rows, columns[-1])
        return np.array(columns[1:], np.int64).T

    yield Codec("pcodec 8, wrapped", encode, decode)


def _flac() -> Iterator[Codec]:
    if not (sound := optional("soundfile")):
        return

    def width(run: Run) -> tuple[str, int]:
        return ("PCM_16", 16) if int(np.abs(run.codes).max()) < 1 << 15 else ("PCM_24", 8)

    def encode(run: Run) -> list[bytes]:
        subtype, shift = width(run)
        out = io.BytesIO()
        sound.write(out, (run.codes << shift).astype(np.int32), 8000, subtype=subtype, format="FLAC", compression_level=1.0)
        return [_stamps(run), out.getvalue()]

    def decode(parts: list[bytes], run: Run) -> Int64Array:
        samples, _ = sound.read(io.BytesIO(parts[1]), dtype="int32", always_2d=True)
        return np.asarray(samples, np.int64) >> width(run)[1]

    yield Codec("FLAC 8", encode, decode)


def _floats() -> Iterator[Codec]:
    if not (bungler := optional("floatbungler")):
        return
    for name in ("gorilla", "chimp128"):
        module = getattr(bungler, name)

        def encode(run: Run, module: Any = module) -> list[bytes]:
            return [_stamps(run), *(bytes(module.encode(column)) for column in _physical(run))]

        def decode(parts: list[bytes], run: Run, module: Any = module) -> Int64Array:
            columns = [module.decode(part, len(run.ts_ms)) for part in parts[1:]]
            return np.rint(np.array(columns).T * 10.0 ** np.array(run.decimals)).astype(np.int64)

        yield Codec(name.capitalize(), encode, decode)


def _physical(run: Run) -> list[np.ndarray]:
    return list(np.ascontiguousarray((run.codes / 10.0 ** np.array(run.decimals)).T))


def peers() -> list[Codec]:
    """Every peer that is installed."""
    return [*_pcodec(), *_general(), *_flac(), *_floats()]


def _ours() -> Codec:
    return Codec(
        "icecap",
        lambda run: [deltapack.encode(run.ts_ms, run.codes)],
        lambda parts, _: deltapack.decode(parts[0]).columns,
    )


def measure(scene: str, runs: list[Run], rows: int, *, clock: Callable[[], float], limit: int = 24, bounded: bool = False) -> list[Result]:
    """Size and speed of every codec on blocks of ``rows`` rows; sizes are compared only after decoding."""
    blocks = blocks_of(runs, rows, limit)
    where = f"{scene}, {rows} rows" + (", bounded" if bounded else "")
    if not blocks:
        return []
    results = (
        [*_ours_bounded(blocks, where, clock)] if bounded else [*_measure_one(_ours(), blocks, where, clock), *_warm(blocks, where, clock)]
    )
    for codec in peers():
        grids = [_grid(block) for block in blocks] if bounded else blocks
        results += _measure_one(codec, grids, where, clock)
    return results


def _measure_one(codec: Codec, blocks: list[Run], where: str, clock: Callable[[], float]) -> list[Result]:
    points = sum(block.codes.size for block in blocks)
    try:
        made = [codec.encode(block) for block in blocks]
        exact = all(np.array_equal(codec.decode(parts, block), block.codes) for parts, block in zip(made, blocks, strict=True))
    except (ValueError, OverflowError, RuntimeError, TypeError):
        exact = False
    if not exact:
        return []  # a peer that cannot take this scene (24-bit audio, say) has no figure
    size = Result(codec.name, where, "size", sum(map(len, (part for parts in made for part in parts))) / points, "B/point")
    if not codec.timed:
        return [size]
    encode_s = best_seconds(lambda: [codec.encode(block) for block in blocks], clock=clock)
    decode_s = best_seconds(lambda: [codec.decode(parts, block) for parts, block in zip(made, blocks, strict=True)], clock=clock)
    return [
        size,
        Result(codec.name, where, "encode", points / encode_s / 1e6, "M points/s"),
        Result(codec.name, where, "decode", points / decode_s / 1e6, "M points/s"),
    ]


def _warm(blocks: list[Run], where: str, clock: Callable[[], float]) -> list[Result]:
    plans = [deltapack.plan(block.ts_ms, block.codes) for block in blocks]
    pairs = list(zip(blocks, plans, strict=True))
    seconds = best_seconds(lambda: [deltapack.encode(block.ts_ms, block.codes, params=plan) for block, plan in pairs], clock=clock)
    return [Result("icecap, planned", where, "encode", sum(block.codes.size for block in blocks) / seconds / 1e6, "M points/s")]


def _grid(run: Run) -> Run:
    """What a peer without a bound of its own is given: codes on a grid of twice the bound plus one."""
    step = 2 * np.array(run.bounds, np.int64) + 1
    return Run(run.ts_ms, np.floor_divide(run.codes + step // 2, step), (0,) * len(run.names), run.names, run.bounds)


def _ours_bounded(blocks: list[Run], where: str, clock: Callable[[], float]) -> Iterator[Result]:
    points = sum(block.codes.size for block in blocks)
    made = [deltapack.encode_bounded(block.ts_ms, block.codes, block.bounds) for block in blocks]
    for data, block in zip(made, blocks, strict=True):
        if (np.abs(deltapack.decode(data).columns - block.codes) > np.array(block.bounds)).any():
            raise AssertionError("a sample is outside its bound")
    encode_s = best_seconds(lambda: [deltapack.encode_bounded(block.ts_ms, block.codes, block.bounds) for block in blocks], clock=clock)
    decode_s = best_seconds(lambda: [deltapack.decode(data) for data in made], clock=clock)
    yield Result("icecap", where, "size", sum(map(len, made)) / points, "B/point")
    yield Result("icecap", where, "encode", points / encode_s / 1e6, "M points/s")
    yield Result("icecap", where, "decode", points / decode_s / 1e6, "M points/s")


def sizes_of_sessions(scene: str, runs: list[Run], rows: int, *, bounded: bool = False) -> list[Result]:
    """Bytes per point of session blocks, key blocks included."""
    size = points = 0
    for run in runs:
        encoder = deltapack.Encoder(max_error=run.bounds if bounded else None)
        decoder = deltapack.Decoder()
        for block in blocks_of([run], rows, 1 << 30):
            data = encoder.encode(block.ts_ms, block.codes)
            allowed = np.array(block.bounds if bounded else [0] * len(block.names))
            if (np.abs(decoder.decode(data).columns - block.codes) > allowed).any():
                raise AssertionError("a session block came back wrong")
            size, points = size + len(data), points + block.codes.size
    where = f"{scene}, {rows} rows" + (", bounded" if bounded else "")
    return [Result("icecap, session blocks", where, "size", size / points, "B/point")] if points else []
