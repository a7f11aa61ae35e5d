"""Tokens: the signed promise of a number of treatments. Parse, check, answer by name; not the redemption itself (that is a transaction).

A token is COSE_Sign1 over a CBOR map with CWT's claim numbers. It carries no patient data, no price and no claim that a wrong clock could
turn into a refusal of care. Invariant: the replay key is (token id, use index) from inside the signature, never the carrier's text; and
every answer, good or bad, leaves cooling alone (metering rules T1-T6, A1, A6).
"""

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import cbor, keys
from protocol.clock import ClockQuality
from protocol.keys import Manifest
from protocol.refusal import Refusal

__all__ = [
    "TOKEN_BYTES_MAX",
    "USES_MAX",
    "Answer",
    "Claims",
    "Flag",
    "Rejected",
    "TokenClass",
    "Verified",
    "mint",
    "read_claims",
    "site_hash",
    "verify",
]

TOKEN_BYTES_MAX = 512  # a token is about 250 bytes; a QR code of version 15-M holds 412
USES_MAX = 64  # the longest course in the price list has 12 treatments; spares included, 64 is a mistake at the mint
EXPIRY_TOLERANCE_S = 30 * 86_400  # rule T5: a dead battery or a late course must not be refused within thirty days
TOKEN_ID_BYTES = 16
VERSION = 1

# CWT claims (RFC 8392 §3.1) and private-use numbers below -65536.
_ISS, _SUB, _AUD, _EXP, _NBF, _IAT, _CTI = 1, 2, 3, 4, 5, 6, 7
_VER, _CLASS, _USES, _KIT = -70001, -70002, -70003, -70004
_REQUIRED = frozenset({_ISS, _AUD, _EXP, _NBF, _IAT, _CTI, _VER, _CLASS, _USES})
_KNOWN = _REQUIRED | {_SUB, _KIT}


class TokenClass(StrEnum):
    """What a use of the token is for."""

    PAID = "PAID"
    COURTESY = "COURTESY"
    TEST = "TEST"
    SETTLE = "SETTLE"


class Answer(StrEnum):
    """The closed list of answers (rule T6). Each is shown with break-glass; none of them stops a machine."""

    APPLIED = "APPLIED"
    ALREADY_USED = "ALREADY_USED"
    WRONG_SITE = "WRONG_SITE"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    REVOKED = "REVOKED"
    MALFORMED = "MALFORMED"


class Flag(StrEnum):
    """What a person should look at although the token was accepted."""

    EXPIRED = "expired"
    NOT_YET = "not_yet"
    CLOCK_UNSURE = "clock_unsure"


