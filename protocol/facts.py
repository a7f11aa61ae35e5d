"""Facts: the closed list of what money, safety and audit rest on. Exact, small, never thinned, never dropped. Not telemetry: another type.

A fact travels as deterministic CBOR (RFC 8949 §4.2) inside a frame. Each carries the hash of the fact before it in its stream, so a lane is
a chain whose head the receipts repeat. Invariant: ``encode(decode(b)) == b`` for every accepted ``b``; other spellings are refused.
"""

import hashlib
from dataclasses import dataclass
from typing import get_args

import cbor2
import msgspec

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
    "OverrideUsed",
    "Relocated",
    "SessionMarked",
    "SessionPhaseChanged",
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
    """Somebody presented a token; ``answer`` is the closed list of the token rules, ``token`` a keyed hash, never the token itself."""

    device: str
    circuit: int
    token: bytes
    use_index: int
    answer: str
    session: bytes = b""


class SessionPhaseChanged(_Fact, frozen=True, tag="session_phase_changed"):
    """The session table moved; ``elapsed_ms`` is monotonic time since the session began."""

    session: bytes
    device: str
    circuit: int
    phase: str
    elapsed_ms: int
    reason: str = ""


class SessionMarked(_Fact, frozen=True, tag="session_marked"):
    """Staff marked something the machine cannot know: infusion start or end, chemotherapy not given."""

    session: bytes
    mark: str
    elapsed_ms: int


class FittingAttested(_Fact, frozen=True, tag="fitting_attested"):
    """A cap was fitted: course pseudonym, kit serial and size, attested by a role (never a name)."""

    course: str
    kit: str
    size: str
    role: str


class OverrideUsed(_Fact, frozen=True, tag="override_used"):
    """Break-glass: cooling went on without a good token. ``count`` never decreases on a gateway."""

    device: str
    circuit: int
    session: bytes
    count: int
    reason: str


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
    | SessionPhaseChanged
    | SessionMarked
    | FittingAttested
    | OverrideUsed
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
    data = cbor2.dumps({"v": 1, "prev": record.previous, "fact": body}, canonical=True)
    if len(data) > FACT_BYTES_MAX:
        msg = f"fact of {len(data)} bytes is over {FACT_BYTES_MAX}"
        raise ValueError(msg)
    return data


def decode(data: bytes) -> FactRecord | Refusal:
    """Return the fact in ``data`` or why it is refused: size, CBOR, canonical spelling, shape, in that order. Never raises."""
    if len(data) > FACT_BYTES_MAX:
        return Refusal(Reason.TOO_LONG, f"{len(data)} bytes")
    try:
        document = cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError, TypeError) as error:
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
