"""Headers: what every answer carries, and how much a request may bring. Plain ASGI; it reads no body itself and knows no accounts.

Invariant: no page of the console loads or runs anything that the console did not serve as a file of its own: no inline script, no inline
style, no other host. Templates must keep to that; the browser enforces it.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any  # ASGI's own types are open mappings

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["BODY_BYTES_MAX", "CONTENT_SECURITY_POLICY", "Headers"]

BODY_BYTES_MAX = 16_384  # the largest form is a password change; there are no uploads

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

_ALWAYS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_HSTS = "max-age=31536000"  # a year

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Headers:
    """Wraps the application; ``secure`` adds HSTS, ``mistake`` makes the answer when the application raised."""

    def __init__(self, app: App, *, secure: bool, mistake: Callable[[Request, Exception], Response]) -> None:
        self._app, self._mistake = app, mistake
        extra = {"strict-transport-security": _HSTS} if secure else {}
        self._fixed = [(name.encode("ascii"), value.encode("ascii")) for name, value in (_ALWAYS | extra).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        static = str(scope["path"]).startswith("/static/")
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = [*message.get("headers", []), *self._fixed]
                if not static or message["status"] != 200:
                    headers.append((b"cache-control", b"no-store"))
                elif b"v=" in scope.get("query_string", b""):
                    # The address holds the file's hash, so what is behind it never changes.
                    headers.append((b"cache-control", b"public, max-age=31536000, immutable"))
                message["headers"] = headers
            await send(message)

        if _stated_length(scope) > BODY_BYTES_MAX:
            await _refuse(send_with_headers)
            return
        try:
            await self._app(scope, _bounded(receive), send_with_headers)
        except Exception as error:
            if started:
                raise
            # Here and not in the framework's outermost layer, whose answer would go out without these headers.
            response = await run_in_threadpool(self._mistake, Request(scope), error)
            await response(scope, receive, send_with_headers)


def _bounded(receive: Receive) -> Receive:
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > BODY_BYTES_MAX:
            # The request is cut here: to the application it looks as if the client had gone.
            return {"type": "http.disconnect"}
        return message

    return bounded


def _stated_length(scope: Scope) -> int:
    for name, value in scope.get("headers", []):
        if name == b"content-length":
            return int(value) if value.isdigit() else BODY_BYTES_MAX + 1
    return 0


async def _refuse(send: Send) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
    await send({"type": "http.response.body", "body": b"The request is larger than the console takes.\n"})
