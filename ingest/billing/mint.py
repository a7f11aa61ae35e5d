"""Mint: tokens for a course, signed, logged as one batch, and printed as QR codes. The log entry and the tokens are one transaction.

Invariant: a token file exists only if its batch is in the grant log: the log is committed first, a file that is lost is reissued, not
minted again.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import segno
import typst
from sqlalchemy import Connection, select

from ingest.billing import grants, ledger
from ingest.billing.courses import Course
from ingest.billing.grants import GrantError, Issue
from ingest.billing.hubkeys import HubKeys, site_key
from ingest.billing.ledger import USE
from ingest.billing.tables import token as token_table
from protocol import token
from protocol.token import Claims, TokenClass
from provisioning.files import PRIVATE_FILE, make_private_folder, write_file

__all__ = ["Minted", "Order", "code_of", "mint", "reissue", "write_batch"]

QR_SCALE = 8  # pixels a module: sharp on a phone and in print at 40 mm
TOKEN_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Order:
    """What to mint: ``count`` tokens of ``uses`` paid and ``spare`` uses each, valid for ``days``."""

    count: int
    uses: int
    spare: int
    days: int
    token_class: TokenClass = TokenClass.PAID
    kit: str = ""


@dataclass(frozen=True, slots=True)
class Minted:
    """One token: the bytes that a carrier holds, the hash under which the cloud knows it, and what it says."""

    data: bytes
    hashed: bytes
    claims: Claims


def mint(  # noqa: PLR0913  # who asked and who agreed are part of the act
    connection: Connection,
    order: Order,
    *,
    course: Course,
    hub: HubKeys,
    requested_by: str,
    approved_by: str = "",
    now_s: int,
    random_bytes: Callable[[int], bytes],
) -> list[Minted]:
    """Sign and log a batch for a course. Raises ``GrantError`` or ``ValueError`` and logs nothing when it must not be."""
    minted = [_one(order, course=course, hub=hub, now_s=now_s, token_id=random_bytes(TOKEN_ID_BYTES)) for _ in range(order.count)]
    issues = [Issue(one.hashed, order.token_class.value, order.uses + order.spare, order.spare) for one in minted]
    billed = "" if order.token_class is TokenClass.TEST else course.id
    grants.issue(
        connection, issues, course=billed, site=course.site, requested_by=requested_by, approved_by=approved_by, at_ms=1000 * now_s
    )
    return minted


def reissue(  # noqa: PLR0913  # as above
    connection: Connection,
    lost: bytes,
    *,
    course: Course,
    hub: HubKeys,
    requested_by: str,
    days: int,
    now_s: int,
    random_bytes: Callable[[int], bytes],
) -> Minted:
    """Replace a lost token by one that carries the course's unspent uses (amendment A8); the old one belongs on the denylist.

    Raises ``GrantError`` when the token is not of the course, was replaced already, or nothing is left.
    """
    known = connection.execute(select(token_table).where(token_table.c.token == lost)).one_or_none()
    if known is None or known.course != course.id:
        raise GrantError(f"token {lost.hex()} is not of course {course.id}")
    if connection.execute(select(token_table.c.token).where(token_table.c.replaces == lost)).first():
        raise GrantError(f"token {lost.hex()} was replaced already")
    left = min(known.uses, ledger.balance(connection, f"outstanding:{course.id}", USE))
    if left < 1:
        raise GrantError(f"course {course.id} has no unspent use to carry over")
    order = Order(count=1, uses=left, spare=0, days=days, token_class=TokenClass(known.token_class))
    fresh = _one(order, course=course, hub=hub, now_s=now_s, token_id=random_bytes(TOKEN_ID_BYTES))
    at_ms = 1000 * now_s
    grants.void_unused(connection, course.id, uses=left, reason="reissued", key=f"reissue:{lost.hex()}", at_ms=at_ms)
    again = Issue(fresh.hashed, order.token_class.value, left, replaces=lost)
    grants.issue(connection, [again], course=course.id, site=course.site, requested_by=requested_by, at_ms=at_ms)
    return fresh


def _one(order: Order, *, course: Course, hub: HubKeys, now_s: int, token_id: bytes) -> Minted:
    claims = Claims(
        issuer="hub",
        audience=course.site,
        course="" if order.token_class is TokenClass.TEST else course.id,
        token_id=token_id,
        issued_s=now_s,
        not_before_s=now_s,
        expires_s=now_s + order.days * 86_400,
        token_class=order.token_class,
        uses=order.uses + order.spare,
        kit=order.kit,
    )
    return Minted(token.mint(claims, hub.mint_key()), token.site_hash(token_id, site_key(hub, course.site)), claims)


def code_of(data: bytes) -> segno.QRCode:
    """Return the QR code of a token: binary mode, error correction M, so that a creased kit card still reads."""
    return segno.make(data, error="m", mode="byte", micro=False)


def write_batch(minted: list[Minted], folder: Path) -> Path:
    """Write each token as bytes, PNG and SVG, and a PDF sheet to cut up; return the sheet's path. Private files: tokens are money."""
    make_private_folder(folder)
    cards = []
    for number, one in enumerate(minted, 1):
        name = f"token-{number:03d}"
        write_file(folder / f"{name}.cose", one.data, mode=PRIVATE_FILE)
        code = code_of(one.data)
        code.save(str(folder / f"{name}.png"), scale=QR_SCALE)
        code.save(str(folder / f"{name}.svg"), scale=QR_SCALE)
        uses, site = one.claims.uses, one.claims.audience
        cards.append(
            {"image": f"{name}.svg", "short": one.hashed.hex()[:8], "uses": uses, "site": site, "kind": one.claims.token_class.value}
        )
    template = (resources.files("ingest.billing") / "sheets" / "tokens.typ").read_text(encoding="utf-8")
    sheet = folder / "sheet.pdf"
    with tempfile.TemporaryDirectory(dir=folder) as work:
        source = Path(work) / "tokens.typ"
        source.write_text(template, encoding="utf-8")
        pdf = typst.compile(str(source), root=str(folder), sys_inputs={"cards": json.dumps(cards)})
    write_file(sheet, pdf, mode=PRIVATE_FILE)
    return sheet
