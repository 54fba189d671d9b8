"""The limits on what is read from an upstream; each refusal names its setting."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.base import UpstreamLimits, UpstreamRequest
from gateway.upstreams.client import HTTPUpstream
from tests.stub_engine import Events, Json, Raw, StubEngine, chunk, stub_engine

CHAT = "/v1/chat/completions"
ASK = UpstreamRequest({"model": "tiny", "messages": []})
WHOLE = {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}
SPEECH = b'{"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}'


@asynccontextmanager
async def engine(**limits: Any) -> AsyncIterator[tuple[StubEngine, HTTPUpstream]]:
    """A scripted engine, and a client with these limits."""
    async with stub_engine() as server:
        upstream = HTTPUpstream(server.base_url, limits=UpstreamLimits(**limits))
        await upstream.start()
        try:
            yield server, upstream
        finally:
            await upstream.close()


async def texts(upstream: HTTPUpstream, request: UpstreamRequest = ASK, pause: float = 0.0) -> list[str]:
    """Stream a reply and return its texts; rest after each chunk."""
    found = []
    async with aclosing(upstream.stream(request)) as chunks:
        async for each in chunks:
            found.append(each.content)
            await asyncio.sleep(pause)
    return found


@pytest.mark.parametrize("body", [{}, {"n": 1, "logprobs": True}])
async def test_a_reply_that_is_too_long_is_refused(body: dict[str, Any]) -> None:
    """With log probabilities another setting counts; both for each choice."""
    name = "max_logprobs_reply_bytes" if body else "max_reply_bytes"
    request = UpstreamRequest({**ASK.body, **body})
    async with engine(max_reply_bytes=2000, max_logprobs_reply_bytes=2000) as (server, upstream):
        server.answers(CHAT, Events([chunk("a" * 200)] * 20))
        with pytest.raises(UpstreamUnreachable, match=rf"longer than {name} \(2000\)"):
            await texts(upstream, request)
        server.answers(CHAT, Json({**WHOLE, "x": "a" * 3000}))
        with pytest.raises(UpstreamUnreachable, match=name):
            await upstream.complete(request)
        assert (await upstream.complete(UpstreamRequest({**request.body, "n": 2}))).body["x"]


async def test_an_event_that_is_too_long_is_refused() -> None:
    """Also one whose end never comes."""
    async with engine(max_event_bytes=2000) as (server, upstream):
        server.answers(CHAT, Events([b"data: " + b"a" * 3000, asyncio.Event()]))
        with pytest.raises(UpstreamUnreachable, match=r"max_event_bytes \(2000\)"):
            await texts(upstream)


@pytest.mark.parametrize(
    "line", [b"X-Big: " + b"a" * 5000, b"\r\n".join(b"X-%d: %d" % (i, i) for i in range(400))]
)
async def test_headers_that_are_too_long_are_refused(line: bytes) -> None:
    """One long header as well as many."""
    async with engine(max_header_bytes=2048) as (server, upstream):
        server.answers(CHAT, Raw(b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 2\r\n\r\n{}"))
        with pytest.raises(UpstreamUnreachable, match=r"max_header_bytes \(2048\)"):
            await upstream.complete(ASK)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "two members"])
async def test_compressed_replies_are_read(encoding: str) -> None:
    """gzip, and deflate with and without zlib's head."""
    raw = zlib.compressobj(wbits=-15)
    payload = {
        "gzip": gzip.compress(SPEECH),
        "deflate": zlib.compress(SPEECH),
        "raw deflate": raw.compress(SPEECH) + raw.flush(),
        "two members": gzip.compress(SPEECH[:30]) + gzip.compress(SPEECH[30:]),
    }[encoding]
    name = "deflate" if encoding.endswith("deflate") else "gzip"
    async with engine() as (server, upstream):
        server.answers(CHAT, Json(payload, headers={"Content-Encoding": name}))
        assert (await upstream.complete(ASK)).body == WHOLE
        server.answers(CHAT, Json(payload[:-3], headers={"Content-Encoding": name}))
        with pytest.raises(UpstreamUnreachable, match=r"broke off|not JSON"):
            await upstream.complete(ASK)


async def test_a_reply_that_grows_too_much_is_refused() -> None:
    """A few kilobytes that stand for megabytes of blanks."""
    async with engine() as (server, upstream):
        server.answers(CHAT, Json(gzip.compress(b" " * 10**7), headers={"Content-Encoding": "gzip"}))
        with pytest.raises(UpstreamUnreachable, match=r"max_compression_ratio \(100\)"):
            await upstream.complete(ASK)


