"""``icecap dashboards …``: build the boards, check them, push them. Only a command line."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from dashboards.build import GENERATED, boards, drift, write
from dashboards.grafana import Dashboard
from protocol.profile import Profile, ProfileError, parse

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Grafana dashboards: build the JSON, push it.")

Folder = Annotated[Path, typer.Option("--folder", help="Where the JSON files are.")]
Profiles = Annotated[list[Path] | None, typer.Option("--profile", help="A site's own profile (TOML); may be given again.")]


@app.command()
def build(
    *,
    folder: Folder = GENERATED,
    profile: Profiles = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a file is not what the code gives.")] = False,
) -> None:
    """Write one JSON file for each board. Grafana's file provisioning takes the folder as it is."""
    made = boards(_profiles(profile))
    if check:
        _check(folder, made)
        return
    for path in write(folder, made):
        typer.echo(str(path))


@app.command()
def check(*, folder: Folder = GENERATED, profile: Profiles = None) -> None:
    """Fail when a file in the folder is not what the code gives; the same as ``build --check``."""
    _check(folder, boards(_profiles(profile)))


def _check(folder: Path, made: tuple[Dashboard, ...]) -> None:
    wrong = drift(folder, made)
    for one in wrong:
        typer.secho(one, err=True, fg="red")
    if wrong:
        typer.echo("run: icecap dashboards build", err=True)
        raise typer.Exit(1)
    typer.echo(f"{len(made)} boards are as the code gives them")


@app.command()
def push(
    *,
    url: Annotated[str, typer.Option("--url", envvar="GRAFANA_URL", help="Address of Grafana.")],
    token: Annotated[
        str,
        typer.Option(
            "--token", envvar="GRAFANA_TOKEN", help="Service account token that may edit dashboards.", prompt=True, hide_input=True
        ),
    ],
    client: Annotated[str, typer.Option("--client", help="grafana-api or httpx.")] = "grafana-api",
    folder_uid: Annotated[str, typer.Option("--folder-uid", help="The Grafana folder.")] = "icecap",
    profile: Profiles = None,
) -> None:
    """Put every board into Grafana; those that are there are replaced."""
    from dashboards import push as pushing
    from provisioning.grafana import ClientTransport, GrafanaError, GrafanaTransport, HttpTransport

    if client not in {"grafana-api", "httpx"}:
        _fail(f"--client {client!r} is neither grafana-api nor httpx")
    try:
        transport: GrafanaTransport = ClientTransport(url, token) if client == "grafana-api" else HttpTransport(url, token)
        done = pushing.push(transport, boards(_profiles(profile)), folder_uid=folder_uid)
    except GrafanaError as error:
        _fail(str(error))
    table = Table("board", "version", "address")
    for one in done:
        table.add_row(one.uid, str(one.version), f"{url.rstrip('/')}{one.url}")
    Console().print(table)
    transport.close()


def _profiles(paths: list[Path] | None) -> tuple[Profile, ...]:
    try:
        return tuple(parse(path.read_text(encoding="utf-8")) for path in paths or ())
    except (ProfileError, OSError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.secho(message, err=True, fg="red")
    raise typer.Exit(2)
