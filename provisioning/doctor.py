"""Doctor: look at one machine and say what is installed, reachable, behind, and what to do about it. It changes nothing.

Not a monitor: it looks once, from outside, through the same files, sockets and addresses that the processes use. Invariant: every finding
that is not good carries the next step, and no finding carries a secret.
"""

import http.client
import json
import os
import platform
import shutil
import socket
import ssl
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

import native
from provisioning import programs

__all__ = ["Finding", "Verdict", "examine"]

LIBRARIES = ("paho-mqtt", "bleak", "apsw", "sqlalchemy", "psycopg", "influxdb-client", "grafana-api", "fastapi", "numpy", "cryptography")
TIMEOUT_S = 3.0
CERTIFICATE_WARN_DAYS = 21  # the first of the three renewal alarms (21, 14, 7 days)
DISK_FREE_MIN = 512 * 1024 * 1024  # below this a gateway starts to live from its reserve
HEALTH_BYTES_MAX = 1 << 20  # a health document is a few kilobytes


class Verdict(StrEnum):
    """How one finding stands."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``step`` is what to do next; empty when there is nothing to do."""

    part: str
    subject: str
    verdict: Verdict
    detail: str
    step: str = ""


def examine(configs: tuple[Path, ...], *, environment: dict[str, str], now_ms: int) -> Iterator[Finding]:
    """Yield the findings, nearest things first: this machine, then each configuration, then the services that the environment names."""
    yield from _machine()
    for config in configs:
        yield from _configuration(config, now_ms=now_ms)
    yield from _services(environment)