@pytest.mark.parametrize(
    ("encoding", "problem"), [("br", "'br'"), ("gzip, gzip", "gzip, gzip"), ("gzip", "decompressed")]
)
async def test_what_cannot_be_decompressed_is_an_error(encoding: str, problem: str) -> None:
    """An encoding that wasn't asked for, and bytes that aren't what they claim to be."""
    async with engine() as (server, upstream):
        server.answers(CHAT, Json(b"nonsense", headers={"Content-Encoding": encoding}))
        with pytest.raises(UpstreamUnreachable, match=problem):
            await upstream.complete(ASK)


@pytest.mark.parametrize(
    ("limits", "steps", "name"),
    [
        ({"first_token_timeout": 0.1}, [], "first_token_timeout"),
        ({"idle_timeout": 0.1}, [], "idle_timeout"),
        ({"idle_timeout": 0.1, "first_token_timeout": 20}, [chunk("a")], "idle_timeout"),
        ({"total_timeout": 0.2}, [chunk("a")], "total_timeout"),
    ],
)
async def test_an_upstream_that_stays_silent_is_given_up(
    limits: dict[str, Any], steps: list[Any], name: str
) -> None:
    """Before the first token, between two, or at last: a 504."""
    async with engine(**limits) as (server, upstream):
        server.answers(CHAT, Events([*steps, asyncio.Event()]))
        with pytest.raises(UpstreamUnreachable, match=name) as error:
            await texts(upstream)
        assert error.value.status == 504


class Dripping(StubEngine):
    """An engine that sends signs of life and never a token."""

    def __init__(self, head: bytes, drop: bytes) -> None:
        super().__init__()
        self.head, self.drop = head, drop

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send the head, and then a drop every 10 ms."""
        try:
            writer.write(self.head)
            while not reader.at_eof() and not writer.is_closing():
                writer.write(b"%x\r\n%b\r\n" % (len(self.drop), self.drop))
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            return
        finally:
            writer.close()


@pytest.mark.parametrize("drop", [b": ping\n\n", b'data: {"choices": []}\n\n', b" "])
async def test_signs_of_life_are_no_tokens(drop: bytes) -> None:
    """Comments, empty events and white space don't put the limit off."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    state = Dripping(head, drop)
    async with await asyncio.start_server(state.serve, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        upstream = HTTPUpstream(address, limits=UpstreamLimits(idle_timeout=0.2))
        await upstream.start()
        try:
            for asking in (texts(upstream), upstream.complete(ASK)):
                async with asyncio.timeout(10):
                    with pytest.raises(UpstreamUnreachable, match="idle_timeout"):
                        await asking
        finally:
            await upstream.close()


async def test_a_slow_reader_is_no_silent_upstream() -> None:
    """Only the time that the gateway waits counts."""
    events = [chunk(text) for text in "abc"]
    async with engine(idle_timeout=0.1) as (server, upstream):
        server.answers(CHAT, Events([*events, chunk(finish="stop")]))
        assert await texts(upstream, pause=0.25) == ["a", "b", "c", ""]


async def test_the_end_is_not_waited_for_once_all_have_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that hangs after the finish reason has answered; usage and `[DONE]` get a moment."""
    monkeypatch.setattr("gateway.upstreams.wire._AFTER_FINISH", 0.1)
    async with engine() as (server, upstream):
        server.answers(CHAT, Events([chunk("a"), chunk(finish="stop"), asyncio.Event()]))
        assert await texts(upstream) == ["a", ""]
        server.answers(CHAT, Events([chunk("a"), chunk(finish="stop")], done=False, end=False))
        assert await texts(upstream) == ["a", ""]


@pytest.mark.parametrize(
    "reply", [Json(b"", 204), Json(b""), Json(b"<html>"), Json(b"{}"), Json({"choices": []})]
)
async def test_a_reply_without_an_answer_is_an_error(reply: Json) -> None:
    """Streamed or whole, in a 200 or 204."""
    async with engine() as (server, upstream):
        server.answers(CHAT, reply)
        for asking in (texts(upstream), upstream.complete(ASK)):
            with pytest.raises(UpstreamError) as error:
                await asking
            assert error.value.status == 502
