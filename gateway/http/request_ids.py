"""Request ids: every reply carries an `X-Request-Id`."""

from __future__ import annotations

import random

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["REQUEST_ID", "RequestIds"]

REQUEST_ID = "thinkgate.request_id"
"""The key in a request's scope that holds its id."""
_MAX_LENGTH = 128


class RequestIds:
    """ASGI middleware that gives each request an id: the client's own where it is usable, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the header to the start of its reply."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = client_id if _usable(client_id) else b"%032x" % random.getrandbits(128)
        scope[REQUEST_ID] = request_id.decode("ascii")

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        await self._app(scope, receive, send_with_id)


def _usable(client_id: bytes) -> bool:
    """Return whether an id can go into a header and a log: short, printable ASCII."""
    short = 0 < len(client_id) <= _MAX_LENGTH
    return short and client_id.isascii() and client_id.decode("ascii").isprintable()
