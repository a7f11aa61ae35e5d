"""Facts: the closed list of what money, safety and audit rest on. Exact, small, never thinned, never dropped. Not telemetry: another type.

A fact travels as deterministic CBOR (RFC 8949 §4.2) inside a frame. Each carries the hash of the fact before it in its stream, so a lane is
a chain whose head the receipts repeat. Invariant: ``encode(decode(b)) == b`` for every accepted ``b``; other spellings are refused.
"""

import hashlib
from dataclasses import dataclass
from typing import get_args

import msgspec

from protocol import cbor
from protocol.refusal import Reason, Refusal

__all__ = [
    "CHAIN_START",
    "FACT_BYTES_MAX",
    "AlarmCleared",
    "AlarmRaised",
    "Audit",
    "ClockStepped",
    "ConfigurationApplied",
    "CounterRead",
    "CounterReplaced",
    "Fact",
    "FactRecord",
    "FittingAttested",
    "Loaner",
    "Relocated",
    "SessionClosed",
    "SessionEvent",
    "SessionOpened",
    "TokenPresented",
    "decode",
    "encode",
    "fact_hash",
]

FACT_BYTES_MAX = 4096  # the largest fact is a token of ~300 bytes with its context; ten times that is a mistake or an attack
CHAIN_START = bytes(32)
"""``previous`` of the first fact of a stream."""


