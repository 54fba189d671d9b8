"""A bug of the gateway is an error of one request: answered, logged once, and nobody else's."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any, NoReturn

import httpx
import pytest

from gateway.app import create_app
from gateway.config import Settings
from gateway.errors import UpstreamError
from gateway.upstreams.base import Chunk, Completion, UpstreamRequest
from tests.fakes import ScriptedUpstream, says
from tests.serving import serving

MESSAGES = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "tiny", "messages": MESSAGES},
    "/v1/responses": {"model": "tiny", "input": "hi"},
    "/v1/messages": {"model": "tiny", "messages": MESSAGES, "max_tokens": 9},
}


class Buggy(ScriptedUpstream):
    """An upstream client with a bug."""

    def __init__(self) -> None:
        super().__init__(says("Hello."))

    async def complete(self, plan: UpstreamRequest) -> Completion:
        """Fail."""
        return self._fail()

    async def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """Fail."""
        yield self._fail()

    def _fail(self) -> NoReturn:
        raise ZeroDivisionError("a bug")


def app_with(upstream: ScriptedUpstream) -> httpx.AsyncClient:
    """A client of a gateway; an error that the app raises reaches the test."""
    transport = httpx.ASGITransport(create_app(Settings(), upstream))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"scaling": {"samples": 3}}])
async def test_a_bug_is_a_500_in_the_clients_shape(
    path: str, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The reply has its id, and the log has the same id with the traceback, once."""
    async with app_with(Buggy()) as client:
        reply = await client.post(path, json={**REQUESTS[path], **fields}, headers={"X-Request-Id": "r-1"})
    assert reply.status_code == 500
    assert reply.headers["x-request-id"] == "r-1"
    body = reply.json()
    assert "ZeroDivisionError" in body["error"]["message"]
    if path == "/v1/messages":
        assert (body["type"], body["error"]["type"]) == ("error", "api_error")
    else:
        assert body["error"]["type"] == "server_error"
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "r-1" in record.getMessage()
    assert record.exc_info is not None


async def test_a_bug_leaves_the_connection_to_the_requests_behind_it() -> None:
    """A proxy sends the requests of many clients over one connection."""
    lost = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
    payload = b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}'
    async with serving(create_app(Settings(), Buggy())) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(lost % (len(payload), payload) + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 500 ")
        health = await asyncio.wait_for(reader.readuntil(b'"ok"'), 10)
        assert b"HTTP/1.1 200 OK" in health
        writer.close()


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstreams_limits_reach_the_client(path: str, stream: bool) -> None:
    """Clients wait as long as `Retry-After` says; a header that can't be sent on is left out."""
    headers = {"retry-after": "7", "x-ratelimit-remaining-requests": "0", "x-ratelimit-note": "\udcff"}
    error = UpstreamError(429, "slow down", headers=headers)
    async with app_with(ScriptedUpstream(says(error))) as client:
        reply = await client.post(path, json={**REQUESTS[path], "stream": stream})
    assert reply.status_code == 429
    assert (reply.headers["retry-after"], reply.headers["x-ratelimit-remaining-requests"]) == ("7", "0")
    assert "x-ratelimit-note" not in reply.headers
    assert "slow down" in reply.text


async def test_an_odd_host_header_changes_nothing() -> None:
    """An error reply needs the path alone."""
    async with app_with(ScriptedUpstream(says("Hello."))) as client:
        reply = await client.post("/v1/chat/completions", content=b"[", headers={"Host": "["})
    assert reply.status_code == 400


async def test_a_reply_that_json_cannot_write_is_the_upstreams_error() -> None:
    """orjson reads more levels than it writes."""
    nested: Any = []
    for _ in range(300):
        nested = [nested]
    async with app_with(ScriptedUpstream(says("Hello.", vendor=nested))) as client:
        reply = await client.post("/v1/chat/completions", json=REQUESTS["/v1/chat/completions"])
    assert reply.status_code == 502
    assert "nested" in reply.json()["error"]["message"]
