"""A minimal Python gateway: one FastAPI route that relays bytes unread.

`with_aiohttp` is the baseline of overhead.py. `with_httpx` shows what the choice of the upstream client alone
is worth. UPSTREAM names the server to relay to, without a path.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

__all__ = ["with_aiohttp", "with_httpx"]

JSON = {"content-type": "application/json"}


def with_aiohttp() -> FastAPI:
    """Build the app on aiohttp's client, without a connection limit, cookies or timeouts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout()
        ) as app.state.session:
            yield

    app = FastAPI(lifespan=lifespan)
    upstream = os.environ["UPSTREAM"] + "/v1/chat/completions"

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        reply = await app.state.session.post(upstream, data=await request.body(), headers=JSON)
        if reply.content_type == "text/event-stream":
            return StreamingResponse(relay(reply), reply.status, media_type="text/event-stream")
        return Response(await reply.read(), reply.status, JSON)

    async def relay(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        async with reply:
            async for data in reply.content.iter_any():
                yield data

    return app


def with_httpx() -> FastAPI:
    """Build the same app on httpx's client, without a connection limit or timeouts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=None) as app.state.client:
            yield

    app = FastAPI(lifespan=lifespan)
    upstream = os.environ["UPSTREAM"] + "/v1/chat/completions"

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        client: httpx.AsyncClient = app.state.client
        upstream_request = client.build_request("POST", upstream, content=await request.body(), headers=JSON)
        reply = await client.send(upstream_request, stream=True)
        if reply.headers["content-type"].startswith("text/event-stream"):
            return StreamingResponse(relay(reply), reply.status_code, media_type="text/event-stream")
        body = await reply.aread()
        return Response(body, reply.status_code, JSON)

    async def relay(reply: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for data in reply.aiter_raw():
                yield data
        finally:
            await reply.aclose()

    return app
