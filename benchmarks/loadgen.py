"""A closed-loop HTTP load generator light enough to share a core with the stub upstream.

Each connection sends one fixed request, waits for the whole reply, and sends it again. It
understands just enough HTTP/1.1 to find the end of a reply.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from statistics import quantiles
from typing import cast

__all__ = ["Load", "measure", "request_bytes"]

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """One measured window: requests per second, and latency in milliseconds (None: too few replies)."""

    requests: int
    errors: int
    rps: float
    p50: float | None
    p99: float | None


@dataclass(slots=True)
class Window:
    """The measurements of one window, shared by its connections."""

    recording: bool = False
    errors: int = 0
    seconds: list[float] = field(default_factory=list)


def request_bytes(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return one POST request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Connection(asyncio.Protocol):
    """One client: it sends, waits for the end of the reply, records it, and sends again."""

    def __init__(self, request: bytes, window: Window) -> None:
        self.request = request
        self.window = window
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        self.buffer = bytearray()
        self.total: int | None = None  # bytes of the whole reply; None: head not read yet, or chunked
        self.chunked = False
        self.ok = False
        self.sent_at = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.total is None and not self.chunked and not self.read_head():
            return
        if self.chunked:
            complete = self.buffer.endswith(LAST_CHUNK)
            del self.buffer[: -len(LAST_CHUNK)]
        else:
            assert self.total is not None
            complete = len(self.buffer) >= self.total
        if complete:
            self.finish()

    def read_head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        self.ok = self.buffer.startswith(b"HTTP/1.1 200")
        length = CONTENT_LENGTH.search(self.buffer, 0, end)
        if length:
            self.total = end + 4 + int(length[1])
        elif CHUNKED.search(self.buffer, 0, end + 2):
            self.chunked = True
        else:
            raise ValueError("a reply with neither a length nor chunks")
        return True

    def finish(self) -> None:
        if self.window.recording:
            self.window.seconds.append(time.perf_counter() - self.sent_at)
            self.window.errors += not self.ok
        if self.stopped:
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopped:
            self.window.errors += 1
        if not self.lost.done():
            self.lost.set_result(None)


async def measure(port: int, request: bytes, connections: int, *, warmup: float, seconds: float) -> Load:
    """Load one server and count the replies that end within the window.

    `warmup` and `seconds` are durations in seconds. Replies in flight at the end are awaited but not counted,
    so the server is idle again when this returns.
    """
    loop = asyncio.get_running_loop()
    window = Window()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Connection(request, window), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(warmup)
    window.recording = True
    start = time.perf_counter()
    await asyncio.sleep(seconds)
    window.recording = False
    elapsed = time.perf_counter() - start
    for client in clients:
        client.stopped = True
    async with asyncio.timeout(30):
        await asyncio.gather(*(client.lost for client in clients))
    times = window.seconds
    if len(times) < 2:
        return Load(len(times), window.errors, len(times) / elapsed, None, None)
    cuts = quantiles(times, n=100, method="inclusive")
    return Load(len(times), window.errors, len(times) / elapsed, cuts[49] * 1e3, cuts[98] * 1e3)
