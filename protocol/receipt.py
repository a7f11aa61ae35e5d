"""Receipt: the cloud's word that it has committed what a gateway sent. The only thing that lets an outbox forget. Not a PUBACK.

Invariant: ``up_to`` and the chain head are read in the same database transaction that stored the records they speak of.
"""

from dataclasses import dataclass

import msgspec

from protocol.refusal import Reason, Refusal

__all__ = ["GAPS_MAX", "RECEIPT_BYTES_MAX", "Gap", "Receipt", "decode", "encode"]

GAPS_MAX = 64  # gaps listed in one receipt; the gateway resends these first and hears of the rest in the next receipt
RECEIPT_BYTES_MAX = 8192  # sixty-four gaps of two 19-digit numbers fit three times


@dataclass(frozen=True, slots=True)
class Gap:
    """A closed range of sequence numbers that the cloud has not seen although it has seen later ones."""

    first: int
    last: int


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """Cumulative: everything of ``stream`` up to and including ``up_to`` is committed (0: nothing yet; sequences start at 1).

    ``head`` is the hash (hex) of the fact at ``up_to`` for fact lanes, empty for telemetry: either side can prove the other's rollback.
    ``wall_ms`` is the cloud's clock, a lower bound for a gateway that booted in the past. ``seen`` is the highest number committed (0: not
    said): what lies between ``up_to`` and it outside ``gaps`` need not be sent again. Unknown fields are ignored: newer clouds may add.
    """

    stream: int
    up_to: int
    gaps: tuple[Gap, ...] = ()
    head: str = ""
    wall_ms: int = 0
    v: int = 1
    seen: int = 0


def encode(receipt: Receipt) -> bytes:
    """Return the receipt as JSON: small, rare, and readable when a person listens in."""
    return msgspec.json.encode(receipt)


def decode(data: bytes) -> Receipt | Refusal:
    """Return the receipt in ``data`` or why it is none. Never raises."""
    if len(data) > RECEIPT_BYTES_MAX:
        return Refusal(Reason.TOO_LONG, f"{len(data)} bytes")
    try:
        receipt = msgspec.json.decode(data, type=Receipt)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Refusal(Reason.BAD_JSON, str(error))
    if receipt.v != 1:
        return Refusal(Reason.UNKNOWN_VERSION, str(receipt.v))
    ordered = all(gap.first <= gap.last for gap in receipt.gaps)
    if min(receipt.stream, receipt.up_to, receipt.seen) < 0 or len(receipt.gaps) > GAPS_MAX or not ordered:
        return Refusal(Reason.BAD_VALUE, "stream, up_to or gaps")
    return receipt
