"""Sends one request to another server, over connections that stay open between requests."""

from __future__ import annotations

import asyncio
import select
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload

__all__ = ["KEEP_IDLE", "send"]

KEEP_IDLE = 4.0
"""Seconds that an idle connection is kept. Servers close theirs after 5 (uvicorn, and so vLLM; Node.js)."""
_TRIES = 8  # each takes a connection that was closed meanwhile out of the pool
_CLOSED = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class _Body(BytesPayload):
    """A request's body that knows whether the connection was still open when it began to be written."""

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type="application/json")
        self.begun = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body, and with it the headers, unless the server has closed the connection."""
        transport: asyncio.Transport | None = getattr(writer, "transport", None)
        if transport is None or transport.is_closing() or _closed_by_peer(transport):
            raise aiohttp.ClientConnectionResetError("The server has closed the connection.")
        self.begun = True
        await writer.write(self._value if content_length is None else self._value[:content_length])


async def send(
    session: aiohttp.ClientSession, method: str, url: str, *, data: bytes | None = None, **options: Any
) -> aiohttp.ClientResponse:
    """Send a request and return the response's head; `options` are aiohttp's. Redirects are not followed.

    Servers close idle connections without a word. A request is sent again only if nothing of it was written
    because its connection had been closed before. Once a byte is out, the server may have read it all, and a
    second time would generate twice.
    """
    for tries_left in reversed(range(_TRIES)):
        body = None if data is None else _Body(data)
        try:
            return await session.request(method, url, data=body, allow_redirects=False, **options)
        except aiohttp.ClientConnectionError as error:
            unreachable = isinstance(error, (aiohttp.ClientConnectorError, TimeoutError))
            if body is None or body.begun or unreachable or not tries_left:
                raise
    raise AssertionError("every try returns or raises")


def _closed_by_peer(transport: asyncio.Transport) -> bool:
    """Tell whether the server has closed a connection, even if the event loop hasn't noticed it yet."""
    socket = transport.get_extra_info("socket")
    descriptor = -1 if socket is None else socket.fileno()
    if descriptor < 0:
        return False
    poll = select.poll()
    poll.register(descriptor, _CLOSED)
    return bool(poll.poll(0))
