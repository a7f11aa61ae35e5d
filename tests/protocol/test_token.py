"""Tokens: one spelling, one key set, one answer each. The ids in the names are those of the cases E of the metering rules."""

import itertools
from dataclasses import replace

import cbor2
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from protocol import keys, token
from protocol.clock import ClockQuality
from protocol.keys import Manifest, ManifestKey
from protocol.refusal import Reason, Refusal
from protocol.token import Answer, Claims, Flag, Rejected, TokenClass, Verified

NOW_S = 1_767_225_600
DAY_S = 86_400
ROOT = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MINT = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CLAIMS = Claims(
    issuer="hub",
    audience="clinic-a",
    course="course-7f3a",
    token_id=bytes(range(16)),
    issued_s=NOW_S - DAY_S,
    not_before_s=NOW_S - DAY_S,
    expires_s=NOW_S + 300 * DAY_S,
    token_class=TokenClass.PAID,
    uses=6,
    kit="kit-123",
)


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def manifest_of(*signers: Ed25519PrivateKey, version: int = 1, retired_s: int = 0) -> Manifest:
    return Manifest(version, tuple(ManifestKey(keys.key_id(public(one)), public(one), 0, retired_s) for one in signers))


MANIFEST = manifest_of(MINT)


def judge(data: bytes, **changes) -> Verified | Rejected:
    settings = {"manifest": MANIFEST, "site": "clinic-a", "revoked": frozenset(), "now_s": NOW_S, "quality": ClockQuality.SYNCED}
    return token.verify(data, **(settings | changes))


def answer(data: bytes, **changes) -> Answer:
    verdict = judge(data, **changes)
    assert isinstance(verdict, Rejected), verdict
    return verdict.answer


def test_a_good_token_says_what_was_minted():
    assert judge(token.mint(CLAIMS, MINT)) == Verified(CLAIMS, keys.key_id(public(MINT)), ())


def test_a_token_fits_a_qr_code():
    assert len(token.mint(CLAIMS, MINT)) < 260


def test_no_single_bit_flip_of_a_token_is_accepted():
    data = token.mint(CLAIMS, MINT)

    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert isinstance(judge(bytes(damaged)), Rejected), bit


def test_no_truncation_and_no_extension_is_accepted():
    data = token.mint(CLAIMS, MINT)

    assert all(answer(data[:length]) is Answer.MALFORMED for length in range(len(data)))
    assert all(answer(data + bytes([extra])) is Answer.MALFORMED for extra in range(256))


@given(st.binary(max_size=400))
def test_noise_is_malformed_and_never_raises(noise):
    assert answer(noise) is Answer.MALFORMED


def test_e05_a_token_of_another_site_is_wrong_site():
    assert answer(token.mint(CLAIMS, MINT), site="clinic-b") is Answer.WRONG_SITE


@pytest.mark.parametrize("quality", ClockQuality)
def test_e06_a_token_expired_for_a_day_is_accepted_with_a_flag(quality):
    verdict = judge(token.mint(CLAIMS, MINT), now_s=CLAIMS.expires_s + DAY_S, quality=quality)

    assert isinstance(verdict, Verified)
    assert Flag.EXPIRED in verdict.flags
    assert (Flag.CLOCK_UNSURE in verdict.flags) == (quality is not ClockQuality.SYNCED)


def test_only_a_synced_clock_refuses_and_only_after_thirty_days():
    data = token.mint(CLAIMS, MINT)
    late = CLAIMS.expires_s + 30 * DAY_S

    assert isinstance(judge(data, now_s=late), Verified)
    assert answer(data, now_s=late + 1) is Answer.REVOKED
    for unsure in (ClockQuality.UNSYNCED, ClockQuality.INFORMATIVE, ClockQuality.RELATIVE):
        assert isinstance(judge(data, now_s=late + 10**9, quality=unsure), Verified)


def test_a_clock_in_the_past_never_refuses():
    verdict = judge(token.mint(CLAIMS, MINT), now_s=0, quality=ClockQuality.UNSYNCED)

    assert isinstance(verdict, Verified)
    assert verdict.flags == (Flag.NOT_YET, Flag.CLOCK_UNSURE)


def test_e12_an_unknown_key_is_named_so():
    stranger = Ed25519PrivateKey.generate()

    assert answer(token.mint(CLAIMS, stranger)) is Answer.UNKNOWN_KEY
    assert answer(token.mint(CLAIMS, MINT), manifest=keys.EMPTY) is Answer.UNKNOWN_KEY


def test_a_wrong_signature_under_a_known_key_id_is_named_so():
    outer = cbor2.loads(token.mint(CLAIMS, MINT))
    other = cbor2.loads(token.mint(msgspec.structs.replace(CLAIMS, uses=7), MINT))
    swapped = cbor2.dumps(cbor2.CBORTag(18, [outer.value[0], {}, outer.value[2], other.value[3]]), canonical=True)

    assert answer(swapped) is Answer.BAD_SIGNATURE


def test_e15_other_spellings_of_one_token_are_malformed():
    data = token.mint(CLAIMS, MINT)
    protected, _, payload, signature = cbor2.loads(data).value
    unprotected = cbor2.dumps(cbor2.CBORTag(18, [protected, {33: b"x"}, payload, signature]), canonical=True)
    untagged = cbor2.dumps([protected, {}, payload, signature], canonical=True)
    long_header = data[:1] + b"\x98\x04" + data[2:]
    retagged = cbor2.dumps(cbor2.CBORTag(98, [protected, {}, payload, signature]), canonical=True)

    for other in (unprotected, untagged, long_header, retagged, data + b"\x00"):
        assert other != data
        assert answer(other) is Answer.MALFORMED


