"""What a forced budget adds to each chunk of a stream: the gateway counts, splits and could cut.

In one process, over the code that serves: engine, sampler, track and the chat dialect's
writer, behind them the real client for OpenAI-compatible engines, only its socket replaced
by events from memory (those of the stub upstream, one a block, as an engine writes them).
Three ways to stream one and the same reply, a long `<think>` block and an answer:

    relay    its bytes passed on unread, as `/v1/completions` does
    nothing  `/v1/chat/completions` with `stream` and no budget: read, split, written again
    forced   the same with X-Reasoning-Budget beyond the reply's length, kept by the gateway

The figure is processor time for each chunk, fixed costs taken out: what a reply of 988
chunks takes more than one of 64, divided by the difference. Each is the least of many
rounds, in which all ways take turns. `added` is forced less nothing, as a share of nothing:
sockets, which both need alike, aren't in it and would make it smaller still.

With --http the same over real connections: one gateway process between the stub upstream
and a load generator, and the bare pass-through of overhead.py as the relay. Sockets and a
busy machine make these figures wander by more than what is sought, so their range is told
and the target is judged by the others.

    python -m benchmarks.chunks --http --json benchmarks/results/chunks.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, cast

import aiohttp
import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.overhead import Request, chat, run_cell
from benchmarks.servers import cores, machine, pinned, running
from benchmarks.stub_upstream import LONG, THINKING, Counts, events, pieces
from gateway.config import Settings
from gateway.dialects.chat import ChatStream
from gateway.http.streaming import write
from gateway.runs.budget import read_sampling
from gateway.runs.request import ReplyOptions, RunRequest, plan_request
from gateway.runs.run import Runner
from gateway.service import Resolved, describe_model
from gateway.upstreams.adapters import adapter_for
from gateway.upstreams.base import Endpoint
from gateway.upstreams.client import HTTPUpstream

__all__ = ["main"]

TARGET = 0.05
BUDGET = {"X-Reasoning-Budget": "8192"}
ENGINES: dict[str, tuple[str, Counts]] = {"unknown": ("", "last"), "vllm": ("vllm", "each")}
"""Engines by what they count: one that says nothing until the end, one that counts with every event."""
WAYS = ("relay", "nothing", "forced")
CHUNKS = {model: len(pieces(model)) for model in (THINKING, LONG)}
Replay = Callable[[], Awaitable[None]]


class Blocks:
    """A response whose body is there already, block by block; stands in for aiohttp's."""

    status = 200

    def __init__(self, blocks: list[bytes]) -> None:
        self.content = self
        self._blocks = blocks

    async def iter_any(self) -> AsyncIterator[bytes]:
        for block in self._blocks:
            yield block

    async def read(self) -> bytes:
        """Return the end tag's token ids, the one thing that is not streamed."""
        return b'{"tokens": [0]}'


