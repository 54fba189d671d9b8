"""One request to another server, over connections that are kept between requests."""

from __future__ import annotations

from typing import Any

import aiohttp

__all__ = ["request"]

_TRIES = 3  # on connections that may have been closed meanwhile


async def request(
    session: aiohttp.ClientSession, method: str, url: str, **options: Any
) -> aiohttp.ClientResponse:
    """The response's head; `options` are aiohttp's.

    Some servers close a kept connection without a word (llama.cpp after a stream, uvicorn after five
    seconds), so that the next request on it breaks before it is answered: that one is sent again.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            return await session.request(method, url, **options)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if not tries_left or isinstance(error, aiohttp.ClientConnectorError):
                raise
    raise AssertionError("every try returns or raises")
