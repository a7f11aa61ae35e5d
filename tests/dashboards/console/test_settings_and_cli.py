"""The configuration tells all its errors at once; the command line makes accounts and serves."""

import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from dashboards.console.cli import app
from dashboards.console.settings import Settings, SettingsError, load
from ingest.schema import console_audit, console_user
from ingest.store import Store
from provisioning.identity import Authority, Realm
from tests.support.mtls import CLOCK
from tests.support.services import free_port, wait_until

RUN = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "console.toml"
    path.write_text(f'database = "sqlite:///{tmp_path}/cloud.db"\n')
    return path


def test_the_defaults_listen_on_loopback_only(config: Path) -> None:
    settings, profiles = load(config)

    assert (settings.listen.host, settings.listen.port, settings.listen.is_secure) == ("127.0.0.1", 8600, False)
    assert profiles == {}


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("""
database = "cloud.db"
[clock]
kind = "scaled"
scale = 0
[listen]
host = "0.0.0.0"
port = 70000
cert = "missing.pem"
[session]
idle_s = 5
[fleet]
late_after_s = 100
silent_after_s = 50
[[profile]]
file = "missing.toml"
""")

    with pytest.raises(SettingsError) as caught:
        load(path)

    for part in (
        "database",
        "clock.scale",
        "listen.port",
        "listen.cert and listen.key",
        "missing.pem",
        "idle_s",
        "late_after_s",
        "missing.toml",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"), [("databse = 1", "databse"), ("database = 1", "database"), ("x", "key"), ("[listen]\ntls = 1", "listen")]
)
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=part):
        load(path)


def test_a_console_that_is_reachable_from_outside_needs_tls(tmp_path: Path) -> None:
    path = tmp_path / "console.toml"
    path.write_text('database = "sqlite:////x"\n[listen]\nhost = "192.0.2.1"\n')

    with pytest.raises(SettingsError, match="reachable from outside"):
        load(path)


def test_an_account_is_made_with_a_password_of_its_own(config: Path) -> None:
    made = [RUN.invoke(app, ["user", "add", name, "--config", str(config), "--role", "viewer", "--generate"]) for name in ("ada", "otto")]

    assert [one.exit_code for one in made] == [0, 0]
    passwords = [one.stdout.strip().splitlines()[0] for one in made]
    assert passwords[0] != passwords[1]
    assert all(len(one) == 23 for one in passwords)
    store = Store.open(Settings(load(config)[0].database).database)
    with store.reading() as connection:
        assert connection.execute(select(console_user.c.name).order_by(console_user.c.name)).scalars().all() == ["ada", "otto"]
        assert set(connection.execute(select(console_audit.c.action)).scalars()) == {"user_add"}
        stored = "".join(connection.execute(select(console_user.c.password)).scalars())
    store.close()
    assert not any(one in stored for one in passwords)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["user", "add", "ada", "--role", "boss", "--generate"], "no role"),
        (["user", "add", "A", "--role", "viewer", "--generate"], "a name is"),
        (["user", "add", "ada", "--role", "clinic", "--generate"], "needs the site"),
        (["user", "password", "nobody", "--generate"], "no account"),
    ],
)
def test_a_bad_account_is_refused_in_words(config: Path, arguments: list[str], reason: str) -> None:
    RUN.invoke(app, ["user", "add", "root1", "--config", str(config), "--role", "admin", "--generate"])

    result = RUN.invoke(app, [*arguments, "--config", str(config)])

    assert result.exit_code == 1
    assert reason in " ".join(result.stderr.split())


def test_a_short_password_is_not_taken(config: Path) -> None:
    result = RUN.invoke(app, ["user", "add", "ada", "--config", str(config), "--role", "viewer", "--password-stdin"], input="short\n")

    assert result.exit_code == 1


def test_accounts_are_listed_and_get_new_passwords(config: Path) -> None:
    RUN.invoke(
        app, ["user", "add", "ada", "--config", str(config), "--role", "admin", "--password-stdin"], input="glacier under moonlight\n"
    )

    changed = RUN.invoke(app, ["user", "password", "ada", "--config", str(config), "--password-stdin"], input="another fine sentence\n")
    listed = RUN.invoke(app, ["user", "list", "--config", str(config)])

    assert changed.exit_code == 0
    assert "ada" in listed.stdout
    assert "admin" in listed.stdout


def test_a_bad_configuration_ends_the_command_with_its_reasons(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("nonsense = 1\n")

    result = RUN.invoke(app, ["run", "--config", str(path)])

    assert result.exit_code == 2
    assert "nonsense" in result.stderr


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_command_serves_and_stops_when_told(config: Path, tmp_path: Path, tls: bool) -> None:
    port, trust = free_port(), ssl.create_default_context()
    config.write_text(config.read_text() + f"[listen]\nport = {port}\n")
    if tls:
        authority = Authority.create(tmp_path / "ca", realm=Realm.CLOUD, clock=CLOCK)
        cert, key = authority.issue_server(["localhost"], ["127.0.0.1"]).write(tmp_path, "console")
        trust.load_verify_locations(cadata=authority.root.decode())
        config.write_text(config.read_text() + f'cert = "{cert.name}"\nkey = "{key.name}"\n')
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    code = "from dashboards.console.cli import app; app()"
    process = subprocess.Popen([sys.executable, "-c", code, "run", "--config", str(config)], stderr=subprocess.PIPE)
    try:
        wait_until(_answers(f"{url}/alive", trust), 60, "the console answers")  # 4 s of work, on a busy machine much longer
        with httpx.Client(base_url=url, verify=trust) as client:
            assert client.get("/fleet").status_code == 303
            form = client.get("/sign-in")
            assert ("strict-transport-security" in form.headers) is tls
            assert ("Secure" in form.headers["set-cookie"]) is tls
        process.terminate()
        started = time.monotonic()
        process.wait(10)
        assert time.monotonic() - started < 5
    finally:
        process.kill()
        process.communicate()


def _answers(url: str, trust: ssl.SSLContext) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            return httpx.get(url, verify=trust).status_code == 200
        except httpx.HTTPError:
            return False

    return ask