class Claims(msgspec.Struct, frozen=True):
    """What a token says. ``audience`` is a site (amendment A6), ``course`` a pseudonym; times are Unix seconds; ``uses`` include spares."""

    issuer: str
    audience: str
    course: str
    token_id: bytes
    issued_s: int
    not_before_s: int
    expires_s: int
    token_class: TokenClass
    uses: int
    kit: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """The token is genuine and for this site. Whether a use is left is for the store to say."""

    claims: Claims
    kid: bytes
    flags: tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why not; ``detail`` is for the log, never for the nurse."""

    answer: Answer
    detail: str


def mint(claims: Claims, key: Ed25519PrivateKey) -> bytes:
    """Return the signed token. Raises ``ValueError`` for claims that ``verify`` would refuse: nobody should hold a dead token."""
    payload = cbor.dumps(_to_map(claims))
    problem = read_claims(payload)
    if isinstance(problem, str):
        msg = f"token would be refused: {problem}"
        raise ValueError(msg)  # noqa: TRY004  # the claims are of the right type and the wrong content
    data = keys.sign(payload, key)
    if len(data) > TOKEN_BYTES_MAX:
        msg = f"token of {len(data)} bytes is over {TOKEN_BYTES_MAX}"
        raise ValueError(msg)
    return data


def _to_map(claims: Claims) -> dict[int, object]:
    document: dict[int, object] = {
        _ISS: claims.issuer,
        _AUD: claims.audience,
        _EXP: claims.expires_s,
        _NBF: claims.not_before_s,
        _IAT: claims.issued_s,
        _CTI: claims.token_id,
        _VER: VERSION,
        _CLASS: claims.token_class.value,
        _USES: claims.uses,
    }
    if claims.course:
        document[_SUB] = claims.course
    if claims.kit:
        document[_KIT] = claims.kit
    return document


def read_claims(payload: bytes) -> Claims | str:
    """Return the claims in a payload, or what is wrong with it. Never raises."""
    try:
        document = cbor.loads(payload)
        canonical = cbor.dumps(document)
    except (cbor.DecodeError, cbor.EncodeError, ValueError, RecursionError, OverflowError, TypeError) as error:
        return f"payload: {type(error).__name__}"
    if not isinstance(document, dict) or canonical != payload:
        return "payload is not a canonical map"
    if not document.keys() >= _REQUIRED or not document.keys() <= _KNOWN:
        return "claims missing or unknown"
    if document[_VER] != VERSION:
        return f"version {document[_VER]!r}"
    named = {
        "issuer": document[_ISS],
        "audience": document[_AUD],
        "course": document.get(_SUB, ""),
        "token_id": document[_CTI],
        "issued_s": document[_IAT],
        "not_before_s": document[_NBF],
        "expires_s": document[_EXP],
        "token_class": document[_CLASS],
        "uses": document[_USES],
        "kit": document.get(_KIT, ""),
    }
    try:
        claims = msgspec.convert(named, type=Claims, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        return str(error)[:100]
    return _claims_problem(claims) or claims


def _claims_problem(claims: Claims) -> str:
    if len(claims.token_id) != TOKEN_ID_BYTES:
        return "token id is not 16 bytes"
    if not 1 <= claims.uses <= USES_MAX:
        return f"{claims.uses} uses"
    if not 0 <= claims.not_before_s <= claims.expires_s < 2**63:
        return "validity window"
    if (claims.token_class is TokenClass.TEST) == bool(claims.course):
        return "a TEST token has no course, every other has one"  # case E33
    return ""


def verify(
    data: bytes, *, manifest: Manifest, site: str, revoked: Collection[bytes], now_s: int, quality: ClockQuality
) -> Verified | Rejected:
    """Check a token in the order of the rules: spelling, version, key, signature, audience, denylist, window.

    ``revoked`` holds token ids of the denylist; ``now_s`` is not below the time floor. Expiry is advisory: only a synced clock past expiry
    plus thirty days refuses (rule T5), everything else is accepted with a flag.
    """
    genuine = _authenticate(data, manifest)
    if isinstance(genuine, Rejected):
        return genuine
    claims, kid = genuine
    if claims.audience != site:
        return Rejected(Answer.WRONG_SITE, claims.audience)
    if claims.token_id in revoked:
        return Rejected(Answer.REVOKED, "on the denylist")
    if quality is ClockQuality.SYNCED and now_s > claims.expires_s + EXPIRY_TOLERANCE_S:
        return Rejected(Answer.REVOKED, "expired more than thirty days ago")
    return Verified(claims, kid, _flags(claims, now_s, quality))


def _authenticate(data: bytes, manifest: Manifest) -> tuple[Claims, bytes] | Rejected:
    """Spelling, claims, key, signature: whether this is a token of ours at all."""
    if len(data) > TOKEN_BYTES_MAX:
        return Rejected(Answer.MALFORMED, f"{len(data)} bytes")
    parts = keys.open_signed(data)
    if isinstance(parts, Refusal):
        return Rejected(Answer.MALFORMED, str(parts))
    claims = read_claims(parts.payload)
    if isinstance(claims, str):
        return Rejected(Answer.MALFORMED, claims)
    key = manifest.find(parts.kid)
    if key is None:
        return Rejected(Answer.UNKNOWN_KEY, parts.kid.hex())
    if not keys.verify_signature(parts, key.public):
        return Rejected(Answer.BAD_SIGNATURE, parts.kid.hex())
    if key.retired_s and claims.issued_s >= key.retired_s:
        return Rejected(Answer.UNKNOWN_KEY, "signed after the key was retired")  # rule T4
    return claims, parts.kid


def _flags(claims: Claims, now_s: int, quality: ClockQuality) -> tuple[Flag, ...]:
    flags = []
    if now_s > claims.expires_s:
        flags.append(Flag.EXPIRED)
    if now_s < claims.not_before_s:
        flags.append(Flag.NOT_YET)
    if flags and quality is not ClockQuality.SYNCED:
        flags.append(Flag.CLOCK_UNSURE)
    return tuple(flags)


def site_hash(token_id: bytes, site_key: bytes) -> bytes:
    """Return the keyed hash under which a token is known outside the clinic (HMAC-SHA-256, 16 bytes)."""
    return hmac.new(site_key, token_id, hashlib.sha256).digest()[:16]
