"""What the gateway costs: requests a second and latency beside the least possible pass-through.

One core runs the server under test, the other the stub upstream and the load generator.
Every server is started once and measured in turn within each round, so that whatever else
the machine does falls on all of them alike; every other round goes in reverse. Figures are
medians over the rounds, ratios are medians of each round's own ratio to the yardstick
("bare"). CPU is the server's own processor time for each request, which a busy machine
disturbs least; "by CPU" is the yardstick's divided by the server's own.

    python -m benchmarks.overhead --seconds 3 --rounds 5 --json benchmarks/results/overhead.json
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.loadgen import Load, measure, request_bytes
from benchmarks.servers import Server, cores, machine, pinned, processor_seconds, running
from benchmarks.stub_upstream import ANSWER, PLAIN, THINKING, THOUGHT

__all__ = ["main"]

PATH = "/v1/chat/completions"
SERVERS = ("stub", "bare", "gateway", "gateway-vllm", "bare-httpx")
YARDSTICK = "bare"
WARMUP = 0.3  # seconds before each window
TARGETS = {"plain": 0.7, "budget": 0.5}  # least ratio to the yardstick at 32 connections


@dataclass(frozen=True, slots=True)
class Request:
    """One kind of request; `thinks` says that its reply holds a `<think>` block."""

    body: dict[str, Any]
    headers: dict[str, str]
    thinks: bool

    def wire(self) -> bytes:
        return request_bytes(PATH, orjson.dumps(self.body), self.headers)


@dataclass(frozen=True, slots=True)
class Result:
    """One cell of one round; `cpu_us` is the server's processor time for a request in microseconds."""

    round: int
    server: str
    request: str
    connections: int
    load: Load
    cpu_us: float | None


def chat(model: str, **rest: Any) -> dict[str, Any]:
    question = (
        "What is the sum of the first ten odd numbers? Explain in one short paragraph, then give the number."
    )
    messages = [
        {"role": "system", "content": "You are a careful assistant. Answer in the language of the question."},
        {"role": "user", "content": question},
    ]
    return {"model": model, "messages": messages, "temperature": 0.7, "max_tokens": 2048, **rest}


LOW = {"X-Reasoning-Budget": "low"}
REQUESTS = {
    "plain": Request(chat(PLAIN), {}, thinks=False),
    "budget": Request(chat(THINKING), LOW, thinks=True),
    "budget-stream": Request(chat(THINKING, stream=True), LOW, thinks=True),
}


# A limit that is reached, once, shows the gateway that this engine keeps limits itself.
TEACHING = Request(chat(THINKING), {"X-Reasoning-Budget": "16"}, thinks=True)


def check(name: str, server: Server, request: Request) -> None:
    """One request by hand, so that no window counts wrong replies: the answer must be there, and,
    from the gateway, with the thinking taken out of it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(
        "POST", PATH, json.dumps(request.body), {"content-type": "application/json", **request.headers}
    )
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    if reply.status != 200:
        raise SystemExit(f"{name} answered {reply.status}: {text[:500]}")
    content, reasoning = contents(text, streamed=bool(request.body.get("stream")))
    if name.startswith("gateway") and request.thinks and not split(content, reasoning):
        raise SystemExit(f"{name} did not split the reply: {content!r} / {reasoning!r}")
    if request.thinks and ANSWER not in content:
        raise SystemExit(f"{name} lost the answer: {content!r}")


def split(content: str, reasoning: str) -> bool:
    """Whether the answer stands alone, and beside it what the model thought, if only its beginning."""
    return content.strip() == ANSWER and bool(reasoning) and THOUGHT.startswith(reasoning.strip())


def contents(text: str, *, streamed: bool) -> tuple[str, str]:
    """Content and reasoning of a reply."""
    if not streamed:
        parts = [json.loads(text)["choices"][0]["message"]]
    else:
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        parts = [choice["delta"] for event in events for choice in event["choices"]]
    content = "".join(part.get("content") or "" for part in parts)
    return content, "".join(part.get("reasoning_content") or "" for part in parts)


def run_cell(server: Server, request: Request, connections: int, seconds: float) -> tuple[Load, float | None]:
    """One window, and the server's processor time for each request over warm-up and window."""
    before = processor_seconds(server.process.pid)
    load = uvloop.run(measure(server.port, request.wire(), connections, warmup=WARMUP, seconds=seconds))
    spent = processor_seconds(server.process.pid) - before
    served = load.rps * (WARMUP + seconds)
    return load, spent / served * 1e6 if served else None


