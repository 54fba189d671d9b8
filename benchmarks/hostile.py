"""Memory and responsiveness of the gateway under an upstream or a client that would exhaust it.

    python -m benchmarks.hostile [--before ../before] [--json benchmarks/results/hostile.json]

Each case starts a gateway process of its own before an upstream in this process. While the case lasts,
another client asks `/health` every 20 ms. A row holds the outcome of the request, its seconds, the resident
memory of the process at rest and at its peak (MiB), and the longest wait for `/health` (ms). `--before` names
another checkout, which is measured in turn. The cases:

- `gzip`: a reply of 0.4 MB that expands to 400 MB, whole and as a stream of one line.
- `endless line`: a stream whose first event never ends, as fast as it is read.
- `endless reply`: a stream of small events that never ends; the client reads it for `SECONDS`.
- `slow reader`: the same in a vote that shows its first sample live; the client reads nothing for `SECONDS`.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.servers import free_port, machine

SECONDS = 8.0
MEBIBYTE = 2**20
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n%b\r\n"
MODELS = b'{"object": "list", "data": [{"id": "tiny", "object": "model", "owned_by": "someone"}]}'
EVENT = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'


@dataclass(frozen=True)
class Case:
    """A request, and what the upstream answers to it; `reads`: the client reads the reply."""

    name: str
    kind: str
    stream: bool = True
    vote: bool = False
    reads: bool = True


CASES = (
    Case("gzip, whole", "gzip", stream=False),
    Case("gzip, streamed", "gzip"),
    Case("endless line", "line"),
    Case("endless reply", "events"),
    Case("slow reader", "events", vote=True, reads=False),
)


class Upstream:
    """Answers each request in the way of the case that is measured."""

    def __init__(self) -> None:
        self.kind = "events"
        self._bomb = gzip.compress(b"data: " + b" " * (400 * MEBIBYTE))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = head.partition("content-length: ")[2].partition("\r\n")[0]
                await reader.readexactly(int(length or 0))
                if "completions" not in head.partition("\r\n")[0]:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(MODELS) + MODELS)
                    continue
                await self._generate(writer)
        writer.close()

    async def _generate(self, writer: asyncio.StreamWriter) -> None:
        if self.kind == "gzip":
            writer.write(HEAD % (b"application/json", b"Content-Encoding: gzip\r\n"))
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(self._bomb), self._bomb))
            await writer.drain()
            return
        block = b"a" * 2**16 if self.kind == "line" else EVENT * 200
        writer.write(HEAD % (b"text/event-stream", b""))
        if self.kind == "line":
            writer.write(b"6\r\ndata: \r\n")
        end = time.monotonic() + 3 * SECONDS
        while time.monotonic() < end:
            writer.write(b"%x\r\n%b\r\n" % (len(block), block))
            await writer.drain()
            await asyncio.sleep(0)


@asynccontextmanager
async def gateway(root: Path, upstream: str) -> AsyncIterator[tuple[str, int]]:
    """Start the gateway of a checkout; yield its address and process id."""
    port = free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port)]
    environment = {**os.environ, "THINKGATE_UPSTREAM": upstream, "PYTHONPATH": str(root)}
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, cwd=root, env=environment, stdout=quiet, stderr=quiet
    )
    address = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            for _ in range(300):
                with suppress(aiohttp.ClientError):
                    async with session.get(f"{address}/ready") as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.1)
        yield address, process.pid
    finally:
        process.kill()
        await process.wait()


def resident(process: int) -> int:
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // MEBIBYTE


async def watch(address: str, process: int, memory: list[int], answers: list[float]) -> None:
    """Ask `/health`, and read the memory, until cancelled."""
    async with aiohttp.ClientSession() as session:
        while True:
            memory.append(resident(process))
            started = time.monotonic()
            try:
                async with session.get(f"{address}/health") as response:
                    await response.read()
            finally:
                answers.append(time.monotonic() - started)
            await asyncio.sleep(0.02)


async def ask(address: str, case: Case) -> str:
    """Send the case's request; return how it ended."""
    body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Go on"}]}
    body |= {"stream": case.stream, **({"scaling": {"samples": 3, "stream": "first"}} if case.vote else {})}
    read = 0
    limit = aiohttp.ClientTimeout(total=SECONDS + 12, sock_read=None)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, read_bufsize=2**14) as session,
            session.post(f"{address}/v1/chat/completions", json=body) as response,
        ):
            if not case.reads:
                await asyncio.sleep(SECONDS)
                return f"{response.status}, not read"
            end, last = time.monotonic() + SECONDS, b""
            async for block in response.content.iter_any():
                read, last = read + len(block), (last + block)[-400:]
                if time.monotonic() > end:
                    return f"{response.status}, {read // MEBIBYTE} MiB read"
            error = b'"error"' in last
            return f"{response.status}{', an error' if error else ''}"
    except TimeoutError:
        return "no end"


async def measure(root: Path, case: Case, upstream: Upstream, address: str) -> dict[str, Any]:
    """Run one case on the gateway of a checkout."""
    upstream.kind = case.kind
    async with gateway(root, address) as (url, process):
        memory, answers = [resident(process)], [0.0]
        watching = asyncio.create_task(watch(url, process, memory, answers))
        started = time.monotonic()
        outcome = await ask(url, case)
        seconds = time.monotonic() - started
        with suppress(asyncio.CancelledError, aiohttp.ClientError):
            await asyncio.sleep(0.2)
            watching.cancel()
            await watching
    return {
        "case": case.name,
        "outcome": outcome,
        "seconds": round(seconds, 1),
        "rest_mib": memory[0],
        "peak_mib": max(memory),
        "health_ms": round(1000 * max(answers)),
    }


async def run(roots: Sequence[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Measure all cases, each on every checkout in turn."""
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=2**20)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    rows = []
    for case in CASES:
        for name, root in roots:
            rows.append({"checkout": name, **await measure(root, case, upstream, address)})
            print(json.dumps(rows[-1]), flush=True)
    server.close()
    return rows


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--json", type=Path, help="where to write the results")
    chosen = parser.parse_args()
    roots = [("after", Path(__file__).parents[1])]
    if chosen.before:
        roots.insert(0, ("before", chosen.before.resolve()))
    results = {"machine": machine(), "seconds": SECONDS, "rows": asyncio.run(run(roots))}
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
