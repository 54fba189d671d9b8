"""An engine that misbehaves on the wire, as its script says for one conversation or for all requests."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.stub_engine import answer_all, read_request

__all__ = [
    "DONE",
    "RIGHT",
    "STREAM_HEAD",
    "Fault",
    "FaultyEngine",
    "Query",
    "Wire",
    "events",
    "faulty_engine",
    "reply",
]

DONE = b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
RIGHT = "The sum is \\boxed{42}."
"""The text of a reply without a fault."""

Json = dict[str, Any]
Then = Literal["keep", "close", "reset", "silence", "comments"]


@dataclass(frozen=True)
class Wire:
    """Bytes of a reply, and what becomes of the connection after them.

    - `keep` leaves it open for the next request.
    - `close` ends it in order, `reset` breaks it.
    - `silence` leaves the reply open without another byte, `comments` sends comments until the client leaves.

    The bytes go out in pieces that end at `cuts`.
    """

    payload: bytes = b""
    then: Then = "keep"
    cuts: Sequence[int] = ()


@dataclass(frozen=True)
class Query:
    """One request to generate: its endpoint, the form of its reply, and the key that it carries."""

    chat: bool
    streamed: bool
    choices: int
    key: str

    def choice(self, text: str | None, finish: str | None = None, index: int = 0) -> Json:
        """Return a choice of the reply, or of an event where the reply is streamed."""
        if not self.chat:
            return {"index": index, "text": text or "", "finish_reason": finish, "logprobs": None}
        part: Json = {} if text is None else {"role": "assistant", "content": text}
        return {"index": index, "delta" if self.streamed else "message": part, "finish_reason": finish}

    def body(self, *choices: Json, **fields: Any) -> Json:
        """Return a whole reply, or one event, with these choices."""
        kind = "chat.completion" if self.chat else "text_completion"
        if self.streamed and self.chat:
            kind += ".chunk"
        usage = {} if self.streamed else {"usage": USAGE}
        head = {"id": "from-the-engine", "object": kind, "created": 1, "model": "tiny"}
        return {**head, "choices": list(choices), **usage, **fields}

    def says(self, text: str, finish: str | None = "stop") -> Wire:
        """Return a reply that is well-formed: this text in every choice, and this end."""
        indices = range(self.choices)
        if not self.streamed:
            return reply(self.body(*(self.choice(text, finish, index) for index in indices)))
        half = len(text) // 2
        parts = [(part, index) for part in (text[:half], text[half:]) for index in indices]
        pieces = [self.body(self.choice(part, None, index)) for part, index in parts]
        pieces += [self.body(self.choice(None, finish, index)) for index in indices]
        return events([*pieces, self.body(usage=USAGE)])


Fault = Callable[[Query], Wire]
"""Makes the misbehaving reply to a request."""


def reply(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None, then: Then = "keep"
) -> Wire:
    """Return an unstreamed reply: `body` as JSON, or bytes as they are."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(payload))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return Wire(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode("latin-1") + payload, then)


def events(
    steps: Iterable[Mapping[str, Any] | bytes],
    *,
    done: bool = True,
    then: Then = "keep",
    gzipped: bool = False,
) -> Wire:
    """Return a streamed reply. Objects become `data:` events, and bytes go out as they are.

    Only a reply with `keep` ends its body. `done` sends `[DONE]` before that.
    """
    blocks = [
        step if isinstance(step, bytes) else b"data: " + json.dumps(step).encode() + b"\n\n" for step in steps
    ]
    blocks += [DONE] if done and then == "keep" else []
    head = STREAM_HEAD
    if gzipped:
        blocks = [gzip.compress(b"".join(blocks))]
        head = head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    body = b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks if block)
    return Wire(head + body + (b"0\r\n\r\n" if then == "keep" else b""), then)


@dataclass
class _Script:
    """A fault, and how many requests meet it still."""

    fault: Fault
    hits: int
    payloads: list[bytes] = field(default_factory=list)


@dataclass
class FaultyEngine:
    """The state of the server: its scripts by the word that names a conversation, and what it was sent."""

    base_url: str = ""
    models: Sequence[str] = ("tiny",)
    owned_by: str = "someone"
    others: int = 0
    """Requests that fit no script and list no models."""
    _scripts: dict[str, _Script] = field(default_factory=dict)

    def meets(self, word: str, fault: Fault, hits: int = 1_000) -> None:
        """Let the first `hits` requests that contain `word` meet the fault; later ones get the right text."""
        self._scripts[word] = _Script(fault, hits)

    def requests(self, word: str) -> int:
        """Count the requests that contained `word`."""
        return len(self._scripts[word].payloads)

    def payloads(self, word: str) -> list[bytes]:
        """Return the bodies of the requests that contained `word`."""
        return self._scripts[word].payloads

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it closes."""
        await answer_all(self._answer, reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection can carry another one."""
        path, headers, payload = await read_request(reader)
        wire = self._wire(path, payload, headers.get("authorization", "").removeprefix("Bearer "))
        for start, end in itertools.pairwise((0, *sorted(wire.cuts), len(wire.payload))):
            writer.write(wire.payload[start:end])
            await writer.drain()
            await asyncio.sleep(0)  # so that the client reads the piece before the next one comes
        if wire.then in ("silence", "comments"):
            await _wait_for_end(reader, writer, comments=wire.then == "comments")
        elif wire.then == "reset":
            linger = struct.pack("ii", 1, 0)  # closing now sends RST in place of FIN
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return wire.then == "keep"

    def _wire(self, path: str, payload: bytes, key: str) -> Wire:
        if path == "/v1/models":
            return reply(
                {"object": "list", "data": [{"id": "tiny", "object": "model", "owned_by": "someone"}]}
            )
        body = json.loads(payload) if payload else {}
        if not path.endswith("completions"):
            self.others += path != "/health"
            return reply({"detail": "Not Found"}, 404)
        n = body.get("n")
        query = Query("chat" in path, bool(body.get("stream")), n if isinstance(n, int) and n > 0 else 1, key)
        text = json.dumps(body.get("messages") or body.get("prompt"))
        script = next((script for word, script in self._scripts.items() if word in text), None)
        if script is None:
            return query.says(RIGHT)
        script.payloads.append(payload)
        return script.fault(query) if len(script.payloads) <= script.hits else query.says(RIGHT)


async def _wait_for_end(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, comments: bool
) -> None:
    """Return once the client has closed the connection."""
    leaving = asyncio.create_task(reader.read(1))
    try:
        while not leaving.done():
            await asyncio.wait({leaving}, timeout=0.1 if comments else None)
            if comments and not leaving.done():
                writer.write(b"f\r\n: still there\n\n\r\n")
    finally:
        leaving.cancel()


@asynccontextmanager
async def faulty_engine(
    models: Sequence[str] = ("tiny",), owned_by: str = "someone"
) -> AsyncIterator[FaultyEngine]:
    """Run a server with these models, as an engine that calls itself `owned_by`."""
    state = FaultyEngine(models=models, owned_by=owned_by)
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0, limit=2**24)
    state.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield state
