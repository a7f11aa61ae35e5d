"""Sink: one write to InfluxDB and what its answer means. Not a retry loop and not a queue: the projector has those.

Invariant: only an answer of 204 means "stored" (or "older than you keep", which the server says in words). Whatever else comes back is
either the points' fault (``Refused``, a value) or the world's (``SinkError``, raised): the first is bisected, the second waited for.
"""

import gzip
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, cast
from urllib.parse import urlencode

import urllib3

if TYPE_CHECKING:
    from influxdb_client.domain.write_precision import WritePrecision

__all__ = ["Fault", "InfluxSettings", "Refused", "Sink", "SinkError", "V2Sink", "open_sink"]

MESSAGE_CHARS_MAX = 500  # a server repeats whole lines in its message; this much names the field and the reason
RETRY_AFTER_S_MAX = 300.0  # a server that asks for an hour is asked again after five minutes
GZIP_LEVEL = 1  # level 9 halves the write rate and saves a tenth of the bytes (measured)
NO_CONTENT = 204
OUTDATED = "beyond retention policy"
"""How InfluxDB says that a point is older than the database keeps. It says so only when nothing else was wrong, and keeps the others."""
NANOSECONDS = cast("WritePrecision", "ns")  # the library types its own constants as text

Headers = dict[str, str]


class Fault(StrEnum):
    """What is wrong with the world, in words an operator can act on."""

    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    UNAUTHORIZED = "unauthorized"
    NO_DATABASE = "no_database"
    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    REFUSES_ALL = "refuses_all"
    UNEXPECTED = "unexpected_answer"


