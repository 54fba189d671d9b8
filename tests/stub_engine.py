"""A scripted HTTP server that stands in for an engine, down to its misbehaviour on the wire."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Events", "Json", "Raw", "StubEngine", "chunk", "stub_engine"]


@dataclass(frozen=True)
class Json:
    """An unstreamed reply; `body` is sent as JSON, bytes as they are."""

    body: Any
    status: int = 200


@dataclass(frozen=True)
class Events:
    """A streamed reply: objects become `data:` events, bytes go out as they are, a gate is waited for.

    Without `done` the stream just ends, without `end` the connection is cut off in mid-stream.
    """

    steps: Sequence[Mapping[str, Any] | bytes | asyncio.Event]
    done: bool = True
    end: bool = True


@dataclass(frozen=True)
class Raw:
    """Bytes instead of an HTTP reply; then the connection is closed."""

    payload: bytes = b""


Reply = Json | Events | Raw


@dataclass
class StubEngine:
    """The server's state: what it was asked, and how many requests are being answered or were dropped."""

    base_url: str = ""
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    open: int = 0
    hung_up: int = 0
    connections: int = 0
    _replies: dict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))

    def answers(self, path: str, *replies: Reply) -> None:
        """The replies of one path, in order; the last one stays for all that follow."""
        self._replies[path] = deque(replies)

    def asked(self, path: str) -> list[dict[str, Any]]:
        """The bodies of the requests to one path."""
        return [body for where, body, _ in self.requests if where == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as it is kept."""
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        payload = await reader.readexactly(int(headers.get("content-length", 0)))
        path = head[0].split(" ")[1]
        self.requests.append((path, json.loads(payload) if payload else {}, headers))
        replies = self._replies[path]
        reply = replies.popleft() if len(replies) > 1 else replies[0] if replies else Json(b"", 404)
        if isinstance(reply, Raw):
            writer.write(reply.payload)
            return False
        if isinstance(reply, Json):
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (reply.status, len(body), body))
            return True
        return await self._stream(reply, reader, writer)

    async def _stream(
        self, reply: Events, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.open += 1
        leaving = asyncio.create_task(reader.read(1))
        try:
            for step in (*reply.steps, *((b"data: [DONE]\n\n",) if reply.done else ())):
                if isinstance(step, asyncio.Event):
                    waiting = asyncio.create_task(step.wait())
                    await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    if leaving.done():
                        self.hung_up += 1
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
            return False  # as some engines do: the connection is not kept after a stream
        finally:
            leaving.cancel()
            self.open -= 1


@asynccontextmanager
async def stub_engine(owned_by: str = "someone", model: str = "tiny") -> AsyncIterator[StubEngine]:
    """A running server with one model, by an engine that calls itself `owned_by`."""
    state = StubEngine()
    state.answers("/v1/models", Json({"object": "list", "data": [{"id": model, "owned_by": owned_by}]}))
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0)
    state.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield state


def chunk(
    content: str | None = None, *, index: int = 0, finish: str | None = None, **event: Any
) -> dict[str, Any]:
    """One event of a streamed chat reply."""
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
