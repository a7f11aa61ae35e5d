"""The door: passwords, sessions, tokens and the brake, in both engines."""

import os
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from dashboards.console import accounts, brake
from dashboards.console.auth import AccountError, Denied, Door, add_account, audit
from dashboards.console.brake import ACCOUNT, ADDRESS, PAIR, Tally, blocked_ms, failed
from dashboards.console.passwords import Busy, Cost, Passwords, complaint, generate
from dashboards.console.roles import Role
from dashboards.console.settings import SessionSettings
from ingest.schema import console_audit, console_session, console_user
from ingest.store import Store
from protocol.clock import ManualClock
from tests.dashboards.console.conftest import CHEAP, NAMES, PASSWORD, add_accounts, hidden, sign_in

HERE, THERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    one = Store.open(store_url)
    one.migrate()
    add_accounts(one, at_ms=0)
    yield one
    one.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def door(store: Store, clock: ManualClock) -> Door:
    return Door(store, clock, os.urandom, Passwords(CHEAP), SessionSettings(idle_s=600, lifetime_s=3600))


def enter(door: Door, name: str = "ada") -> str:
    cookie = door.sign_in(name, PASSWORD, address=HERE)
    assert isinstance(cookie, str)
    return cookie


def test_the_right_password_opens_a_session(door: Door) -> None:
    who = door.by_cookie(enter(door, "clara"))

    assert who is not None
    assert (who.name, who.role, who.site) == ("clara", Role.CLINIC, "uferpark")


@pytest.mark.parametrize(
    ("name", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("", ""), ("ADA", PASSWORD), ("ada", PASSWORD + " ")]
)
def test_anything_else_does_not(door: Door, name: str, password: str) -> None:
    assert door.sign_in(name, password, address=HERE) == Denied()


def test_the_store_holds_neither_cookie_nor_password(door: Door, store: Store) -> None:
    cookie = enter(door)

    with store.reading() as connection:
        session = connection.execute(select(console_session)).one()
        password = connection.execute(select(console_user.c.password).where(console_user.c.name == "ada")).scalar_one()
    assert cookie.encode() not in session.id
    assert cookie not in (session.csrf, password)
    assert password.startswith("$argon2id$")


def test_a_session_ends_when_idle_and_when_old(door: Door, clock: ManualClock) -> None:
    cookie = enter(door)
    clock.advance(599_000)
    assert door.by_cookie(cookie) is not None  # and this moves the idle time
    clock.advance(599_000)
    assert door.by_cookie(cookie) is not None
    clock.advance(600_000)
    assert door.by_cookie(cookie) is None

    cookie = enter(door)
    for _ in range(7):
        clock.advance(500_000)
        assert door.by_cookie(cookie) is not None
    clock.advance(100_000)
    assert door.by_cookie(cookie) is None  # 3,600 s after it began, however busy


def test_signing_out_makes_the_cookie_worthless(door: Door) -> None:
    cookie = enter(door)
    who = door.by_cookie(cookie)
    assert who is not None

    door.sign_out(who, address=HERE)

    assert door.by_cookie(cookie) is None


def test_a_new_password_ends_the_other_sessions(door: Door, store: Store, clock: ManualClock) -> None:
    mine, other = enter(door), enter(door)
    who = door.by_cookie(mine)
    assert who is not None

    with store.transaction() as connection:
        accounts.set_password(connection, who.user_id, Passwords(CHEAP).hash("entirely new words"), at_ms=clock.wall, keep=who.session)

    assert door.by_cookie(mine) is not None
    assert door.by_cookie(other) is None


def test_another_role_ends_the_sessions(door: Door, store: Store, clock: ManualClock) -> None:
    cookie = enter(door, "vera")
    who = door.by_cookie(cookie)
    assert who is not None

    with store.transaction() as connection:
        accounts.change_account(connection, who.user_id, role=Role.FINANCE, site="", active=True, at_ms=clock.wall)

    assert door.by_cookie(cookie) is None


def test_the_oldest_sessions_make_room(door: Door, clock: ManualClock) -> None:
    cookies = []
    for _ in range(12):
        cookies.append(enter(door))
        clock.advance(1000)

    assert [door.by_cookie(one) is not None for one in cookies] == [False] * 2 + [True] * 10


