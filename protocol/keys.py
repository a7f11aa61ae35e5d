"""Signing keys and the manifest that says which may sign tokens. Public halves only; private keys are files of the mint, never here.

Invariant: a manifest is signed by the offline root, its version never goes backwards, and a key whose point has small order is refused
wherever it comes from (one fixed signature verifies any message under such a key).
"""

import hashlib
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cwt import COSE, COSEKey, DecodeError, VerifyError

from protocol import cbor
from protocol.refusal import Reason, Refusal

__all__ = [
    "EMPTY",
    "KEYS_MAX",
    "Manifest",
    "ManifestKey",
    "SignedParts",
    "accept_manifest",
    "is_small_order",
    "key_id",
    "open_signed",
    "sign",
    "sign_manifest",
    "verify_signature",
]

KEYS_MAX = 64  # overlapping validity needs two or three; more is a mistake at the root
SIGNED_BYTES_MAX = 65_536  # the largest signed document is a down-document; a token is under 400 bytes
COSE_SIGN1_TAG = 18
ALG_EDDSA = -8
HEADER_ALG, HEADER_KID = 1, 4
COSE_KEY_OPS, COSE_KEY_D = 4, -4
SIGNATURE_BYTES = 64
KEY_BYTES = 32

# Encodings of the points of order 1, 2, 4 and 8, with the sign bit cleared (the list of libsodium's ed25519_has_small_order).
_SMALL_ORDER = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


class ManifestKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that signs or once signed tokens. Times are Unix seconds; ``retired_s`` 0 while it is in use.

    A retired key still verifies tokens issued before its retirement: holders lose nothing through our rotation (rule T4).
    """

    kid: bytes
    public: bytes
    from_s: int
    retired_s: int = 0


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which keys may sign tokens; ``version`` only ever rises."""

    version: int
    keys: tuple[ManifestKey, ...]

    def find(self, kid: bytes) -> ManifestKey | None:
        """Return the key of that id, or ``None``."""
        return next((key for key in self.keys if key.kid == kid), None)


EMPTY = Manifest(0, ())
"""What a gateway starts from: no key is known, every token gets UNKNOWN_KEY and break-glass."""


def is_small_order(public: bytes) -> bool:
    """Tell whether an Ed25519 public key is one under which anybody can sign."""
    return public[:-1] + bytes((public[-1] & 0x7F,)) in _SMALL_ORDER


def key_id(public: bytes) -> bytes:
    """Return the eight-byte id of a public key: the beginning of its SHA-256."""
    return hashlib.sha256(public).digest()[:8]


