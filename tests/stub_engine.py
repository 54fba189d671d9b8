"""A scripted HTTP server in place of an engine, with all its misbehaviour on the wire."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Events", "Json", "Raw", "StubEngine", "answer_all", "chunk", "read_request", "stub_engine"]


@dataclass(frozen=True)
class Json:
    """An unstreamed reply. The server sends `body` as JSON, and bytes unchanged."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Events:
    """A streamed reply.

    Objects become `data:` events, bytes go out unchanged, and at an `asyncio.Event` the server waits.
    Without `done` the stream ends without `[DONE]`. Without `end` the connection breaks in mid-stream.
    """

    steps: Sequence[Mapping[str, Any] | bytes | asyncio.Event]
    done: bool = True
    end: bool = True


@dataclass(frozen=True)
class Raw:
    """Bytes in place of an HTTP reply; afterwards the server closes the connection."""

    payload: bytes = b""


Reply = Json | Events | Raw


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]
"""Answers one request; returns whether the connection can carry another one."""


async def answer_all(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until it closes."""
    try:
        while await answer(reader, writer):
            pass
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Read one HTTP request; return its path, its headers by lower-case name, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    return head[0].split(" ")[1], headers, await reader.readexactly(int(headers.get("content-length", 0)))


@dataclass
class StubEngine:
    """The state of the server: its requests so far, the open streams and the hang-ups of clients."""

    base_url: str = ""
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    open: int = 0
    hang_ups: int = 0
    connections: int = 0
    _replies: dict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))

    def answers(self, path: str, *replies: Reply) -> None:
        """Set the replies of one path, in order; the last one serves all further requests."""
        self._replies[path] = deque(replies)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """Return the bodies of the requests to one path."""
        return [body for target, body, _ in self.requests if target == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it closes."""
        self.connections += 1
        await answer_all(self._answer, reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        path, headers, payload = await read_request(reader)
        self.requests.append((path, json.loads(payload) if payload else {}, headers))
        replies = self._replies[path]
        reply = replies.popleft() if len(replies) > 1 else replies[0] if replies else Json(b"", 404)
        if isinstance(reply, Raw):
            writer.write(reply.payload)
            return False
        if isinstance(reply, Json):
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            lines = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items()).encode()
            head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%b\r\n" % (reply.status, len(body), lines)
            writer.write(head + body)
            return True
        return await self._stream(reply, reader, writer)

    async def _stream(
        self, reply: Events, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.open += 1
        hang_up = asyncio.create_task(reader.read(1))
        try:
            for step in (*reply.steps, *((b"data: [DONE]\n\n",) if reply.done else ())):
                if isinstance(step, asyncio.Event):
                    waiting = asyncio.create_task(step.wait())
                    await asyncio.wait({waiting, hang_up}, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    if hang_up.done():
                        self.hang_ups += 1
                        return False
                else:
                    block = (
                        step if isinstance(step, bytes) else b"data: " + json.dumps(step).encode() + b"\n\n"
                    )
                    writer.write(b"%x\r\n%b\r\n" % (len(block), block))
                    await writer.drain()
            if reply.end:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            return False  # some engines close the connection after a stream
        finally:
            hang_up.cancel()
            self.open -= 1


@asynccontextmanager
async def stub_engine(owned_by: str = "someone", model: str = "tiny") -> AsyncIterator[StubEngine]:
    """Run a server with one model, as an engine that calls itself `owned_by`."""
    state = StubEngine()
    state.answers("/v1/models", Json({"object": "list", "data": [{"id": model, "owned_by": owned_by}]}))
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0)
    state.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield state


def chunk(
    content: str | None = None, *, index: int = 0, finish: str | None = None, **event: Any
) -> dict[str, Any]:
    """Return one event of a streamed chat reply."""
    delta = {} if content is None else {"content": content}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {
        "id": "up-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "tiny",
        "choices": [choice],
        **event,
    }
