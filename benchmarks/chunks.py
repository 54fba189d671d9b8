"""Measure what a forced budget adds to each chunk of a stream, where the gateway counts and could cut.

It runs in one process, over the code that serves: the runner, sampling and the chat dialect's writer. Behind
them is the real client for OpenAI-compatible engines. Only its socket is replaced by events from memory:
those of the stub upstream, one a block, as an engine writes them.
The same reply, a long `<think>` block and an answer, is streamed in three ways:

    relay    relays the bytes unread, as `/v1/completions` does
    nothing  `/v1/chat/completions` with `stream` and no budget: read, split, written again
    forced   the same with X-Reasoning-Budget beyond the reply's length, enforced by the gateway

The result is the processor time per chunk, without fixed costs: the time of a reply of 988 chunks minus that
of one of 64, divided by the difference. Each is the minimum of many rounds, in which all ways take turns.
`added` is forced minus nothing, as a proportion of nothing. Sockets, which both need alike, are not included;
they would make it smaller still.

With --http it measures the same over real connections: one gateway process between the stub upstream and a
load generator, with the bare pass-through of overhead.py as the relay. Sockets and a busy machine disturb
these results by more than the effect, so the report gives their range, and the target applies to the others.

    python -m benchmarks.chunks --http --json benchmarks/results/chunks.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager
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
from gateway.dialects.chat import ChatExchange
from gateway.http.streaming import write
from gateway.runs.budget import read_sampling
from gateway.runs.request import ReplyOptions, RunRequest, plan_request
from gateway.runs.run import Runner
from gateway.service import ResolvedModel, describe_model
from gateway.upstreams.adapters import adapter_for
from gateway.upstreams.base import Endpoint
from gateway.upstreams.client import Again, Body, HTTPUpstream
from gateway.upstreams.reply import Reply, ReplyLimits

__all__ = ["main"]

TARGET = 0.05
BUDGET = {"X-Reasoning-Budget": "8192"}
ENGINES: dict[str, tuple[str, Counts]] = {"unknown": ("", "last"), "vllm": ("vllm", "each")}
"""Engines by when they report usage: one at the end only, one with every event."""
WAYS = ("relay", "nothing", "forced")
CHUNKS = {model: len(pieces(model)) for model in (THINKING, LONG)}
Replay = Callable[[], Awaitable[None]]


class Blocks:
    """A response whose body is in memory, block by block; replaces aiohttp's."""

    status = 200
    headers: Mapping[str, str] = {}
    raw_headers = ()

    def __init__(self, blocks: list[bytes]) -> None:
        self.content = self
        self._blocks = iter(blocks)

    async def readany(self) -> bytes:
        return next(self._blocks, b"")


class CannedUpstream(HTTPUpstream):
    """The client for OpenAI-compatible engines, with replies from memory."""

    def __init__(self, owned_by: str, counts: Counts) -> None:
        super().__init__("http://127.0.0.1/v1")
        self.engine = adapter_for(owned_by)
        self._replies = {model: events(model, pieces(model), counts) for model in CHUNKS}

    @asynccontextmanager
    async def _open(
        self,
        url: str,
        body: Body,
        *,
        method: str = "POST",
        limits: ReplyLimits | None = None,
        again: Again | None = None,
    ) -> AsyncIterator[Reply]:
        request = orjson.loads(self._payload(url, body) or b"{}")
        end_tag = [b'{"tokens": [0]}']  # the only reply that is not streamed
        blocks = end_tag if url.endswith("/tokenize") else self._replies[request["model"]]
        response = cast(aiohttp.ClientResponse, Blocks(blocks))
        limits = limits or ReplyLimits(self.limits)
        silence = self._clock.watch(limits)
        try:
            yield Reply(response, limits, silence)
        finally:
            silence.stop()


def request_of(model: str, headers: dict[str, str]) -> RunRequest:
    body = chat(model)
    sampling = read_sampling({name.lower(): value for name, value in headers.items()}, body)
    return plan_request(
        body, sampling, ReplyOptions(stream=True), describe_model(Settings(), ResolvedModel(model, None))
    )