def run_rounds(servers: dict[str, Server], args: argparse.Namespace, requests: list[str]) -> list[Result]:
    results = []
    for turn in range(args.rounds):
        order = list(servers)[:: -1 if turn % 2 else 1]
        for connections, kind, name in product(args.connections, requests, order):
            load, cpu = run_cell(servers[name], REQUESTS[kind], connections, args.seconds)
            results.append(Result(turn, name, kind, connections, load, cpu))
            if load.errors:
                raise SystemExit(f"{name} failed {load.errors} of {load.requests} {kind} requests")
        print(f"round {turn + 1} of {args.rounds} done", file=sys.stderr)
    return results


def middle(values: Iterable[float | None], digits: int) -> float | None:
    """The median of what there is; a window in which a busy machine stood still has no latency."""
    known = [value for value in values if value is not None]
    return round(median(known), digits) if known else None


def quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def summarize(results: list[Result]) -> list[dict[str, Any]]:
    """Medians over the rounds for each server, request and number of connections."""
    cells: dict[tuple[int, str, str], list[Result]] = {}
    for result in results:
        cells.setdefault((result.connections, result.request, result.server), []).append(result)
    rows = []
    for (connections, request, server), rounds in cells.items():
        pairs = list(zip(rounds, cells.get((connections, request, YARDSTICK), []), strict=False))
        rows.append(
            {
                "connections": connections,
                "request": request,
                "server": server,
                "rps": middle((r.load.rps for r in rounds), 1),
                "p50_ms": middle((r.load.p50 for r in rounds), 3),
                "p99_ms": middle((r.load.p99 for r in rounds), 3),
                "cpu_us": middle((r.cpu_us for r in rounds), 1),
                "ratio": middle((quotient(a.load.rps, b.load.rps) for a, b in pairs), 3),
                "cpu_ratio": middle((quotient(b.cpu_us, a.cpu_us) for a, b in pairs), 3),
            }
        )
    return rows


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("connections", "request", "server", title="medians over the rounds")
    for heading in ("requests/s", "p50 ms", "p99 ms", "CPU µs", f"of {YARDSTICK}", "by CPU"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = {"rps": 0, "p50_ms": 2, "p99_ms": 2, "cpu_us": 0, "ratio": 2, "cpu_ratio": 2}
        cells = [number(row[name], digits) for name, digits in figures.items()]
        table.add_row(str(row["connections"]), row["request"], row["server"], *cells)
    Console(width=120).print(table)
    for row in rows:
        target = TARGETS.get(row["request"])
        if row["server"].startswith("gateway") and row["connections"] == 32 and target and row["ratio"]:
            verdict = "met" if row["ratio"] >= target else "MISSED"
            where = f"{row['server']}, {row['request']}, 32 connections"
            print(f"{where}: {row['ratio']:.2f} of {YARDSTICK}, target {target}: {verdict}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=[*SERVERS, *REQUESTS],
        help="servers and kinds of request to measure",
    )
    parser.add_argument("--json", type=Path, help="write every round and the medians here")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    args = parse(argv)
    names = [name for name in SERVERS if name in args.only] or list(SERVERS)
    requests = [kind for kind in REQUESTS if kind in args.only] or list(REQUESTS)
    about = machine()
    first, second = cores()
    with ExitStack() as stack:
        stub = stack.enter_context(running("stub", second, ""))
        upstream = f"http://127.0.0.1:{stub.port}"
        vllm = f"http://127.0.0.1:{stack.enter_context(running('stub-vllm', second, '')).port}"
        servers = {}
        for name in names:
            behind = vllm if name == "gateway-vllm" else upstream
            servers[name] = stub if name == "stub" else stack.enter_context(running(name, first, behind))
            if name == "gateway-vllm":
                check(name, servers[name], TEACHING)
            for kind in requests:
                check(name, servers[name], REQUESTS[kind])
        stack.enter_context(pinned(second))
        results = run_rounds(servers, args, requests)
    rows = summarize(results)
    show(rows)
    if args.json:
        settings = {"seconds": args.seconds, "rounds": args.rounds, "targets": TARGETS}
        report = {
            "machine": about,
            "settings": settings,
            "medians": rows,
            "rounds": [asdict(r) for r in results],
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
