"""Sends one request to another server, over connections that stay open between requests."""

from __future__ import annotations

from typing import Any

import aiohttp

__all__ = ["send"]

_TRIES = 3  # on connections that may have been closed meanwhile


async def send(
    session: aiohttp.ClientSession, method: str, url: str, **options: Any
) -> aiohttp.ClientResponse:
    """Send a request and return the response's head; `options` are aiohttp's.

    Some servers close an idle connection without a word (llama.cpp after a stream, uvicorn after five
    seconds), so that the next request on it breaks before its answer. Such a request is sent again.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            return await session.request(method, url, **options)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if not tries_left or isinstance(error, aiohttp.ClientConnectorError):
                raise
    raise AssertionError("every try returns or raises")
