"""The outermost layer: every reply carries an `X-Request-Id`, also the reply to a request that met a bug."""

from __future__ import annotations

import random
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import internal_error
from gateway.http.bugs import REQUEST_ID, log_bug
from gateway.http.error_bodies import error_response

__all__ = ["REQUEST_ID", "RequestIds"]

_MAX_LENGTH = 128


class RequestIds:
    """ASGI middleware that gives each request an id: the client's own where it is usable, else a new one.

    It also answers where the app raises, and logs the error. Starlette's own answer would lack the id. It
    would also raise the error again, at which the server closes the connection, and a proxy may have other
    requests on it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the header to the start of its reply.

        A reply that has begun can't be repaired: it stays incomplete, and so the client notices.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = client_id if _usable(client_id) else b"%032x" % random.getrandbits(128)
        scope[REQUEST_ID] = request_id.decode("ascii")
        started = False

        def send_with_id(message: Message) -> Awaitable[None]:  # no coroutine, as a stream sends many
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            return send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001  # a bug of any kind; nothing above answers it
            log_bug(scope, error)
            if not started:
                response = error_response(scope["path"], internal_error(error).body()["error"], 500)
                await response(scope, receive, send_with_id)


def _usable(client_id: bytes) -> bool:
    """Return whether an id can go into a header and a log: short, printable ASCII."""
    short = 0 < len(client_id) <= _MAX_LENGTH
    return short and client_id.isascii() and client_id.decode("ascii").isprintable()