def test_an_old_hash_is_made_again_at_the_next_sign_in(store: Store, clock: ManualClock) -> None:
    dearer = Door(store, clock, os.urandom, Passwords(Cost(2, 8, 1)), SessionSettings())

    enter(dearer)

    with store.reading() as connection:
        assert "t=2" in connection.execute(select(console_user.c.password).where(console_user.c.name == "ada")).scalar_one()


def test_guesses_are_braked_and_the_right_password_waits_too(door: Door, clock: ManualClock) -> None:
    answers = [door.sign_in("ada", f"guess {n}", address=HERE) for n in range(8)]

    assert answers[:5] == [Denied()] * 5
    assert all(isinstance(one, Denied) and one.wait_ms > 0 for one in answers[5:])
    assert isinstance(door.sign_in("ada", PASSWORD, address=HERE), Denied)
    clock.advance(1000)
    assert isinstance(door.sign_in("ada", PASSWORD, address=HERE), str)


def test_the_trail_grows_no_further_while_the_brake_holds(door: Door, store: Store) -> None:
    for guess in range(40):
        door.sign_in("ada", f"guess {guess}", address=HERE)

    with store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(console_audit)).scalar_one() == PAIR.free + 1


def test_a_stranger_cannot_keep_the_owner_out(door: Door, clock: ManualClock) -> None:
    for n in range(200):
        door.sign_in("ada", f"guess {n}", address=f"203.0.113.{n}")
        clock.advance(61_000)

    assert isinstance(door.sign_in("ada", PASSWORD, address=HERE), str)


def test_ten_thousand_guesses_take_months() -> None:
    tally, now_ms = Tally(), 0
    for _ in range(10_000):
        now_ms += blocked_ms(PAIR, tally, now_ms)
        assert blocked_ms(PAIR, tally, now_ms) == 0
        tally = failed(tally, now_ms)

    assert now_ms > 90 * 86_400_000


def test_spraying_many_accounts_from_one_address_is_braked(door: Door) -> None:
    answers = [door.sign_in(f"user{n}", "spring2026", address=THERE) for n in range(ADDRESS.free + 5)]

    assert isinstance(answers[-1], Denied)
    assert answers[-1].wait_ms > 0
    assert isinstance(door.sign_in("ada", PASSWORD, address=HERE), str)


def test_good_sign_ins_are_not_held_against_an_address(door: Door, clock: ManualClock) -> None:
    for _ in range(ADDRESS.free + 20):
        enter(door)
        clock.advance(1000)


def test_the_brake_forgets_after_a_day_and_never_overshoots() -> None:
    many = Tally(10_000, 5_000_000)

    assert blocked_ms(PAIR, many, 5_000_000) == PAIR.wait_ms_max
    assert blocked_ms(ACCOUNT, many, 5_000_000) == ACCOUNT.wait_ms_max
    assert blocked_ms(PAIR, many, 0) == PAIR.wait_ms_max  # the clock was set back
    assert blocked_ms(PAIR, many, 5_000_000 + brake.FORGET_MS) == 0
    assert failed(many, 5_000_000 + brake.FORGET_MS) == Tally(1, 5_000_000 + brake.FORGET_MS)


def test_every_attempt_is_in_the_trail(door: Door, store: Store) -> None:
    door.sign_in("ada", "wrong", address=HERE)
    enter(door)
    door.sign_in("my secret password", "", address=HERE)

    with store.reading() as connection:
        rows = connection.execute(select(console_audit.c.actor, console_audit.c.outcome, console_audit.c.address)).all()
    assert [tuple(row) for row in rows] == [("ada", "refused", HERE), ("ada", "ok", HERE), ("", "refused", HERE)]


@pytest.mark.parametrize("statement", ["update console_audit set actor = 'nobody'", "delete from console_audit"])
def test_the_trail_cannot_be_changed(statement: str, store: Store, clock: ManualClock) -> None:
    with store.transaction() as connection:
        audit(connection, clock, actor="ada", action="sign_in")

    with pytest.raises(DBAPIError, match="evidence"), store.transaction() as connection:
        connection.execute(text(statement))

    with store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(console_audit)).scalar_one() == 1