class _Fact(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """Base: every fact names its kind."""


class TokenPresented(_Fact, frozen=True, tag="token_presented"):
    """Somebody presented a token; ``answer`` is of the closed list ``token.Answer``, ``token`` its keyed hash, never the token itself.

    ``token`` is empty when it could not be read. A use that was applied names the session that it opened or was shown to.
    """

    device: str
    circuit: int
    token: bytes
    answer: str
    carrier: str
    session: bytes = b""


class SessionOpened(_Fact, frozen=True, tag="session_opened"):
    """A session began; written in one transaction with the redemption (rule S1). The first fact of each session.

    ``start`` is ``token``, ``typed``, ``override`` or ``grace_storage``. ``token`` (keyed hash) and ``use_index`` are the replay key of the
    use; empty and -1 when nothing paid for it yet. ``course`` is a pseudonym. ``continues`` names the session that goes on here after a
    machine swap (rule S5). ``override_count`` never decreases on a gateway; ``reason`` is of a closed list on the page.
    """

    session: bytes
    device: str
    circuit: int
    start: str
    token: bytes = b""
    use_index: int = -1
    token_class: str = ""
    course: str = ""
    flags: tuple[str, ...] = ()
    continues: bytes = b""
    override_count: int = 0
    reason: str = ""


class SessionEvent(_Fact, frozen=True, tag="session_event"):
    """One event of the session table (``session.What``), ``at_ms`` of monotonic time after the session began.

    What staff entered and what telemetry showed are told apart by the event itself. The cloud replays these, and nothing else.
    """

    session: bytes
    what: str
    at_ms: int


class SessionClosed(_Fact, frozen=True, tag="session_closed"):
    """What the gateway's own table came to. A replay of the events that differs is an alarm, not an argument."""

    session: bytes
    phase: str
    commit: str
    end_reason: str
    elapsed_ms: int
    in_range_ms: int
    post_in_range_ms: int
    paused_ms: int


class FittingAttested(_Fact, frozen=True, tag="fitting_attested"):
    """A cap was fitted: course pseudonym, kit serial and size, attested by a role (never a name)."""

    course: str
    kit: str
    size: str
    role: str


class AlarmRaised(_Fact, frozen=True, tag="alarm_raised"):
    """A rule's condition holds. ``value_milli`` and ``limit_milli`` are thousandths of the channel's unit."""

    device: str
    rule: str
    circuit: int
    severity: str
    channel: str = ""
    value_milli: int | None = None
    limit_milli: int | None = None


class AlarmCleared(_Fact, frozen=True, tag="alarm_cleared"):
    """The same condition no longer holds; ``active_ms`` is how long it did, on the monotonic clock."""

    device: str
    rule: str
    circuit: int
    active_ms: int


class CounterRead(_Fact, frozen=True, tag="counter_read"):
    """The machine's own lifetime counter, read once a day and at each session's end: the fourth witness of reconciliation."""

    device: str
    counter: str
    value: int


class CounterReplaced(_Fact, frozen=True, tag="counter_replaced"):
    """The part that holds a lifetime counter was changed: old and new reading."""

    device: str
    counter: str
    old_value: int
    new_value: int


class Loaner(_Fact, frozen=True, tag="loaner"):
    """A machine stands in for another."""

    device: str
    replaces: str
    active: bool


class Relocated(_Fact, frozen=True, tag="relocated"):
    """A machine moved to another gateway or room; ``site`` is the site's id."""

    device: str
    site: str


class ConfigurationApplied(_Fact, frozen=True, tag="configuration_applied"):
    """A configuration took effect: its version and the SHA-256 of the document."""

    document: str
    version: int
    digest: bytes


class ClockStepped(_Fact, frozen=True, tag="clock_stepped"):
    """Wall time jumped against monotonic time by ``step_ms`` (positive: forward)."""

    step_ms: int
    quality: int


class Audit(_Fact, frozen=True, tag="audit"):
    """Something an auditor asks for: ``event`` is a short name from the code, ``detail`` holds integers only."""

    event: str
    detail: dict[str, int] = {}


Fact = (
    TokenPresented
    | SessionOpened
    | SessionEvent
    | SessionClosed
    | FittingAttested
    | AlarmRaised
    | AlarmCleared
    | CounterRead
    | CounterReplaced
    | Loaner
    | Relocated
    | ConfigurationApplied
    | ClockStepped
    | Audit
)
"""Any fact. The list is closed: a new kind is a new format version."""

KINDS = frozenset(kind.__struct_config__.tag for kind in get_args(Fact))


@dataclass(frozen=True, slots=True)
class FactRecord:
    """A fact as it lies in its chain."""

    fact: Fact
    previous: bytes


def encode(record: FactRecord) -> bytes:
    """Return the fact's bytes: a canonical CBOR map ``{"v": 1, "prev": bytes32, "fact": {...}}``.

    Raises ``ValueError`` for a fact over ``FACT_BYTES_MAX`` or a ``previous`` that is no hash: both are ours, so bugs.
    """
    if len(record.previous) != len(CHAIN_START):
        msg = f"previous hash has {len(record.previous)} bytes"
        raise ValueError(msg)
    body = msgspec.to_builtins(record.fact, builtin_types=(bytes,))
    data = cbor.dumps({"v": 1, "prev": record.previous, "fact": body})
    if len(data) > FACT_BYTES_MAX:
        msg = f"fact of {len(data)} bytes is over {FACT_BYTES_MAX}"
        raise ValueError(msg)
    return data


def decode(data: bytes) -> FactRecord | Refusal:
    """Return the fact in ``data`` or why it is refused: size, CBOR, canonical spelling, shape, in that order. Never raises."""
    if len(data) > FACT_BYTES_MAX:
        return Refusal(Reason.TOO_LONG, f"{len(data)} bytes")
    try:
        document = cbor.loads(data)
    except (cbor.DecodeError, ValueError, RecursionError, OverflowError, TypeError) as error:
        return Refusal(Reason.BAD_CBOR, type(error).__name__)
    shape = _check_shape(document)
    if shape is not None:
        return shape
    try:
        record = FactRecord(msgspec.convert(document["fact"], type=Fact, builtin_types=(bytes,)), document["prev"])
    except (msgspec.ValidationError, RecursionError) as error:
        return Refusal(Reason.BAD_FACT, str(error)[:200])
    # Re-encoding must give the same bytes: longer headers, other key orders and trailing bytes are other spellings of one fact.
    if encode(record) != data:
        return Refusal(Reason.NOT_CANONICAL)
    return record


def _check_shape(document: object) -> Refusal | None:
    if not isinstance(document, dict) or document.keys() != {"v", "prev", "fact"}:
        return Refusal(Reason.BAD_FACT, "not a map of v, prev and fact")
    if document["v"] != 1 or isinstance(document["v"], bool):
        return Refusal(Reason.UNKNOWN_VERSION, "fact")
    if not isinstance(document["prev"], bytes) or len(document["prev"]) != len(CHAIN_START):
        return Refusal(Reason.BAD_FACT, "prev is not a 32-byte hash")
    return None


def fact_hash(data: bytes) -> bytes:
    """Return the SHA-256 of a fact's bytes: the next fact's ``previous``, the receipt's ``head``."""
    return hashlib.sha256(data).digest()
