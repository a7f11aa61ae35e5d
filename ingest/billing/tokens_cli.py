"""``icecap tokens``: the Hub's keys, minting, looking at a token, replacing and voiding. An entry point: reads the clock and chance."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, select

from ingest.billing import courses, denylist, grants, hubkeys, mint
from ingest.billing.courses import Course
from ingest.billing.tables import token as token_table
from ingest.cli_options import ConfigOption, DatabaseOption, store_of
from ingest.errors import IngestError
from protocol import keys, token
from protocol.refusal import Refusal
from protocol.token import TokenClass
from provisioning.errors import ProvisioningError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Tokens: keys, minting, looking at one, replacing, voiding.")

KeysOption = Annotated[Path, typer.Option("--keys", envvar="ICECAP_HUB_KEYS", help="Folder of the Hub's keys.")]
ByOption = Annotated[str, typer.Option("--by", help="Who asks: a role or account, never a patient.")]
ReferenceArgument = Annotated[str, typer.Argument(help="A token file, or the first letters of its reference.")]


@app.command(name="keys")
def make_keys(folder: Annotated[Path, typer.Argument(help="A new private folder.")]) -> None:
    """Make the offline root, the mint key and the first key manifest."""
    with _plain_errors():
        hubkeys.create(folder, now_s=_now_s())
    typer.echo(f"made keys in {folder}; move {folder / 'root.key'} to a safe place, minting does not need it")


@app.command(name="mint")
def mint_tokens(  # one option a fact of the batch
    course: Annotated[str, typer.Argument(help="The course's pseudonym; open it first with: icecap courses open")],
    out: Annotated[Path, typer.Option("--out", help="A private folder for the tokens, QR codes and the sheet.")],
    hub: KeysOption,
    by: ByOption,
    *,
    uses: Annotated[int, typer.Option(help="Paid uses of each token.", min=1, max=token.USES_MAX)],
    spare: Annotated[int, typer.Option(help="Spare uses beside the paid ones.", min=0)] = 2,
    count: Annotated[int, typer.Option(help="How many tokens.", min=1, max=1000)] = 1,
    days: Annotated[int, typer.Option(help="Days of validity; expiry is advisory.", min=1)] = 400,
    test: Annotated[bool, typer.Option("--test", help="TEST class: for technicians, never billed.")] = False,
    approved_by: Annotated[str, typer.Option(help=f"A second person, needed above {grants.TWO_APPROVERS_ABOVE} tokens.")] = "",
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Sign a batch of tokens, log it, and write QR codes and a sheet to print."""
    order = mint.Order(count, uses, spare, days, TokenClass.TEST if test else TokenClass.PAID)
    with _plain_errors(), store_of(database, config) as (store, _):
        opened = hubkeys.open_keys(hub)
        with store.transaction() as connection:
            minted = mint.mint(
                connection,
                order,
                course=_course(connection, course),
                hub=opened,
                requested_by=by,
                approved_by=approved_by,
                now_s=_now_s(),
                random_bytes=os.urandom,
            )
        sheet = mint.write_batch(minted, out)
    typer.echo(f"{count} token(s) of {uses + spare} uses in {out}; print {sheet}")


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A token's bytes (.cose).")], hub: KeysOption) -> None:
    """Say what a token claims and whether its signature holds."""
    with _plain_errors():
        opened = hubkeys.open_keys(hub)
        data = file.read_bytes()
        manifest = keys.accept_manifest(keys.EMPTY, opened.manifest, opened.root_public)
        parts = keys.open_signed(data)
        claims = str(parts) if isinstance(parts, Refusal) else token.read_claims(parts.payload)
        if isinstance(parts, Refusal) or isinstance(claims, str) or isinstance(manifest, Refusal):
            typer.secho(f"no token: {claims if isinstance(claims, str) else manifest}", fg="red", err=True)
            raise typer.Exit(1)
        signer = manifest.find(parts.kid)
        good = signer is not None and keys.verify_signature(parts, signer.public)
        table = Table(show_header=False, box=None, padding=(0, 2))
        table.add_row("signature", "[green]good[/]" if good else "[red]bad, or by an unknown key[/]")
        table.add_row("reference", token.site_hash(claims.token_id, hubkeys.site_key(opened, claims.audience)).hex())
        for name in ("token_class", "audience", "course", "uses", "kit"):
            table.add_row(name, str(getattr(claims, name)))
        for name in ("issued_s", "not_before_s", "expires_s"):
            table.add_row(name.removesuffix("_s"), time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(getattr(claims, name))))
        Console().print(table)
        raise typer.Exit(0 if good else 1)


@app.command()
def reissue(  # one option a fact
    reference: ReferenceArgument,
    out: Annotated[Path, typer.Option("--out", help="A private folder for the new token.")],
    hub: KeysOption,
    by: ByOption,
    *,
    days: Annotated[int, typer.Option(help="Days of validity.", min=1)] = 400,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Replace a lost token: a new one carries its unspent uses, the old one goes on the denylist."""
    with _plain_errors(), store_of(database, config) as (store, _):
        opened = hubkeys.open_keys(hub)
        with store.transaction() as connection:
            lost, course = _find(connection, reference, opened)
            fresh = mint.reissue(
                connection, lost, course=course, hub=opened, requested_by=by, days=days, now_s=_now_s(), random_bytes=os.urandom
            )
            denylist.revoke(connection, lost, site=course.site, reason="reissued", at_ms=1000 * _now_s())
        mint.write_batch([fresh], out)
    typer.echo(f"a new token of {fresh.claims.uses} uses in {out}; the old one is on the denylist of {course.site}")


@app.command()
def void(
    reference: ReferenceArgument,
    hub: KeysOption,
    *,
    uses: Annotated[int, typer.Option(help="How many unspent uses to take back.", min=1)],
    reason: Annotated[str, typer.Option(help="refund, expired, lost.")] = "refund",
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Put a token on the denylist and ask for its unspent uses back; the refund waits for every gateway of the site."""
    with _plain_errors(), store_of(database, config) as (store, _), store.transaction() as connection:
        lost, course = _find(connection, reference, hubkeys.open_keys(hub))
        version = denylist.request_refund(
            connection, lost, course=course.id, site=course.site, uses=uses, reason=reason, at_ms=1000 * _now_s()
        )
    typer.echo(f"denylist of {course.site} is version {version}; the refund is pending until every gateway of the site has it")


def _course(connection: Connection, course_id: str) -> Course:
    found = courses.find(connection, course_id)
    if found is None:
        raise IngestError(f"there is no course {course_id!r}; open it with: icecap courses open")
    return found


def _find(connection: Connection, reference: str, hub: hubkeys.HubKeys) -> tuple[bytes, Course]:
    """A token's hash and course by its file or by the first letters of its reference."""
    path = Path(reference)
    if path.is_file():
        parts = keys.open_signed(path.read_bytes())
        claims = str(parts) if isinstance(parts, Refusal) else token.read_claims(parts.payload)
        if isinstance(claims, str):
            raise IngestError(f"{path} is no token: {claims}")
        reference = token.site_hash(claims.token_id, hubkeys.site_key(hub, claims.audience)).hex()
    rows = connection.execute(select(token_table.c.token, token_table.c.course)).all()
    found = [row for row in rows if row.token.hex().startswith(reference.lower())]
    if len(found) != 1:
        raise IngestError(f"{len(found)} tokens have a reference that begins with {reference!r}")
    return found[0].token, _course(connection, found[0].course)


def _now_s() -> int:
    return time.time_ns() // 1_000_000_000


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (IngestError, ProvisioningError, ValueError, OSError) as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(1) from error
