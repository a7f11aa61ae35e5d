"""The Hub's desk: keys, courses, minting, printing, reading back, replacing, voiding, through the real commands on a real store."""

import subprocess

import pytest
import zxingcpp
from PIL import Image
from sqlalchemy import select
from typer.testing import CliRunner

import icecap
from ingest.billing import denylist, ledger
from ingest.billing.tables import refund
from ingest.store import Store
from protocol import keys, token
from protocol.clock import ClockQuality
from protocol.facts import ConfigurationApplied
from protocol.keys import Manifest
from protocol.token import Verified
from tests.billing.world import COURSE, SITE, Clinic


class Desk:
    """Runs ``icecap`` with the store and the keys of one test."""

    def __init__(self, store: Store, url: str, folder) -> None:
        self.store, self.url, self.folder, self.hub = store, url, folder, folder / "hub"
        self.clinic = Clinic(store)

    def run(self, *words: str, code: int = 0) -> str:
        env = {"DATABASE_URL": self.url, "ICECAP_HUB_KEYS": str(self.hub), "COLUMNS": "200"}
        result = CliRunner().invoke(icecap.app, list(words), env=env)
        assert result.exit_code == code, result.output
        return result.output

    def uses(self, account: str) -> int:
        with self.store.reading() as connection:
            return ledger.balance(connection, f"{account}:{COURSE}", ledger.USE)

    def mint(self, *more: str, out: str = "batch"):
        self.run("tokens", "mint", COURSE, "--out", str(self.folder / out), "--by", "hub", "--uses", "4", *more)
        return self.folder / out


@pytest.fixture
def desk(store: Store, migrated_url: str, tmp_path) -> Desk:
    one = Desk(store, migrated_url, tmp_path)
    one.run("tokens", "keys", str(one.hub))
    one.run("courses", "open", COURSE, "--site", SITE, "--enrolled", "2025-06-01")
    return one


def verdict(desk: Desk, data: bytes):
    root = (desk.hub / "root.pub").read_bytes()
    manifest = keys.accept_manifest(keys.EMPTY, (desk.hub / "manifest.cose").read_bytes(), root)
    assert isinstance(manifest, Manifest)
    return token.verify(data, manifest=manifest, site=SITE, revoked=(), now_s=0, quality=ClockQuality.UNSYNCED)


def test_a_minted_token_reads_back_from_its_picture_and_verifies(desk):
    folder = desk.mint("--count", "2")

    for number in (1, 2):
        data = (folder / f"token-{number:03d}.cose").read_bytes()
        (code,) = zxingcpp.read_barcodes(Image.open(folder / f"token-{number:03d}.png"))
        assert code.bytes == data
        good = verdict(desk, data)
        assert isinstance(good, Verified)
        assert (good.claims.uses, good.claims.course) == (6, COURSE)
    assert desk.uses("outstanding") == 12


def test_the_sheet_can_be_printed_cut_and_read_back(desk, require, tmp_path):
    pdftotext = require("pdftotext")
    folder = desk.mint("--count", "5")

    words = subprocess.run([pdftotext, "-layout", folder / "sheet.pdf", "-"], capture_output=True, text=True, check=True).stdout
    assert words.count("TREATMENT TOKEN") == 5
    assert SITE in words
    assert COURSE not in words
    subprocess.run([pdftotext.with_name("pdftoppm"), "-r", "150", "-png", folder / "sheet.pdf", tmp_path / "page"], check=True)
    read = {code.bytes for page in sorted(tmp_path.glob("page*.png")) for code in zxingcpp.read_barcodes(Image.open(page))}
    assert read == {path.read_bytes() for path in folder.glob("*.cose")}


def test_tokens_and_keys_are_files_that_nobody_else_reads(desk):
    folder = desk.mint()

    for path in (desk.hub / "root.key", desk.hub / "mint.key", folder / "token-001.cose", folder / "sheet.pdf"):
        assert path.stat().st_mode & 0o077 == 0, path
    (desk.hub / "mint.key").chmod(0o644)
    assert "may be read by others" in desk.run("tokens", "mint", COURSE, "--out", str(folder), "--by", "x", "--uses", "1", code=1)


def test_keys_are_never_overwritten(desk):
    assert "holds keys already" in desk.run("tokens", "keys", str(desk.hub), code=1)


def test_show_tells_what_a_token_claims_and_that_an_altered_one_is_bad(desk):
    folder = desk.mint()
    path = folder / "token-001.cose"

    assert "good" in desk.run("tokens", "show", str(path))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "bad" in desk.run("tokens", "show", str(path), code=1)


