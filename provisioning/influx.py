"""InfluxDB made ready: the database or bucket, a user that may only read for Grafana, and the data source that uses it. Writes no point.

Invariant: everything here may be run again; what is there stays as it is, but for passwords, which become the ones given.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

import httpx

from provisioning.errors import ProvisioningError
from provisioning.grafana import Json

__all__ = ["SOURCE_UID", "Admin", "InfluxError", "data_source", "prepare_bucket", "prepare_database"]

SOURCE_UID = "icecap-influx"
"""Fixed, so that pushing the data source again updates it."""

NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,62}")
TIMEOUT_S = 15.0  # creating a database took 50 ms on a busy two-core machine
MESSAGE_CHARS_MAX = 300  # what of a server's answer is repeated to a person
DAY_S = 86_400
LONG_DAYS = 180  # InfluxDB's own rule: a database that keeps half a year has shards of a week, and no shard may be longer than is kept


class InfluxError(ProvisioningError):
    """InfluxDB did not do it; the message says what was asked and what it answered."""


@dataclass(frozen=True, slots=True)
class Admin:
    """Who asks: ``user`` and ``password`` for 1.x, ``token`` and ``org`` for 2.x. Nobody on a 1.x without sign-in."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    org: str = ""


def prepare_database(
    admin: Admin, database: str, *, keep_days: int = 0, writer: tuple[str, str] | None = None, reader: tuple[str, str] | None = None
) -> None:
    """Make a 1.x database with a retention of ``keep_days`` (0: for ever), a user that writes and one that reads (name, password).

    Users matter only on a server with ``auth-enabled``. Raises ``InfluxError``.
    """
    name = _name(database)
    duration = f"{keep_days}d" if keep_days else "INF"
    shard = "7d" if not keep_days or keep_days >= LONG_DAYS else "1d"
    statements = [
        f'CREATE DATABASE "{name}"',
        f'ALTER RETENTION POLICY "autogen" ON "{name}" DURATION {duration} REPLICATION 1 SHARD DURATION {shard} DEFAULT',
    ]
    for user, right in ((writer, "WRITE"), (reader, "READ")):
        if user is not None:
            statements += [
                f"CREATE USER \"{_name(user[0])}\" WITH PASSWORD '{_quoted(user[1])}'",
                f"SET PASSWORD FOR \"{_name(user[0])}\" = '{_quoted(user[1])}'",
                f'GRANT {right} ON "{name}" TO "{_name(user[0])}"',
            ]
    auth = httpx.BasicAuth(admin.user, admin.password) if admin.user else None
    with httpx.Client(base_url=admin.url.rstrip("/"), timeout=TIMEOUT_S, auth=auth) as client:
        for statement in statements:
            _run(client, statement)


def _run(client: httpx.Client, statement: str) -> None:
    what = re.sub(r"'.*'", "'…'", statement)  # a password must not reach a log
    answer = _request(client, what, "POST", "/query", data={"q": statement})
    results = answer.get("results")
    error = results[0].get("error") if isinstance(results, list) and results and isinstance(results[0], dict) else None
    if error and error != "user already exists":
        raise InfluxError(f"InfluxDB: {what}: {_clean(error)}")


def prepare_bucket(admin: Admin, bucket: str, *, keep_days: int = 0) -> bool:
    """Make a 2.x bucket and its mapping for InfluxQL; return whether the bucket had to be made. Raises ``InfluxError``."""
    name = _name(bucket)
    headers = {"Authorization": f"Token {admin.token}"}
    with httpx.Client(base_url=admin.url.rstrip("/"), timeout=TIMEOUT_S, headers=headers) as client:
        org = _first(_request(client, "find the organisation", "GET", "/api/v2/orgs", params={"org": admin.org}), "orgs")
        if org is None:
            raise InfluxError(f"InfluxDB: there is no organisation {admin.org!r}")
        found = _first(_request(client, "find the bucket", "GET", "/api/v2/buckets", params={"name": name, "orgID": org}), "buckets")
        made = found is None
        if made:
            rules = [{"type": "expire", "everySeconds": keep_days * DAY_S}] if keep_days else []
            bucket_body: Json = {"orgID": org, "name": name, "retentionRules": rules}
            found = str(_request(client, "make the bucket", "POST", "/api/v2/buckets", json=bucket_body)["id"])
        mapping = _request(client, "find the InfluxQL mapping", "GET", "/api/v2/dbrps", params={"orgID": org, "db": name})
        if not mapping.get("content"):
            mapping_body: Json = {"orgID": org, "bucketID": found, "database": name, "retention_policy": "autogen", "default": True}
            _request(client, "map the bucket for InfluxQL", "POST", "/api/v2/dbrps", json=mapping_body)
    return made


def data_source(url: str, database: str, *, api: Literal["v1", "v2"], user: str = "", secret: str = "") -> Json:
    """Return Grafana's data source for InfluxQL on that database; ``secret`` is the reader's password (v1) or a read token (v2).

    Queries go by GET: a data source whose user may only read cannot be made to write by a statement in a panel.
    """
    source: Json = {
        "uid": SOURCE_UID,
        "name": "Icecap",
        "type": "influxdb",
        "access": "proxy",
        "url": url,
        "isDefault": False,
        "jsonData": {"version": "InfluxQL", "dbName": database, "httpMode": "GET"},
    }
    if api == "v1" and user:
        return source | {"user": user, "secureJsonData": {"password": secret}}
    if api == "v2" and secret:
        settings = {"version": "InfluxQL", "dbName": database, "httpMode": "GET", "httpHeaderName1": "Authorization"}
        return source | {"jsonData": settings, "secureJsonData": {"httpHeaderValue1": f"Token {secret}"}}
    return source


def _request(client: httpx.Client, what: str, method: str, path: str, **more: object) -> Json:
    try:
        answer = client.request(method, path, **more)  # type: ignore[arg-type]
    except httpx.HTTPError as error:
        raise InfluxError(f"InfluxDB at {client.base_url}: {what}: {type(error).__name__}: {error}") from error
    try:
        document = answer.json()
    except ValueError:
        document = None
    if answer.status_code >= 300:
        said = (document.get("error") or document.get("message")) if isinstance(document, dict) else answer.text
        raise InfluxError(f"InfluxDB: {what}: HTTP {answer.status_code}: {_clean(said)}")
    if not isinstance(document, dict):
        raise InfluxError(f"InfluxDB: {what}: the answer is no JSON object; is {client.base_url} InfluxDB?")
    return document


def _first(document: Json, key: str) -> str | None:
    """The id of the first entry of a list in an answer."""
    entries = document.get(key)
    return str(entries[0]["id"]) if isinstance(entries, list) and entries else None


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise InfluxError(f"{text!r} is no name: a letter, then up to 62 letters, digits, _ and -")
    return text


def _quoted(text: str) -> str:
    if not text or not text.isprintable():
        raise InfluxError("a password has at least one character and only printable ones")
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _clean(text: object) -> str:
    return "".join(char if char.isprintable() else " " for char in str(text))[:MESSAGE_CHARS_MAX]