def test_a_token_reads_until_it_ends_or_is_revoked(door: Door, store: Store, clock: ManualClock) -> None:
    who = door.by_cookie(enter(door, "finn"))
    assert who is not None
    with store.transaction() as connection:
        first = door.make_token(connection, who, name="ledger", days=1)
        second = door.make_token(connection, who, name="script", days=90)

    found = door.by_token(first)
    assert found is not None
    assert (found.name, found.role, found.csrf) == ("finn", Role.FINANCE, "")
    clock.advance(86_400_000)
    assert door.by_token(first) is None
    assert door.by_token(second) is not None
    with store.transaction() as connection:
        key = next(one.key for one in accounts.tokens(connection, who) if one.name == "script")
        accounts.revoke_token(connection, who, key)
    assert door.by_token(second) is None
    assert door.by_token("icecap_") is None
    assert door.by_token("nonsense") is None


def test_nobody_revokes_anothers_token(door: Door, store: Store) -> None:
    finn, vera = door.by_cookie(enter(door, "finn")), door.by_cookie(enter(door, "vera"))
    assert finn is not None
    assert vera is not None
    with store.transaction() as connection:
        token = door.make_token(connection, finn, name="ledger", days=1)
        key = accounts.tokens(connection, finn)[0].key

    with pytest.raises(AccountError), store.transaction() as connection:
        accounts.revoke_token(connection, vera, key)

    assert door.by_token(token) is not None


@pytest.mark.parametrize(
    ("name", "role", "site"),
    [("A", Role.VIEWER, ""), ("ada", Role.VIEWER, ""), ("<b>", Role.VIEWER, ""), ("new", Role.CLINIC, ""), ("new", Role.ADMIN, "uferpark")],
)
def test_a_bad_account_is_refused_with_the_reason(store: Store, name: str, role: Role, site: str) -> None:
    with pytest.raises(AccountError), store.transaction() as connection:
        add_account(connection, name=name, role=role, site=site, password_hash="x", at_ms=0)


def test_generated_passwords_are_long_and_never_the_same() -> None:
    made = {generate(os.urandom) for _ in range(200)}

    assert len(made) == 200
    assert all(len(one.replace("-", "")) == 20 and complaint(one, "somebody") is None for one in made)


def test_a_flood_of_hashing_is_turned_away_instead_of_held(monkeypatch: pytest.MonkeyPatch) -> None:
    from dashboards.console import passwords

    monkeypatch.setattr(passwords, "SLOT_WAIT_S", 0.01)
    checker = Passwords(CHEAP)
    with checker._slot(), checker._slot(), pytest.raises(Busy):
        checker.verify(PASSWORD, None)


@pytest.mark.parametrize("password", ["short", "x" * 300, "aaaaaaaaaaaaaaaa", "ada is the admin"])
def test_weak_passwords_are_not_taken(password: str) -> None:
    assert complaint(password, "ada") is not None


def test_no_account_exists_before_somebody_makes_one(store_url: str) -> None:
    store = Store.open(store_url)
    store.migrate()
    with store.reading() as connection:
        found = connection.execute(select(func.count()).select_from(console_user)).scalar_one()
    store.close()

    assert found == 0


def test_the_form_is_refused_without_its_cookie(stranger: TestClient) -> None:
    form = stranger.get("/sign-in")
    stranger.cookies.clear()

    answer = stranger.post("/sign-in", data={"name": "ada", "password": PASSWORD, "token": hidden(form.text, "token")})

    assert answer.status_code == 403


@pytest.mark.parametrize("go_to", ["https://evil.test/", "//evil.test", "/\\evil.test", "javascript:alert(1)", "/fleet\r\nX: y"])
def test_nobody_is_sent_to_another_site_after_signing_in(stranger: TestClient, go_to: str) -> None:
    form = stranger.get("/sign-in")
    data = {"name": "ada", "password": PASSWORD, "token": hidden(form.text, "token"), "go_to": go_to}

    answer = stranger.post("/sign-in", data=data)

    assert answer.status_code == 303
    assert answer.headers["location"] == "/fleet"


def test_wrong_name_and_wrong_password_read_the_same(stranger: TestClient) -> None:
    texts = []
    for name in (NAMES[Role.ADMIN], "nobody"):
        form = stranger.get("/sign-in")
        answer = stranger.post("/sign-in", data={"name": name, "password": "wrong", "token": hidden(form.text, "token")})
        assert answer.status_code == 401
        texts.append(answer.text.split('role="alert">', 1)[1].split("<", 1)[0])

    assert texts[0] == texts[1]


def test_a_new_session_at_every_sign_in(stranger: TestClient) -> None:
    sign_in(stranger, "ada")
    first = stranger.cookies["icecap"]
    sign_in(stranger, "ada")

    assert stranger.cookies["icecap"] != first