def _machine() -> Iterator[Finding]:
    yield Finding("machine", "python", Verdict.GOOD, f"{platform.python_version()} on {platform.machine()} {platform.system()}")
    if native.BACKEND == "compiled":
        yield Finding("machine", "kernels", Verdict.GOOD, "compiled")
    else:
        step = "install a C compiler and run: make setup"
        yield Finding("machine", "kernels", Verdict.NOTE, "pure Python reference: right, but some hundred times slower", step)
    for name in LIBRARIES:
        try:
            yield Finding("library", name, Verdict.GOOD, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding("library", name, Verdict.NOTE, "not installed", f"only needed for parts that use it: pip install {name}")
    for one in programs.PROGRAMS:
        path = programs.find_program(one.name)
        if path is None:
            yield Finding("program", one.name, Verdict.NOTE, f"not found; needed to {one.need.value}", programs.how_to_install(one.name))
        else:
            yield Finding("program", one.name, Verdict.GOOD, str(path))


def _configuration(config: Path, *, now_ms: int) -> Iterator[Finding]:
    try:
        document = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        yield Finding("configuration", str(config), Verdict.BAD, str(error), "give the path of a readable TOML file")
        return
    yield Finding("configuration", str(config), Verdict.GOOD, "reads as TOML")
    base = config.resolve().parent
    for table, values in _tables(document, "configuration"):
        yield from _certificates(table, values, base=base, now_ms=now_ms)
        yield from _broker(table, values, base=base)
        if isinstance(path := values.get("socket"), str):
            yield from _health(base / path)
        if isinstance(path := values.get("data_dir"), str):
            yield from _disk(base / path)
        if isinstance(url := values.get("database"), str) and "://" in url:
            yield from _database(url)


def _tables(document: dict[str, object], name: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each table of a TOML document with its dotted name."""
    yield name, document
    for key, value in document.items():
        inner = name if name != "configuration" else ""
        dotted = f"{inner}.{key}" if inner else key
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from _tables(one, dotted)


def _certificates(table: str, values: dict[str, object], *, base: Path, now_ms: int) -> Iterator[Finding]:
    for key in ("ca", "cert"):
        if not isinstance(name := values.get(key), str):
            continue
        path = base / name
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            yield Finding("certificate", f"{table}.{key}", Verdict.BAD, f"{path}: {error}", "unpack the gateway's bundle again")
            continue
        days = int((certificate.not_valid_after_utc.timestamp() * 1000 - now_ms) // 86_400_000)
        verdict = Verdict.BAD if days < 0 else Verdict.NOTE if days < CERTIFICATE_WARN_DAYS else Verdict.GOOD
        step = "" if verdict is Verdict.GOOD else "issue a new one: icecap provision gateway"
        yield Finding("certificate", f"{table}.{key}", verdict, f"{certificate.subject.rfc4514_string()}, {days} days left", step)
    if isinstance(name := values.get("key"), str):
        path = base / name
        try:
            mode = path.stat().st_mode & 0o777
        except OSError as error:
            yield Finding("certificate", f"{table}.key", Verdict.BAD, str(error), "unpack the gateway's bundle again")
            return
        verdict = Verdict.BAD if mode & 0o077 else Verdict.GOOD
        yield Finding("certificate", f"{table}.key", verdict, f"mode {mode:04o}", f"chmod 600 {path}" if mode & 0o077 else "")


def _broker(table: str, values: dict[str, object], *, base: Path) -> Iterator[Finding]:
    host, port = values.get("host"), values.get("port")
    if not isinstance(host, str) or not isinstance(port, int):
        return
    subject = f"{table} {host}:{port}"
    try:
        context = ssl.create_default_context(cafile=str(base / str(values["ca"]))) if "ca" in values else None
        if context is not None and "cert" in values and "key" in values:
            context.load_cert_chain(base / str(values["cert"]), base / str(values["key"]))
        with socket.create_connection((host, port), TIMEOUT_S) as plain:
            if context is None:
                yield Finding("broker", subject, Verdict.NOTE, "reachable, without TLS", "give ca, cert and key: every link is mutual TLS")
                return
            with context.wrap_socket(plain, server_hostname=host) as secure:
                yield Finding("broker", subject, Verdict.GOOD, f"{secure.version()}, certificate trusted")
    except ssl.SSLError as error:
        step = "compare ca with the certificate of the broker, and both clocks"
        yield Finding("broker", subject, Verdict.BAD, f"TLS: {error.reason or error}", step)
    except OSError as error:
        yield Finding("broker", subject, Verdict.BAD, str(error), "is the broker running, the name right, the port open in the firewall?")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket: health is served on no TCP port."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self.path))


def _health(path: Path) -> Iterator[Finding]:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/healthz")
        document = json.loads(connection.getresponse().read(HEALTH_BYTES_MAX))
    except (OSError, http.client.HTTPException, ValueError) as error:
        yield Finding("health", str(path), Verdict.BAD, str(error) or type(error).__name__, "the process is not running: see its log")
        return
    finally:
        connection.close()
    parts = document.get("parts") if isinstance(document, dict) else None
    for name, part in parts.items() if isinstance(parts, dict) else ():
        good = bool(part.get("ok")) if isinstance(part, dict) else False
        why = str(part.get("why", "")) if isinstance(part, dict) else str(part)
        yield Finding("health", name, Verdict.GOOD if good else Verdict.BAD, why or "ok", "" if good else "see docs/runbook.md")


def _disk(path: Path) -> Iterator[Finding]:
    here = next((one for one in (path, *path.parents) if one.exists()), Path("/"))
    free = shutil.disk_usage(here).free
    verdict = Verdict.GOOD if free >= DISK_FREE_MIN else Verdict.BAD
    writable = os.access(here, os.W_OK)
    step = "" if verdict is Verdict.GOOD and writable else "free space, or move data_dir; telemetry is evicted first, facts never"
    yield Finding(
        "disk", str(path), verdict if writable else Verdict.BAD, f"{free // 2**20} MiB free{'' if writable else ', not writable'}", step
    )


def _database(url: str) -> Iterator[Finding]:
    shown = url.rsplit("@", maxsplit=1)[-1] if "@" in url else url  # never the password
    try:
        from sqlalchemy import create_engine, text  # noqa: PLC0415  # a gateway has no SQLAlchemy, and needs none
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415
    except ModuleNotFoundError:
        yield Finding("database", shown, Verdict.NOTE, "SQLAlchemy is not installed", "pip install 'icecap[cloud]'")
        return
    try:
        engine = create_engine(url, connect_args={"connect_timeout": int(TIMEOUT_S)} if url.startswith("postgresql") else {})
        with engine.connect() as connection:
            version = connection.execute(text("select version_num from alembic_version")).scalar()
        engine.dispose()
    except SQLAlchemyError as error:
        first = str(error).splitlines()[0]
        yield Finding("database", shown, Verdict.BAD, first, "is it running? then: icecap ingest migrate")
        return
    yield Finding("database", shown, Verdict.GOOD, f"schema {version}")


def _services(environment: dict[str, str]) -> Iterator[Finding]:
    if url := environment.get("DATABASE_URL"):
        yield from _database(url)
    for name, path in (("INFLUX_URL", "/ping"), ("GRAFANA_URL", "/api/health")):
        if url := environment.get(name):
            yield _http(name, url, path)


def _http(name: str, url: str, path: str) -> Finding:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    shown = f"{name} {parts.hostname}:{parts.port or ''}"
    try:
        connection.request("GET", parts.path.rstrip("/") + path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Finding("service", shown, Verdict.BAD, str(error), f"check {name} and that the service is running")
    finally:
        connection.close()
    good = status < 400
    return Finding("service", shown, Verdict.GOOD if good else Verdict.BAD, f"HTTP {status}", "" if good else f"check {name} and its token")