@dataclass(frozen=True, slots=True)
class SignedParts:
    """A COSE_Sign1 whose spelling has been checked, not yet its signature."""

    kid: bytes
    payload: bytes
    data: bytes
    """The whole message, as it came."""


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return ``payload`` as COSE_Sign1 (RFC 9052) in its one accepted spelling: alg and kid protected, nothing unprotected, canonical."""
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    private = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    cose_key = COSEKey.new({**_okp(public), COSE_KEY_D: private, COSE_KEY_OPS: [1]})
    signer = COSE.new(deterministic_header=True)
    signed = signer.encode_and_sign(payload, cose_key, protected={HEADER_ALG: ALG_EDDSA, HEADER_KID: key_id(public)}, unprotected={})
    data = bytes(signed) if isinstance(signed, bytes) else b""
    if isinstance(open_signed(data), Refusal):
        msg = "the COSE library no longer writes the one spelling that we accept"
        raise RuntimeError(msg)  # noqa: TRY004  # not an argument's type: a broken promise of the library
    return data


def _okp(public: bytes) -> dict[int, object]:
    """An Ed25519 public key as a COSE_Key map (RFC 9053 §7.2): kty OKP, alg EdDSA, crv Ed25519, x."""
    return {1: 1, 2: key_id(public), 3: ALG_EDDSA, -1: 6, -2: public}


def open_signed(data: bytes) -> SignedParts | Refusal:
    """Return the parts of a COSE_Sign1 in our one spelling, or why it is not one.

    Strict on purpose (rule T3): the algorithm is EdDSA and protected, the unprotected map is empty, and encoding what was read gives the
    same bytes, so there are no trailing bytes, longer headers or other key orders. One token has one spelling.
    """
    if len(data) > SIGNED_BYTES_MAX:
        return Refusal(Reason.TOO_LONG, f"{len(data)} bytes")
    try:
        outer = cbor.loads(data)
        if not isinstance(outer, cbor.Tag) or outer.tag != COSE_SIGN1_TAG or not _is_four_parts(outer.value):
            return Refusal(Reason.BAD_CBOR, "not COSE_Sign1 with nothing unprotected")
        protected, _, payload, signature = outer.value
        header = cbor.loads(protected)
        canonical = cbor.dumps(cbor.Tag(COSE_SIGN1_TAG, [cbor.dumps(header), {}, payload, signature]))
    except (cbor.DecodeError, cbor.EncodeError, ValueError, RecursionError, OverflowError, TypeError) as error:
        return Refusal(Reason.BAD_CBOR, type(error).__name__)
    if canonical != data:
        return Refusal(Reason.NOT_CANONICAL)
    if not isinstance(header, dict) or header.keys() != {HEADER_ALG, HEADER_KID} or header[HEADER_ALG] != ALG_EDDSA:
        return Refusal(Reason.BAD_VALUE, "protected header must be alg EdDSA and kid")
    if not isinstance(header[HEADER_KID], bytes) or len(signature) != SIGNATURE_BYTES:
        return Refusal(Reason.BAD_VALUE, "kid or signature")
    return SignedParts(header[HEADER_KID], payload, data)


def _is_four_parts(value: object) -> bool:
    """Protected bytes, an empty map, payload bytes, signature bytes."""
    if not isinstance(value, list | tuple) or len(value) != 4 or value[1] != {}:
        return False
    return all(isinstance(part, bytes) for part in (value[0], value[2], value[3]))


def verify_signature(parts: SignedParts, public: bytes) -> bool:
    """Tell whether the parts are signed by ``public``. A key of small order or wrong length verifies nothing."""
    if len(public) != KEY_BYTES or is_small_order(public):
        return False
    try:
        COSE.new().decode(parts.data, COSEKey.new({**_okp(public), COSE_KEY_OPS: [2]}))
    except (VerifyError, DecodeError, ValueError):
        return False
    return True


def sign_manifest(manifest: Manifest, root: Ed25519PrivateKey) -> bytes:
    """Return the manifest signed by the offline root."""
    return sign(cbor.dumps(msgspec.to_builtins(manifest, builtin_types=(bytes,))), root)


def accept_manifest(current: Manifest, data: bytes, root_public: bytes) -> Manifest | Refusal:
    """Return the newer manifest in ``data``, or why ``current`` stays.

    Refused: a wrong spelling, another signer than the pinned root, an older or equal version (rule T4, case E14), a key of small order, a
    key id that is not its key's.
    """
    parts = open_signed(data)
    if isinstance(parts, Refusal):
        return parts
    if parts.kid != key_id(root_public) or not verify_signature(parts, root_public):
        return Refusal(Reason.BAD_SIGNATURE, "not signed by the root")
    try:
        manifest = msgspec.convert(cbor.loads(parts.payload), type=Manifest, builtin_types=(bytes,))
    except (msgspec.ValidationError, cbor.DecodeError, ValueError, RecursionError, TypeError) as error:
        return Refusal(Reason.BAD_VALUE, str(error)[:200])
    if manifest.version <= current.version:
        return Refusal(Reason.OLD_VERSION, f"version {manifest.version} after {current.version}")
    if len(manifest.keys) > KEYS_MAX or len({key.kid for key in manifest.keys}) != len(manifest.keys):
        return Refusal(Reason.BAD_VALUE, "too many keys, or one id twice")
    for key in manifest.keys:
        if len(key.public) != KEY_BYTES or is_small_order(key.public) or key.kid != key_id(key.public):
            return Refusal(Reason.BAD_VALUE, f"key {key.kid.hex()} is weak or misnamed")
    return manifest