def signed_with_header(header: dict, unprotected: dict) -> bytes:
    """A COSE_Sign1 whose header lies; the signature is a real Ed25519 one over exactly that header."""
    protected = cbor2.dumps(header, canonical=True) if header else b""
    payload = cbor2.loads(token.mint(CLAIMS, MINT)).value[2]
    signature = MINT.sign(cbor2.dumps(["Signature1", protected, b"", payload], canonical=True))
    return cbor2.dumps(cbor2.CBORTag(18, [protected, unprotected, payload, signature]), canonical=True)


KID = keys.key_id(public(MINT))


@pytest.mark.parametrize(
    ("header", "unprotected"),
    [
        ({4: KID}, {}),
        ({1: 0, 4: KID}, {}),
        ({1: 5, 4: KID}, {}),
        ({1: -7, 4: KID}, {}),
        ({4: KID}, {1: -8}),
        ({1: -8}, {4: KID}),
        ({}, {1: -8, 4: KID}),
        ({1: -8, 4: KID, 3: 0}, {}),
        ({1: -8, 4: "text"}, {}),
    ],
)
def test_e17_no_other_algorithm_and_nothing_unprotected(header, unprotected):
    assert answer(signed_with_header(header, unprotected)) is Answer.MALFORMED


def test_the_lying_headers_above_are_refused_for_the_header_alone():
    assert isinstance(judge(signed_with_header({1: -8, 4: KID}, {})), Verified)


def test_a_small_order_key_verifies_nothing_even_in_a_manifest():
    weak = bytes([1]) + bytes(31)
    poisoned = Manifest(1, (ManifestKey(KID, weak, 0),))

    assert answer(token.mint(CLAIMS, MINT), manifest=poisoned) is Answer.BAD_SIGNATURE
    for text in keys._SMALL_ORDER:
        assert keys.is_small_order(text)
        assert keys.is_small_order(text[:-1] + bytes([text[-1] | 0x80]))


def test_revoked_is_answered_even_when_genuine():
    assert answer(token.mint(CLAIMS, MINT), revoked={CLAIMS.token_id}) is Answer.REVOKED


def test_a_retired_key_still_verifies_what_it_signed_before():
    retired = manifest_of(MINT, retired_s=NOW_S)

    assert isinstance(judge(token.mint(CLAIMS, MINT), manifest=retired), Verified)
    late = msgspec.structs.replace(CLAIMS, issued_s=NOW_S)
    assert answer(token.mint(late, MINT), manifest=retired) is Answer.UNKNOWN_KEY


@pytest.mark.parametrize(
    "change",
    [
        {"token_id": bytes(15)},
        {"uses": 0},
        {"uses": 65},
        {"uses": 2**64},
        {"not_before_s": NOW_S + 301 * DAY_S},
        {"token_class": TokenClass.TEST},
        {"course": ""},
    ],
)
def test_e33_a_token_that_would_be_refused_is_never_minted(change):
    with pytest.raises(ValueError, match="would be refused"):
        token.mint(msgspec.structs.replace(CLAIMS, **change), MINT)


def test_a_test_token_has_no_course():
    verdict = judge(token.mint(msgspec.structs.replace(CLAIMS, token_class=TokenClass.TEST, course=""), MINT))

    assert isinstance(verdict, Verified)


@pytest.mark.parametrize(("number", "value"), [(8, b"cnf"), (-70001, 2), (-70003, True), (4, 1.5), (7, "text")])
def test_unknown_claims_versions_and_types_are_malformed(number, value):
    payload = cbor2.loads(cbor2.loads(token.mint(CLAIMS, MINT)).value[2])
    data = keys.sign(cbor2.dumps(payload | {number: value}, canonical=True), MINT)

    assert answer(data) is Answer.MALFORMED


def test_e14_a_manifest_never_goes_backwards():
    first = keys.accept_manifest(keys.EMPTY, keys.sign_manifest(manifest_of(MINT, version=5), ROOT), public(ROOT))
    assert isinstance(first, Manifest)

    for version in (4, 5):
        refused = keys.accept_manifest(first, keys.sign_manifest(manifest_of(MINT, version=version), ROOT), public(ROOT))
        assert isinstance(refused, Refusal)
        assert refused.reason is Reason.OLD_VERSION


@pytest.mark.parametrize(
    "make",
    [
        lambda: keys.sign_manifest(manifest_of(MINT), MINT),
        lambda: keys.sign_manifest(Manifest(1, (ManifestKey(keys.key_id(bytes(32)), bytes(32), 0),)), ROOT),
        lambda: keys.sign_manifest(Manifest(1, (ManifestKey(b"12345678", public(MINT), 0),)), ROOT),
        lambda: keys.sign_manifest(manifest_of(MINT, MINT), ROOT),
        lambda: keys.sign_manifest(manifest_of(MINT), ROOT)[:-1],
        lambda: keys.sign(b"\xa0", ROOT),
    ],
)
def test_a_bad_manifest_changes_nothing(make):
    assert isinstance(keys.accept_manifest(keys.EMPTY, make(), public(ROOT)), Refusal)


def test_outside_the_clinic_a_token_is_a_keyed_hash():
    hashes = {token.site_hash(bytes([n]) * 16, key) for n, key in itertools.product(range(3), (b"a" * 32, b"b" * 32))}

    assert len(hashes) == 6
    assert all(len(one) == 16 for one in hashes)
    assert replace(Verified(CLAIMS, b"", ()), kid=b"x").claims.token_id not in hashes
