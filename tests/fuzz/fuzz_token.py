"""Fuzz the token and manifest decoders: no exception, and nothing is accepted but the very bytes that were signed."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["protocol"]):
    from protocol import keys, token, typed_code

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.clock import ClockQuality
from protocol.keys import Manifest, ManifestKey
from protocol.token import Claims, TokenClass, Verified

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
MANIFEST = Manifest(1, (ManifestKey(keys.key_id(PUBLIC), PUBLIC, 0),))
CLAIMS = Claims("hub", "clinic-a", "course-1", bytes(range(16)), 5, 5, 10**9, TokenClass.PAID, 6, "kit-1")
TOKEN = token.mint(CLAIMS, KEY)
SIGNED_MANIFEST = keys.sign_manifest(MANIFEST, KEY)


def one_input(data: bytes) -> None:
    """Judge mutated bytes as a token, as a manifest and as a typed code."""
    verdict = token.verify(data, manifest=MANIFEST, site="clinic-a", revoked=(), now_s=10, quality=ClockQuality.SYNCED)
    assert not isinstance(verdict, Verified) or data == TOKEN, "an altered token was accepted"
    accepted = keys.accept_manifest(keys.EMPTY, data, PUBLIC)
    assert not isinstance(accepted, Manifest) or data == SIGNED_MANIFEST, "an altered manifest was accepted"
    token.read_claims(data)
    assert typed_code.check(data.decode("latin-1"), typed_code.CodeState(), bytes(32)).counter is None


def main() -> None:
    """Write the seeds into the corpus folder and fuzz."""
    corpus = next((Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")), None)
    if corpus:
        parts = keys.open_signed(TOKEN)
        assert isinstance(parts, keys.SignedParts)
        for name, seed in {
            "token": TOKEN,
            "claims": parts.payload,
            "manifest": SIGNED_MANIFEST,
            "digits": b"12345 12345 12345 12345",
        }.items():
            (corpus / name).write_bytes(seed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
