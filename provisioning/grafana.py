"""Grafana over HTTP: one small interface with two implementations. Not the dashboards (``dashboards.push`` has those).

``ClientTransport`` stands on grafana-api's low level (the library the customer chose; unmaintained, so nothing of it passes this module);
``HttpTransport`` stands on httpx. Invariant: both send the same method, path and body, and both give a JSON document or ``GrafanaError``.
"""

from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import grafana_api.grafana_api as library
import httpx
import requests

from provisioning.errors import ProvisioningError

__all__ = ["ClientTransport", "GrafanaError", "GrafanaTransport", "HttpTransport", "Json", "ensure_data_source", "ensure_folder"]

Json = dict[str, object]

TIMEOUT_S = 15.0  # a dashboard of a hundred kilobytes is stored in well under a second; a proxy may be slow
MESSAGE_CHARS_MAX = 300  # what of a server's answer is repeated to a person


class GrafanaError(ProvisioningError):
    """Grafana did not do it. ``status`` is the HTTP status, 0 when there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Grafana: {message}" if not status else f"Grafana answered {status}: {message}")
        self.status = status


class GrafanaTransport(Protocol):
    """One request."""

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the JSON document of the answer. ``path`` begins after ``/api``. Raises ``GrafanaError`` for every other outcome."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


class ClientTransport:
    """Through ``grafana_api.GrafanaAPI``, its low level only."""

    def __init__(self, url: str, token: str, *, verify: bool | str = True) -> None:
        parts = _checked(url)
        prefix = parts.path.strip("/")
        self._api = library.GrafanaAPI(
            token,
            host=parts.netloc,
            url_path_prefix=f"{prefix}/" if prefix else "",
            protocol=parts.scheme,
            verify=verify,
            timeout=TIMEOUT_S,
        )

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """See ``GrafanaTransport.request``."""
        try:
            answer = getattr(self._api, method)(path, json=body)
        except library.GrafanaUnauthorizedError as error:
            raise GrafanaError(401, _message(error.response)) from error
        except library.GrafanaException as error:
            raise GrafanaError(error.status_code, _message(error.response)) from error
        except requests.JSONDecodeError as error:
            raise GrafanaError(0, "the answer is not JSON; is this address Grafana?") from error
        except requests.RequestException as error:
            raise GrafanaError(0, f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX]) from error
        return _document(answer)

    def close(self) -> None:
        """See ``GrafanaTransport.close``."""
        self._api.s.close()


class HttpTransport:
    """Through httpx."""

    def __init__(self, url: str, token: str, *, verify: bool | str = True) -> None:
        _checked(url)
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/api", headers=headers, timeout=TIMEOUT_S, verify=verify, follow_redirects=False
        )

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """See ``GrafanaTransport.request``."""
        try:
            answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise GrafanaError(0, f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX]) from error
        try:
            document = answer.json()
        except ValueError:
            document = None
        if answer.status_code >= 300:
            raise GrafanaError(answer.status_code, _message(document if document is not None else answer.text))
        if document is None:
            raise GrafanaError(0, "the answer is not JSON; is this address Grafana?")
        return _document(document)

    def close(self) -> None:
        """See ``GrafanaTransport.close``."""
        self._client.close()


def ensure_folder(transport: GrafanaTransport, uid: str, title: str) -> bool:
    """Make sure that a folder is there; return whether it had to be made. Raises ``GrafanaError``."""
    try:
        transport.request("GET", f"/folders/{uid}")
    except GrafanaError as error:
        if error.status != 404:
            raise
        transport.request("POST", "/folders", {"uid": uid, "title": title})
        return True
    return False


def ensure_data_source(transport: GrafanaTransport, source: Json) -> bool:
    """Create or update a data source by its ``uid``; return whether it had to be made. Raises ``GrafanaError``."""
    try:
        transport.request("GET", f"/datasources/uid/{source['uid']}")
    except GrafanaError as error:
        if error.status != 404:
            raise
        transport.request("POST", "/datasources", source)
        return True
    transport.request("PUT", f"/datasources/uid/{source['uid']}", source)
    return False


def _checked(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
        raise GrafanaError(0, f"{url!r} is no address of a Grafana: write https://host or https://host/path")
    return parts


def _message(response: object) -> str:
    text = str(response.get("message") or response) if isinstance(response, dict) else str(response)
    return "".join(char if char.isprintable() else " " for char in text)[:MESSAGE_CHARS_MAX]


def _document(answer: object) -> Json:
    if not isinstance(answer, dict):
        raise GrafanaError(0, f"expected a JSON object, got {type(answer).__name__}")
    return answer