class CannedBackend(HTTPUpstream):
    """The client for OpenAI-compatible engines, its replies from memory."""

    def __init__(self, owned_by: str, counts: Counts) -> None:
        super().__init__("http://127.0.0.1/v1")
        self.engine = adapter_for(owned_by)
        self._replies = {model: events(model, pieces(model), counts) for model in CHUNKS}

    def _open(
        self, url: str, body: Mapping[str, Any] | bytes | None, *, method: str = "POST"
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        asked = orjson.loads(body) if isinstance(body, bytes) else body or {}
        return self._reply(self._replies[asked["model"]])

    @asynccontextmanager
    async def _reply(self, blocks: list[bytes]) -> AsyncIterator[aiohttp.ClientResponse]:
        yield cast(aiohttp.ClientResponse, Blocks(blocks))


def job(model: str, headers: dict[str, str]) -> RunRequest:
    body = chat(model)
    asked = read_sampling({name.lower(): value for name, value in headers.items()}, body)
    return plan_request(
        body, asked, ReplyOptions(stream=True), describe_model(Settings(), Resolved(model, None))
    )


async def drain(source: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(source):
        async for _ in source:
            pass


def replays(engine: str, model: str) -> dict[str, Replay]:
    """One reply streamed in each way."""
    upstream = CannedBackend(*ENGINES[engine])
    upstream.limit_kept({"model": model}, False)  # else vLLM would be asked to keep it
    gateway = Runner(upstream)
    payload = orjson.dumps(chat(model, stream=True))
    jobs = {"nothing": job(model, {}), "forced": job(model, BUDGET)}

    async def relay() -> None:
        endpoint: Endpoint = "chat/completions"
        await drain(upstream.relay(endpoint, payload))

    def through(asked: RunRequest) -> Replay:
        async def replay() -> None:
            ends: list[Any] = []
            await drain(write(gateway.run(asked), ChatStream(asked, model), ends.append))
            (result,) = ends
            assert result.enforced == ("none" if asked is jobs["nothing"] else "forced")

        return replay

    return {"relay": relay, **{name: through(asked) for name, asked in jobs.items()}}


async def in_process(rounds: int) -> list[dict[str, Any]]:
    """Microseconds a chunk of each way, for each engine."""
    runs = {
        (engine, way, model): replay
        for engine in ENGINES
        for model in CHUNKS
        for way, replay in replays(engine, model).items()
    }
    least = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds):
        for key in list(runs)[:: -1 if turn % 2 else 1]:
            begun = time.thread_time()
            await runs[key]()
            least[key] = min(least[key], time.thread_time() - begun)
    return [
        row(f"in process, {name}", {key[1:]: value for key, value in least.items() if key[0] == name})
        for name in ENGINES
    ]


def over_http(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The same of whole processes, system time included: medians over the rounds, and the shares' range."""
    first, second = cores()
    turns: list[dict[str, Any]] = []
    with ExitStack() as stack:
        upstream = f"http://127.0.0.1:{stack.enter_context(running('stub', second, '')).port}"
        bare, gateway = (stack.enter_context(running(name, first, upstream)) for name in ("bare", "gateway"))
        stack.enter_context(pinned(second))
        for turn in range(rounds):
            spent = {}
            for model in CHUNKS:
                for way in WAYS[:: -1 if turn % 2 else 1]:
                    headers = BUDGET if way == "forced" else {}
                    request = Request(chat(model, stream=True), headers, thinks=True)
                    load, cpu = run_cell(bare if way == "relay" else gateway, request, 8, seconds)
                    if load.errors or cpu is None:
                        raise SystemExit(f"{way}: {load.errors} of {load.requests} requests failed")
                    spent[way, model] = cpu / 1e6
            turns.append(row("over HTTP, unknown", spent))
    figures = [key for key in turns[0] if key != "measured"]
    shares = [each["added"] for each in turns]
    middle = {key: round(median(each[key] for each in turns), 4) for key in figures}
    return [{**turns[0], **middle, "added_range": [min(shares), max(shares)]}]


def row(name: str, seconds: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    """Microseconds for one more chunk of each way, from the seconds that its two replies take."""
    more = CHUNKS[LONG] - CHUNKS[THINKING]
    chunk = {way: (seconds[way, LONG] - seconds[way, THINKING]) / more * 1e6 for way in WAYS}
    figures = {f"{way}_us": round(value, 3) for way, value in chunk.items()}
    return {"measured": name, **figures, "added": round(chunk["forced"] / chunk["nothing"] - 1, 4)}


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("measured", title="processor time for each chunk, in µs")
    for heading in (*WAYS, "added"):
        table.add_column(heading, justify="right")
    for each in rows:
        table.add_row(
            each["measured"], *(f"{each[f'{way}_us']:.2f}" for way in WAYS), f"{each['added']:+.1%}"
        )
    Console(width=100).print(table)
    for each in rows:
        if "added_range" in each:
            least, most = each["added_range"]
            print(f"{each['measured']}: the rounds' own shares go from {least:+.1%} to {most:+.1%}")
            continue
        verdict = "met" if each["added"] < TARGET else "MISSED"
        print(f"{each['measured']}: forced adds {each['added']:+.1%}, target under {TARGET:.0%}: {verdict}")


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chunks", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--http", action="store_true", help="also over real connections")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one window of --http")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    about = machine()
    rows = asyncio.run(in_process(args.rounds))
    if args.http:
        rows += over_http(max(3, args.rounds // 12), args.seconds)
    show(rows)
    if args.json:
        report = {"machine": about, "settings": {"rounds": args.rounds, "target": TARGET}, "chunks": rows}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
