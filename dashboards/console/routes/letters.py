"""Dead letters: what ingestion refused and why; operators may send one through again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection

from dashboards.console import queries
from dashboards.console.auth import Principal, audit
from dashboards.console.context import Console, console_of
from dashboards.console.guard import address_of, guard
from dashboards.console.roles import Permission, may
from dashboards.console.routes.machines import MissingError
from dashboards.console.web import back_to, page
from ingest import deadletters
from ingest.apply import apply_batch
from ingest.intake import Outcome

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

Reader = Annotated[Principal, Depends(guard(Permission.DEAD_LETTERS))]
LetterId = Annotated[int, Path(ge=1, le=2**63 - 1)]

NOT_ACCEPTED = frozenset({Outcome.REFUSED, Outcome.PARKED, Outcome.ELSEWHERE})
DUMP_BYTES_MAX = 512  # enough for every head; the rest is a matter for `icecap block dump`


@router.get("/dead-letters")
def letters_page(request: Request, who: Reader, reason: Annotated[str, Query(max_length=64)] = "") -> HTMLResponse:
    """Show the counts by reason and the newest messages."""
    with console_of(request).store.reading() as connection:
        reasons = queries.dead_letter_reasons(connection)
        letters = queries.dead_letters(connection, reason=reason)
    return page(
        request, "letters.html", who, here="letters", reasons=reasons, letters=letters, reason=reason, limit=queries.DEAD_LETTERS_PAGE_MAX
    )


@router.get("/dead-letters/{letter_id}")
def letter_page(request: Request, letter_id: LetterId, who: Reader, tried: Annotated[str, Query(max_length=16)] = "") -> HTMLResponse:
    """Show one message: where it came from, why it was refused, its first bytes."""
    with console_of(request).store.reading() as connection:
        found = deadletters.find(connection, letter_id)
    if found is None:
        raise MissingError(f"There is no dead letter {letter_id}.")
    letter, data = found
    dump = _dump(data[:DUMP_BYTES_MAX]) if data is not None else ()
    may_retry = may(who.role, Permission.RETRY) and data is not None and letter.resolved_ms is None
    return page(
        request, "letter.html", who, here="letters", letter=letter, dump=dump, shown=DUMP_BYTES_MAX, may_retry=may_retry, tried=tried
    )


@router.post("/dead-letters/{letter_id}/retry")
def retry(request: Request, letter_id: LetterId, who: Annotated[Principal, Depends(guard(Permission.RETRY))]) -> RedirectResponse:
    """Send a message through ingestion again, as if it had just arrived."""
    console = console_of(request)
    with console.store.transaction() as connection:
        outcome = "ok" if _retry(connection, console, letter_id) else "refused"
        target = f"dead letter {letter_id}"
        audit(connection, console.door.clock, actor=who.name, action="retry", target=target, outcome=outcome, address=address_of(request))
    return back_to(f"/dead-letters/{letter_id}?tried={outcome}")


def _retry(connection: Connection, console: Console, letter_id: int) -> bool:
    """Apply the bytes as if they had just come; what is refused again only counts once more."""
    now_ms, accepted = console.clock.wall_ms(), False
    for one in deadletters.retryable(connection, ids=[letter_id]):
        applied = apply_batch(connection, [one.message], profiles=console.profiles, now_ms=now_ms)
        if not set(applied.outcomes) & NOT_ACCEPTED:
            deadletters.resolve(connection, one, now_ms=now_ms)
            accepted = True
    return accepted


def _dump(data: bytes) -> tuple[tuple[str, str, str], ...]:
    """Offset, hex and printable ASCII, sixteen bytes a line."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        printable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append((f"{start:04x}", part.hex(" "), printable))
    return tuple(lines)