class SinkError(Exception):
    """Nothing may be assumed stored; try again later. ``retry_after_s`` is what the server asked for, if it did."""

    def __init__(self, fault: Fault, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault, self.detail, self.retry_after_s = fault, detail, retry_after_s


@dataclass(frozen=True, slots=True)
class Refused:
    """The server refused this body for good; ``too_large`` when only its size was wrong."""

    message: str
    too_large: bool = False


class Sink(Protocol):
    """Where line protocol goes."""

    def write(self, body: bytes) -> Refused | None:
        """Return ``None`` when the body is stored. Raises ``SinkError`` when it is the world's fault that it is not."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


@dataclass(frozen=True, slots=True)
class InfluxSettings:
    """Where and how to write.

    ``api`` v2 is ``/api/v2/write`` (InfluxDB 1.8, 2, 3, VictoriaMetrics), v1 is ``/write`` (1.x). ``bucket`` is the database in v1, and may
    name a retention policy as ``database/policy`` in both. v1 signs in with ``user`` and ``password``, v2 with ``token``.
    """

    url: str
    bucket: str
    api: Literal["v1", "v2"] = "v2"
    org: str = ""
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    gzip: bool = False  # on a wide network only: on a LAN the processor is the scarcer thing
    timeout_s: float = 20.0  # the slowest answer seen to a full batch on a loaded two-core machine was under four seconds
    ca: str | None = None


def open_sink(settings: InfluxSettings) -> Sink:
    """Return the sink for ``settings.api``. Opens no connection yet."""
    return V1Sink(settings) if settings.api == "v1" else V2Sink(settings)


class V2Sink:
    """``/api/v2/write`` through influxdb-client's synchronous API with ready bytes. Its batching API loses data, so it is not used."""

    def __init__(self, settings: InfluxSettings) -> None:
        # Importing the library takes longer than starting the rest of ingest: only who writes through it pays for that.
        from influxdb_client.client.influxdb_client import InfluxDBClient  # noqa: PLC0415
        from influxdb_client.client.write_api import SYNCHRONOUS  # noqa: PLC0415
        from influxdb_client.rest import ApiException  # noqa: PLC0415

        self._refusal = ApiException
        self._settings = settings
        self._client = InfluxDBClient(
            url=settings.url,
            token=settings.token,
            org=settings.org or "-",
            timeout=int(settings.timeout_s * 1000),
            enable_gzip=settings.gzip,
            ssl_ca_cert=settings.ca,
        )
        self._api = self._client.write_api(write_options=SYNCHRONOUS)

    def write(self, body: bytes) -> Refused | None:
        """See ``Sink.write``."""
        try:
            self._api.write(self._settings.bucket, self._settings.org or "-", body, NANOSECONDS)
        except self._refusal as error:
            return _verdict(int(error.status or 0), _text(error.body or error.reason), _lower(error.headers))
        except (urllib3.exceptions.HTTPError, OSError, UnicodeDecodeError) as error:
            raise _transport_fault(error) from error
        answer = self._client.api_client.last_response
        return _verdict(int(answer.status), _text(answer.data), _lower(answer.getheaders()))

    def close(self) -> None:
        """See ``Sink.close``."""
        self._client.api_client.rest_client.pool_manager.clear()  # the library leaves its connections open
        self._client.close()  # type: ignore[no-untyped-call]


class V1Sink:
    """``/write`` of InfluxDB 1.x, which the client library does not know; the same HTTP library below it."""

    def __init__(self, settings: InfluxSettings) -> None:
        database, _, policy = settings.bucket.partition("/")
        query = {"db": database, "precision": "n"} | ({"rp": policy} if policy else {})
        self._url = f"{settings.url.rstrip('/')}/write?{urlencode(query)}"
        self._gzip = settings.gzip
        self._headers = {"Content-Type": "text/plain; charset=utf-8"}
        if settings.user:
            self._headers |= urllib3.make_headers(basic_auth=f"{settings.user}:{settings.password}")
        if settings.gzip:
            self._headers["Content-Encoding"] = "gzip"
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(total=settings.timeout_s), retries=False, ca_certs=settings.ca)

    def write(self, body: bytes) -> Refused | None:
        """See ``Sink.write``."""
        data = gzip.compress(body, GZIP_LEVEL, mtime=0) if self._gzip else body
        try:
            answer = self._pool.request("POST", self._url, body=data, headers=self._headers, redirect=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _transport_fault(error) from error
        return _verdict(answer.status, _text(answer.data), _lower(answer.headers))

    def close(self) -> None:
        """See ``Sink.close``."""
        self._pool.clear()


def _verdict(status: int, message: str, headers: Headers) -> Refused | None:
    """Turn a status into what the projector does next."""
    if status == NO_CONTENT:
        return None
    if status in {400, 422} and OUTDATED in message:
        return None  # what it would have dropped a moment later: neither an error of the point nor of the world
    if status in {400, 422}:  # 422 is how 2.x says "field type conflict" or "outside the retention"
        return Refused(message)
    if status == 413:
        return Refused(message, too_large=True)
    if status in {401, 403}:
        fault = Fault.UNAUTHORIZED
    elif status == 404:
        fault = Fault.NO_DATABASE
    elif status == 429:
        fault = Fault.THROTTLED
    elif status >= 500:
        fault = Fault.SERVER_ERROR
    else:  # a 200 is a sign-in page or a proxy, not a promise
        fault = Fault.UNEXPECTED
    raise SinkError(fault, f"HTTP {status}: {message}", _retry_after(headers))


def _transport_fault(error: Exception) -> SinkError:
    timed_out = isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError) and not isinstance(
        error, urllib3.exceptions.NewConnectionError
    )
    return SinkError(Fault.TIMED_OUT if timed_out else Fault.UNREACHABLE, f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX])


def _retry_after(headers: Headers) -> float | None:
    """Seconds of a Retry-After header; a date in it is not understood and counts as none."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX) if seconds == seconds else None  # noqa: PLR0124 - NaN differs from itself


def _lower(headers: object) -> Headers:
    """Header names are case-insensitive, dictionaries are not."""
    items = cast("dict[str, str]", headers or {})
    return {str(name).lower(): str(value) for name, value in items.items()}


def _text(body: object) -> str:
    """The human part of an answer: the ``error`` or ``message`` of a JSON body, else the text itself; control characters removed."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict):
        text = str(document.get("error") or document.get("message") or text)
    return "".join(char if char.isprintable() else " " for char in text)[:MESSAGE_CHARS_MAX]
