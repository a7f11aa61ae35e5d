"""``icecap block``: read a frame from a file, in words or JSON. Not a repair tool: what cannot be read is named, never guessed.

Invariant: it uses the product's own decoders, so what it accepts is what the cloud accepts.
"""

import base64
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from protocol import block, facts, frame, profile, tombstone
from protocol.block import Rows
from protocol.frame import Frame, Kind
from protocol.profile import Profile, ProfileError
from protocol.reading import Quality
from protocol.refusal import Refusal
from protocol.units import Scale

__all__ = ["app", "describe"]

FILE_BYTES_MAX = 4 * frame.FRAME_BYTES_MAX  # a frame in hexadecimal or base64 is at most twice as long; the rest is white space

app = typer.Typer(no_args_is_help=True, help="Read a frame: what is in it, in words or JSON.")


@app.callback()
def _root() -> None:
    """Keep ``dump`` a verb of its own: there will be more."""


@app.command()
def dump(
    file: Annotated[Path, typer.Argument(help="The frame: raw bytes, hexadecimal or base64; - for standard input.", show_default=False)],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")] = False,
    rows: Annotated[int, typer.Option(help="How many rows of a block to print in words.", min=0)] = 10,
    profile_file: Annotated[Path | None, typer.Option("--profile", help="A site's own profile (TOML) for the names and units.")] = None,
) -> None:
    """Print what a block, a fact or a tombstone says."""
    data = _read(file)
    answer = frame.decode(data)
    if isinstance(answer, Refusal):
        typer.secho(f"not a frame: {answer}", fg="red", err=True)
        raise typer.Exit(1)
    own = profile.parse(profile_file.read_text(encoding="utf-8")) if profile_file else None
    document = describe(answer, size=len(data), own=own)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _print_words(document, rows)
    if "refused" in document:
        raise typer.Exit(1)


def _read(file: Path) -> bytes:
    """Return the frame's bytes, unwrapping text forms: dead letters are copied out of web pages and logs."""
    raw = sys.stdin.buffer.read(FILE_BYTES_MAX) if str(file) == "-" else file.read_bytes()[:FILE_BYTES_MAX]
    if raw.startswith(frame.MAGIC):
        return raw
    text = b"".join(raw.split())
    try:
        return bytes.fromhex(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        pass
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return raw


def describe(one: Frame, *, size: int, own: Profile | None = None) -> dict[str, object]:
    """Return a frame as plain JSON values: head, then what the body holds or why it cannot be read."""
    head = one.head
    document: dict[str, object] = {
        "kind": head.kind.name.lower(),
        "gateway": head.identity.gateway,
        "stream": head.identity.stream,
        "seq": head.identity.seq,
        "boot": f"{head.stamp.boot:016x}",
        "wall": _utc(head.stamp.wall_ms),
        "monotonic_ms": head.stamp.monotonic_ms,
        "clock_quality": head.stamp.quality.letter,
        "device": head.device,
        "profile": f"{head.profile} v{head.profile_version}" if head.profile else None,
        "session": head.session.hex() or None,
        "bytes": size,
    }
    if head.kind is Kind.BLOCK:
        rows = block.decode(one.body)
        return document | ({"refused": str(rows)} if isinstance(rows, Refusal) else _describe_rows(rows, _profile(one, own), size))
    if head.kind is Kind.FACT:
        record = facts.decode(one.body)
        if isinstance(record, Refusal):
            return document | {"refused": str(record)}
        body = {name: _plain(getattr(record.fact, name)) for name in record.fact.__struct_fields__}
        return document | {"fact": type(record.fact).__name__, "fields": body, "previous": record.previous.hex()}
    stone = tombstone.decode(one.body)
    if isinstance(stone, Refusal):
        return document | {"refused": str(stone)}
    return document | {"first": stone.first, "last": stone.last, "cause": stone.cause.name.lower(), "rows": stone.rows}


def _describe_rows(rows: Rows, known: Profile | None, size: int) -> dict[str, object]:
    channels = rows.codes.shape[1]
    named = known is not None and len(known.channels) == channels
    columns = []
    for index in range(channels):
        good = rows.quality[:, index] == Quality.OK
        codes = rows.codes[good, index]
        channel = known.channels[index] if known is not None and named else None
        scale = channel.scale if channel else None
        columns.append(
            {
                "channel": channel.name if channel else f"#{index}",
                "unit": channel.unit if channel else None,
                "valid": int(good.sum()),
                "first": _value(codes[0], scale) if len(codes) else None,
                "lo": _value(codes.min(), scale) if len(codes) else None,
                "hi": _value(codes.max(), scale) if len(codes) else None,
                "rejected": {
                    Quality(int(reason)).name.lower(): int(count)
                    for reason, count in zip(*np.unique(rows.quality[~good, index], return_counts=True), strict=True)
                },
            }
        )
    table = [_row(rows, row, known if named else None) for row in range(len(rows.ts_ms))]
    return {
        "rows": len(rows.ts_ms),
        "bytes_per_value": round(size / rows.codes.size, 3),
        "source_boot": rows.source_boot,
        "rejected_codes_lost": rows.rejected_lost,
        "columns": columns,
        "table": table,
    }


def _row(rows: Rows, row: int, known: Profile | None) -> list[object]:
    """Time, counter, then a value or the reason why there is none."""
    cells: list[object] = [_utc(int(rows.ts_ms[row])), None if rows.counters is None else int(rows.counters[row])]
    for index in range(rows.codes.shape[1]):
        mark = Quality(int(rows.quality[row, index]))
        scale = known.channels[index].scale if known else None
        cells.append(_value(rows.codes[row, index], scale) if mark is Quality.OK else mark.name.lower())
    return cells


def _profile(one: Frame, own: Profile | None) -> Profile | None:
    """Return the profile that the block names; ``None`` when it is not here, so that codes are shown bare instead of guessed."""
    if own is not None and own.id == one.head.profile:
        return own
    try:
        known = profile.builtin(one.head.profile)
    except ProfileError:
        return None
    return known if known.version == one.head.profile_version else None


def _value(code: np.int64, scale: Scale | None) -> float | int:
    return int(code) if scale is None else scale.to_value(int(code))


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _utc(wall_ms: int) -> str:
    """Return ISO text, or the bare number where a clock was absurd."""
    try:
        return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{wall_ms} ms"


def _print_words(document: dict[str, object], rows: int) -> None:
    console = Console()
    head = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in document.items():
        if value is not None and name not in {"columns", "table", "fields"}:
            head.add_row(f"[dim]{name}[/]", str(value))
    console.print(head)
    fields = document.get("fields")
    if isinstance(fields, dict):
        for name, value in fields.items():
            console.print(f"  {name} = {value}", markup=False)
    columns, table = document.get("columns"), document.get("table")
    if not isinstance(columns, list) or not isinstance(table, list):
        return
    summary = Table("channel", "unit", "valid", "first", "lo", "hi", "rejected", title="channels")
    for column in columns:
        summary.add_row(*("" if value in (None, {}) else str(value) for value in column.values()))
    console.print(summary)
    for row in table[:rows]:
        console.print("  ".join("-" if value is None else str(value) for value in row), markup=False, soft_wrap=True)
    if len(table) > rows:
        console.print(f"[dim]… {len(table) - rows} more rows (--rows, --json)[/]")
