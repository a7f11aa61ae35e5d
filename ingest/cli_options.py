"""Options that the commands of ``icecap ingest`` share, and the store that they name. Not a command."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ingest.config import Config, ConfigError, load
from ingest.store import Store, StoreError

__all__ = ["ConfigOption", "DatabaseOption", "config_of", "store_of"]

BAD_CONFIG = 78  # EX_CONFIG of sysexits.h: a supervisor must not restart on it

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="The service's TOML file; its database is used.")]
DatabaseOption = Annotated[str | None, typer.Option("--database", envvar="DATABASE_URL", help="SQLAlchemy address of the cloud's store.")]


def config_of(path: Path) -> Config:
    """The configuration in a file; ends the command with every error when there is one."""
    try:
        return load(path)
    except ConfigError as error:
        typer.secho(f"{path}: {len(error.errors)} error(s)", err=True, fg="red")
        for one in error.errors:
            typer.echo(f"  {one}", err=True)
        raise typer.Exit(BAD_CONFIG) from error


@contextmanager
def store_of(database: str | None, config: Path | None) -> Iterator[tuple[Store, Config | None]]:
    """The store that ``--config`` or ``--database`` names, and the configuration if it was given; failures become one line."""
    checked = config_of(config) if config is not None else None
    url = checked.database if checked else database
    if url is None:
        typer.secho("which store? give --config FILE or --database ADDRESS (or DATABASE_URL)", err=True, fg="red")
        raise typer.Exit(2)
    try:
        store = Store.open(url)
        try:
            yield store, checked
        finally:
            store.close()
    except StoreError as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(1) from error
