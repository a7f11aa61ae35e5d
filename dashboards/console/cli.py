"""Command line of the console: ``icecap console run`` and ``icecap console user …``. The entry point: clocks and chance are made here.

Invariant: there is no default account and no default password; the first account is made by somebody with access to the store.
"""

import getpass
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console as Terminal
from rich.table import Table

from dashboards.console.settings import ClockSettings, Settings, SettingsError, load
from protocol.clock import Clock, MachineClock, ScaledClock
from protocol.profile import Profile

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The web console for service teams, finance and fleet managers.")
user_app = typer.Typer(no_args_is_help=True, help="Accounts of the console.")
app.add_typer(user_app, name="user")

Config = Annotated[Path, typer.Option("--config", "-c", help="The console's TOML file.", show_default=False)]
CONNECTIONS_MAX: Final = 256  # beyond it uvicorn answers 503 at once; eight threads serve some fifty people who look at live pages
EXIT_CONFIG: Final = 2
EXIT_REFUSED: Final = 1


@app.command()
def run(config: Config) -> None:
    """Serve the console until it is stopped."""
    settings, profiles = _settings(config)

    import uvicorn

    from dashboards.console.app import Parts, create
    from ingest.store import Store

    _log_plainly()
    store = Store.open(settings.database)
    store.migrate()
    application = create(Parts(store, _machines_clock(settings.clock), _peoples_clock(), os.urandom, settings, profiles))
    listen = settings.listen
    scheme = "https" if listen.cert else "http"
    Terminal(stderr=True).print(f"Icecap console on [bold]{scheme}://{listen.host}:{listen.port}/[/]")
    try:
        uvicorn.run(
            application,
            host=listen.host,
            port=listen.port,
            ssl_certfile=listen.cert or None,
            ssl_keyfile=listen.key or None,
            proxy_headers=listen.behind_tls_proxy,
            server_header=False,
            log_level="warning",
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=3,
        )
    finally:
        store.close()


@user_app.command("add")
def add_user(
    config: Config,
    name: Annotated[str, typer.Argument(help="2 to 64 of a-z 0-9 . _ -")],
    role: Annotated[str, typer.Option("--role", "-r", help="viewer, operator, finance, admin or clinic", show_default=False)],
    site: Annotated[str, typer.Option("--site", help="the only site that a clinic account sees")] = "",
    generate: Annotated[bool, typer.Option("--generate", help="make a password and print it once, instead of asking for one")] = False,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="read the password from standard input")] = False,
) -> None:
    """Make an account."""
    settings, _ = _settings(config)

    from dashboards.console.auth import AccountError, add_account, audit
    from dashboards.console.passwords import Passwords
    from dashboards.console.roles import Role
    from ingest.store import Store

    if role not in Role._value2member_map_:
        _refuse(f"there is no role {role!r}; there are: {', '.join(Role)}")
    password = _password(name, generate=generate, from_stdin=password_stdin)
    store, clock = Store.open(settings.database), _peoples_clock()
    store.migrate()
    encoded = Passwords().hash(password)
    try:
        with store.transaction() as connection:
            add_account(connection, name=name, role=Role(role), site=site, password_hash=encoded, at_ms=clock.wall_ms())
            audit(connection, clock, actor="command line", action="user_add", target=f"{name} {role} {site}".strip())
    except AccountError as error:
        _refuse(str(error))
    finally:
        store.close()
    if generate:
        typer.echo(password)
    Terminal(stderr=True).print(f"Account [bold]{name}[/] ({role}) made.")


@user_app.command("list")
def list_users(config: Config) -> None:
    """List the accounts."""
    settings, _ = _settings(config)

    from dashboards.console.accounts import accounts
    from ingest.store import Store

    store = Store.open(settings.database)
    try:
        with store.reading() as connection:
            found = accounts(connection)
    finally:
        store.close()
    table = Table("name", "role", "site", "state")
    for one in found:
        table.add_row(one.name, one.role, one.site or "all", "active" if one.active else "closed")
    Terminal().print(table)


@user_app.command("password")
def set_password(
    config: Config,
    name: Annotated[str, typer.Argument(help="whose")],
    generate: Annotated[bool, typer.Option("--generate", help="make a password and print it once, instead of asking for one")] = False,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="read the password from standard input")] = False,
) -> None:
    """Give an account a new password; its sessions end."""
    settings, _ = _settings(config)

    from dashboards.console import accounts
    from dashboards.console.auth import audit
    from dashboards.console.passwords import Passwords
    from ingest.store import Store

    password = _password(name, generate=generate, from_stdin=password_stdin)
    store, clock = Store.open(settings.database), _peoples_clock()
    encoded = Passwords().hash(password)
    try:
        with store.transaction() as connection:
            found = [one.id for one in accounts.accounts(connection) if one.name == name]
            if not found:
                _refuse(f"there is no account {name!r}")
            accounts.set_password(connection, found[0], encoded, at_ms=clock.wall_ms())
            audit(connection, clock, actor="command line", action="password_reset", target=name)
    finally:
        store.close()
    if generate:
        typer.echo(password)
    Terminal(stderr=True).print(f"Account [bold]{name}[/] has a new password.")


def _settings(config: Path) -> tuple[Settings, dict[str, Profile]]:
    try:
        return load(config)
    except SettingsError as error:
        Terminal(stderr=True).print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(EXIT_CONFIG) from error


def _password(name: str, *, generate: bool, from_stdin: bool) -> str:
    from dashboards.console import passwords

    if generate:
        return passwords.generate(os.urandom)
    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = getpass.getpass(f"Password for {name}: ")
        if getpass.getpass("Again: ") != password:
            _refuse("the two passwords differ")
    if problem := passwords.complaint(password, name):
        _refuse(f"the password is not taken: {problem}")
    return password


def _refuse(why: str) -> None:
    Terminal(stderr=True).print(f"[red]{why}[/]", highlight=False)
    raise typer.Exit(EXIT_REFUSED)


def _log_plainly() -> None:
    """One JSON object a line on standard error. Tracebacks carry no local variables: there are tokens among them."""
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _peoples_clock() -> Clock:
    """Sessions and the audit trail live in real time, also in the demo."""
    return MachineClock(time.time_ns, time.monotonic_ns, lambda: False)


def _machines_clock(settings: ClockSettings) -> Clock:
    if settings.kind == "scaled":
        return ScaledClock(time.monotonic_ns, settings.origin_ns, settings.start_wall_ms, settings.scale)
    return _peoples_clock()
