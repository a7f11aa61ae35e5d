"""``icecap provision influx …``: make InfluxDB ready, and tell Grafana of it. Only a command line.

Invariant: a secret comes from the environment or a prompt, never from the command line's history: no option prints or defaults one.
"""

from typing import Annotated, NoReturn

import typer

from provisioning.errors import ProvisioningError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="InfluxDB: database or bucket, users with one right each, Grafana's data source.")

Url = Annotated[str, typer.Option("--url", envvar="INFLUX_URL", help="Address of InfluxDB.")]
KeepDays = Annotated[
    int, typer.Option("--keep-days", min=0, help="How long points are kept; 0: for ever. The store keeps the blocks anyway.")
]
WRITER, READER = "icecap-ingest", "icecap-grafana"


@app.command()
def database(
    url: Url,
    name: Annotated[str, typer.Option("--name", help="Name of the database.")] = "icecap",
    keep_days: KeepDays = 0,
    admin: Annotated[
        str, typer.Option("--admin", envvar="INFLUX_ADMIN_USER", help="Who may create it; empty on a server without sign-in.")
    ] = "",
    admin_password: Annotated[str, typer.Option("--admin-password", envvar="INFLUX_ADMIN_PASSWORD", help="Their password.")] = "",
    writer_password: Annotated[
        str, typer.Option("--writer-password", envvar="INFLUX_PASSWORD", help=f"For the user {WRITER}; empty: no such user.")
    ] = "",
    reader_password: Annotated[
        str, typer.Option("--reader-password", envvar="INFLUX_READER_PASSWORD", help=f"For the user {READER}; empty: no such user.")
    ] = "",
) -> None:
    """Make a database of InfluxDB 1.x, a user that may only write and one that may only read."""
    from provisioning.influx import Admin, prepare_database

    try:
        prepare_database(
            Admin(url, admin, admin_password),
            name,
            keep_days=keep_days,
            writer=(WRITER, writer_password) if writer_password else None,
            reader=(READER, reader_password) if reader_password else None,
        )
    except ProvisioningError as error:
        _fail(error)
    typer.echo(f"{name} is ready at {url}")


@app.command()
def bucket(
    url: Url,
    org: Annotated[str, typer.Option("--org", envvar="INFLUX_ORG", help="The organisation.")],
    token: Annotated[
        str, typer.Option("--token", envvar="INFLUX_ADMIN_TOKEN", help="A token that may create buckets.", prompt=True, hide_input=True)
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the bucket.")] = "icecap",
    keep_days: KeepDays = 0,
) -> None:
    """Make a bucket of InfluxDB 2.x and its mapping for InfluxQL."""
    from provisioning.influx import Admin, prepare_bucket

    try:
        made = prepare_bucket(Admin(url, token=token, org=org), name, keep_days=keep_days)
    except ProvisioningError as error:
        _fail(error)
    typer.echo(f"{name} {'was made' if made else 'was there already'} at {url}")


@app.command()
def grafana(
    url: Url,
    grafana_url: Annotated[str, typer.Option("--grafana-url", envvar="GRAFANA_URL", help="Address of Grafana.")],
    grafana_token: Annotated[
        str, typer.Option("--grafana-token", envvar="GRAFANA_TOKEN", help="Token that may edit data sources.", prompt=True, hide_input=True)
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the database or bucket.")] = "icecap",
    user: Annotated[str, typer.Option("--user", help="1.x: who reads; empty on a server without sign-in.")] = "",
    secret: Annotated[
        str, typer.Option("--secret", envvar="INFLUX_READER_SECRET", help="1.x: the reader's password. 2.x: a token that may only read.")
    ] = "",
) -> None:
    """Make or update Grafana's data source for this InfluxDB."""
    from provisioning.grafana import ClientTransport, ensure_data_source
    from provisioning.influx import SOURCE_UID, data_source

    try:
        transport = ClientTransport(grafana_url, grafana_token)
        made = ensure_data_source(transport, data_source(url, name, api="v1" if user or not secret else "v2", user=user, secret=secret))
        transport.close()
    except ProvisioningError as error:
        _fail(error)
    typer.echo(f"data source {SOURCE_UID} {'was made' if made else 'was updated'}")


def _fail(error: ProvisioningError) -> NoReturn:
    typer.secho(str(error), err=True, fg="red")
    raise typer.Exit(2)