async def drain(source: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(source):
        async for _ in source:
            pass


def replays(engine: str, model: str) -> dict[str, Replay]:
    """Return a function for each way that streams one reply."""
    upstream = CannedUpstream(*ENGINES[engine])
    upstream.traits(model).observe_limit(False)  # else the gateway would let vLLM enforce it
    gateway = Runner(upstream)
    payload = orjson.dumps(chat(model, stream=True))
    exchange = ChatExchange(payload)
    requests = {"nothing": request_of(model, {}), "forced": request_of(model, BUDGET)}

    async def relay() -> None:
        endpoint: Endpoint = "chat/completions"
        await drain(upstream.relay(endpoint, payload))

    def through_gateway(request: RunRequest) -> Replay:
        async def replay() -> None:
            results: list[Any] = []
            writer = exchange.writer(request, model)
            await drain(write(gateway.run(request), writer, results.append))
            (result,) = results
            assert result.enforced == ("none" if request is requests["nothing"] else "forced")

        return replay

    return {"relay": relay, **{name: through_gateway(request) for name, request in requests.items()}}


async def in_process(rounds: int) -> list[dict[str, Any]]:
    """Measure the microseconds per chunk of each way, for each engine."""
    runs = {
        (engine, way, model): replay
        for engine in ENGINES
        for model in CHUNKS
        for way, replay in replays(engine, model).items()
    }
    shortest = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds):
        for key in list(runs)[:: -1 if turn % 2 else 1]:
            start = time.thread_time()
            await runs[key]()
            shortest[key] = min(shortest[key], time.thread_time() - start)
    return [
        result_of(
            f"in process, {name}", {key[1:]: value for key, value in shortest.items() if key[0] == name}
        )
        for name in ENGINES
    ]


def over_http(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure whole processes, system time included; return medians over rounds, and the range of `added`."""
    first, second = cores()
    turns: list[dict[str, Any]] = []
    with ExitStack() as stack:
        upstream = f"http://127.0.0.1:{stack.enter_context(running('stub', second, '')).port}"
        bare, gateway = (stack.enter_context(running(name, first, upstream)) for name in ("bare", "gateway"))
        stack.enter_context(pinned(second))
        for turn in range(rounds):
            cpu_seconds = {}
            for model in CHUNKS:
                for way in WAYS[:: -1 if turn % 2 else 1]:
                    headers = BUDGET if way == "forced" else {}
                    request = Request(chat(model, stream=True), headers, thinks=True)
                    load, cpu = run_cell(bare if way == "relay" else gateway, request, 8, seconds)
                    if load.errors or cpu is None:
                        raise SystemExit(f"{way}: {load.errors} of {load.requests} requests failed")
                    cpu_seconds[way, model] = cpu / 1e6
            turns.append(result_of("over HTTP, unknown", cpu_seconds))
    keys = [key for key in turns[0] if key != "measured"]
    added = [turn["added"] for turn in turns]
    medians = {key: round(median(turn[key] for turn in turns), 4) for key in keys}
    return [{**turns[0], **medians, "added_range": [min(added), max(added)]}]


def result_of(name: str, seconds: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    """Return the microseconds per additional chunk of each way, from the seconds of its two replies."""
    chunks = CHUNKS[LONG] - CHUNKS[THINKING]
    per_chunk = {way: (seconds[way, LONG] - seconds[way, THINKING]) / chunks * 1e6 for way in WAYS}
    microseconds = {f"{way}_us": round(value, 3) for way, value in per_chunk.items()}
    added = round(per_chunk["forced"] / per_chunk["nothing"] - 1, 4)
    return {"measured": name, **microseconds, "added": added}


def show(results: list[dict[str, Any]]) -> None:
    table = Table("measured", title="processor time per chunk, in µs")
    for heading in (*WAYS, "added"):
        table.add_column(heading, justify="right")
    for result in results:
        microseconds = [f"{result[f'{way}_us']:.2f}" for way in WAYS]
        table.add_row(result["measured"], *microseconds, f"{result['added']:+.1%}")
    Console(width=100).print(table)
    for result in results:
        name, added = result["measured"], result["added"]
        if "added_range" in result:
            low, high = result["added_range"]
            print(f"{name}: over the rounds, `added` ranges from {low:+.1%} to {high:+.1%}")
            continue
        outcome = "met" if added < TARGET else "MISSED"
        print(f"{name}: forced adds {added:+.1%}, target below {TARGET:.0%}: {outcome}")


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chunks", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--http", action="store_true", help="also over real connections")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one window of --http")
    parser.add_argument("--json", type=Path, help="write the results here")
    args = parser.parse_args(argv)
    environment = machine()
    results = asyncio.run(in_process(args.rounds))
    if args.http:
        results += over_http(max(3, args.rounds // 12), args.seconds)
    show(results)
    if args.json:
        settings = {"rounds": args.rounds, "target": TARGET}
        report = {"machine": environment, "settings": settings, "chunks": results}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