def test_a_reissued_token_carries_what_is_left_and_the_old_one_is_denied(desk):
    folder = desk.mint()
    lost = folder / "token-001.cose"
    good = verdict(desk, lost.read_bytes())
    site_key = (desk.hub / "sites" / f"{SITE}.key").read_bytes()
    hashed = token.site_hash(good.claims.token_id, site_key)

    desk.run("tokens", "reissue", str(lost), "--out", str(desk.folder / "again"), "--by", "hub")

    fresh = verdict(desk, (desk.folder / "again" / "token-001.cose").read_bytes())
    assert (fresh.claims.uses, desk.uses("outstanding"), desk.uses("voided")) == (6, 6, 6)
    with desk.store.reading() as connection:
        assert [one.token for one in denylist.entries(connection, SITE)] == [hashed]
    assert "replaced already" in desk.run("tokens", "reissue", str(lost), "--out", str(desk.folder / "third"), "--by", "hub", code=1)


def state(desk: Desk) -> str:
    with desk.store.reading() as connection:
        return str(connection.execute(select(refund.c.state)).scalar_one())


def holds(desk: Desk, gateway: str, version: int):
    return desk.clinic._stamped(gateway, ConfigurationApplied(denylist.document_name(SITE), version, bytes(32)), 1)


def test_t9_a_refund_waits_for_every_gateway_of_the_site(desk):
    folder = desk.mint()
    desk.run("tokens", "void", str(folder / "token-001.cose"), "--uses", "6")
    assert (state(desk), desk.uses("outstanding")) == ("pending", 6)

    desk.clinic.apply(holds(desk, "gw-a", 1))
    assert (state(desk), desk.uses("outstanding")) == ("pending", 6)
    desk.clinic.apply(holds(desk, "gw-b", 1))

    assert (state(desk), desk.uses("outstanding"), desk.uses("voided")) == ("done", 0, 6)


def test_an_older_version_does_not_finish_a_refund(desk):
    folder = desk.mint()
    desk.clinic.apply(holds(desk, "gw-a", 0), holds(desk, "gw-b", 0))
    desk.run("tokens", "void", str(folder / "token-001.cose"), "--uses", "2")

    desk.clinic.apply(holds(desk, "gw-a", 1), holds(desk, "gw-b", 0))

    assert state(desk) == "pending"


def test_e22_a_use_spent_offline_meanwhile_cancels_the_refund(desk):
    folder = desk.mint()
    good = verdict(desk, (folder / "token-001.cose").read_bytes())
    hashed = token.site_hash(good.claims.token_id, (desk.hub / "sites" / f"{SITE}.key").read_bytes())
    desk.run("tokens", "void", str(folder / "token-001.cose"), "--uses", "6")
    spent = desk.clinic.session(1, token=None)
    spent = [desk.clinic._stamped("gw-a", _with_token(one, hashed), 1) for one in spent]

    desk.clinic.apply(*spent, holds(desk, "gw-a", 1), holds(desk, "gw-b", 1))

    assert state(desk) == "cancelled"
    assert (desk.uses("redeemed"), desk.uses("outstanding"), desk.uses("voided")) == (1, 5, 0)
    assert "refund_cancelled" in desk.clinic.events()


def _with_token(message, hashed: bytes):
    import msgspec

    from protocol import facts, frame
    from protocol.facts import SessionOpened

    fact = facts.decode(frame.decode(message.payload).body).fact
    return (
        msgspec.structs.replace(fact, token=hashed, use_index=0, token_class="PAID", start="token")
        if isinstance(fact, SessionOpened)
        else fact
    )


def test_a_refund_of_more_than_is_left_is_refused(desk):
    folder = desk.mint()

    assert "unspent uses" in desk.run("tokens", "void", str(folder / "token-001.cose"), "--uses", "9", code=1)


def test_the_course_explains_itself(desk):
    desk.mint()
    desk.clinic.play(1, token=None)
    desk.clinic.play(2, token=None)

    words = desk.run("courses", "show", COURSE)

    assert words.count("350.00 USD") >= 2
    assert "2026-01-02" in words
    assert "outstanding: 4 use(s)" in words


def test_a_mode_changes_from_a_day_on_and_the_books_follow(desk):
    desk.mint()
    desk.clinic.play(1, token=None)
    desk.run("courses", "mode", COURSE, "--mode", "insured", "--from", "2025-12-01", "--payer", "insurer-1")

    assert desk.clinic.money("revenue") == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("courses", "show", "nosuch"), "no course"),
        (("courses", "open", "course-2", "--site", "nowhere", "--enrolled", "2025-06-01"), "no site"),
        (("courses", "open", "course-2", "--site", SITE, "--enrolled", "2020-06-01"), "does not cover"),
        (("courses", "open", "course-2", "--site", SITE, "--enrolled", "2025-06-01", "--book", "x"), "no price book"),
        (("tokens", "mint", "nosuch", "--out", "/nonexistent", "--by", "x", "--uses", "1"), "no course"),
        (("tokens", "reissue", "ffff", "--out", "/nonexistent", "--by", "x"), "0 tokens"),
        (("tokens", "show", "/nonexistent"), "No such file"),
    ],
)
def test_what_cannot_be_done_says_why(desk, words, why):
    assert why in desk.run(*words, code=1)
