"""Measure what the gateway costs: requests per second and latency, against a minimal pass-through.

One core runs the server under test, the other the stub upstream and the load generator. Every server starts
once. All are measured in turn within each round, so that other work on the machine affects all alike; every
other round runs in reverse. Results are medians over the rounds. Ratios are medians of each round's ratio to
the baseline ("bare"). CPU is the server's processor time per request, which a busy machine disturbs least;
"by CPU" is the baseline's processor time divided by the server's.

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
BASELINE = "bare"
WARMUP = 0.3  # seconds before each window
TARGETS = {"plain": 0.7, "budget": 0.5}  # minimum ratio to the baseline at 32 connections


@dataclass(frozen=True, slots=True)
class Request:
    """One kind of request; `thinks` says whether its reply has a `<think>` block."""

    body: dict[str, Any]
    headers: dict[str, str]
    thinks: bool

    def wire(self) -> bytes:
        return request_bytes(PATH, orjson.dumps(self.body), self.headers)


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement of one round; `cpu_us` is the server's processor time per request, in microseconds."""

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


# One request that reaches its limit shows the gateway that this engine enforces limits itself.
LIMIT_PROOF = Request(chat(THINKING), {"X-Reasoning-Budget": "16"}, thinks=True)


def check(name: str, server: Server, request: Request) -> None:
    """Send one request and check its reply, so that no window counts wrong replies.

    The answer must be there; from the gateway, it must not contain the thinking.
    """
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
    """Return whether content is the answer alone, and reasoning is the thinking or its beginning."""
    return content.strip() == ANSWER and bool(reasoning) and THOUGHT.startswith(reasoning.strip())


def contents(text: str, *, streamed: bool) -> tuple[str, str]:
    """Return content and reasoning of a reply."""
    if not streamed:
        parts = [json.loads(text)["choices"][0]["message"]]
    else:
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        parts = [choice["delta"] for event in events for choice in event["choices"]]
    content = "".join(part.get("content") or "" for part in parts)
    return content, "".join(part.get("reasoning_content") or "" for part in parts)


def run_cell(server: Server, request: Request, connections: int, seconds: float) -> tuple[Load, float | None]:
    """Measure one window, and the server's processor time per request over warm-up and window."""
    before = processor_seconds(server.process.pid)
    load = uvloop.run(measure(server.port, request.wire(), connections, warmup=WARMUP, seconds=seconds))
    cpu_seconds = processor_seconds(server.process.pid) - before
    requests = load.rps * (WARMUP + seconds)
    return load, cpu_seconds / requests * 1e6 if requests else None


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


def median_of(values: Iterable[float | None], digits: int) -> float | None:
    """Return the median of the known values; a window without enough replies has no latency."""
    known = [value for value in values if value is not None]
    return round(median(known), digits) if known else None


def quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def summarize(results: list[Result]) -> list[dict[str, Any]]:
    """Return medians over the rounds for each server, request and number of connections."""
    cells: dict[tuple[int, str, str], list[Result]] = {}
    for result in results:
        cells.setdefault((result.connections, result.request, result.server), []).append(result)
    medians = []
    for (connections, request, server), rounds in cells.items():
        pairs = list(zip(rounds, cells.get((connections, request, BASELINE), []), strict=False))
        medians.append(
            {
                "connections": connections,
                "request": request,
                "server": server,
                "rps": median_of((r.load.rps for r in rounds), 1),
                "p50_ms": median_of((r.load.p50 for r in rounds), 3),
                "p99_ms": median_of((r.load.p99 for r in rounds), 3),
                "cpu_us": median_of((r.cpu_us for r in rounds), 1),
                "ratio": median_of((quotient(a.load.rps, b.load.rps) for a, b in pairs), 3),
                "cpu_ratio": median_of((quotient(b.cpu_us, a.cpu_us) for a, b in pairs), 3),
            }
        )
    return medians


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def show(medians: list[dict[str, Any]]) -> None:
    table = Table("connections", "request", "server", title="medians over the rounds")
    for heading in ("requests/s", "p50 ms", "p99 ms", "CPU µs", f"of {BASELINE}", "by CPU"):
        table.add_column(heading, justify="right")
    for cell in medians:
        digits = {"rps": 0, "p50_ms": 2, "p99_ms": 2, "cpu_us": 0, "ratio": 2, "cpu_ratio": 2}
        cells = [number(cell[name], places) for name, places in digits.items()]
        table.add_row(str(cell["connections"]), cell["request"], cell["server"], *cells)
    Console(width=120).print(table)
    for cell in medians:
        target = TARGETS.get(cell["request"])
        if cell["server"].startswith("gateway") and cell["connections"] == 32 and target and cell["ratio"]:
            outcome = "met" if cell["ratio"] >= target else "MISSED"
            measured = f"{cell['server']}, {cell['request']}, 32 connections"
            print(f"{measured}: {cell['ratio']:.2f} of {BASELINE}, target {target}: {outcome}")


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
    parser.add_argument("--json", type=Path, help="write all rounds and their medians here")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    args = parse(argv)
    names = [name for name in SERVERS if name in args.only] or list(SERVERS)
    requests = [kind for kind in REQUESTS if kind in args.only] or list(REQUESTS)
    environment = machine()
    first, second = cores()
    with ExitStack() as stack:
        stub = stack.enter_context(running("stub", second, ""))
        upstream = f"http://127.0.0.1:{stub.port}"
        vllm = f"http://127.0.0.1:{stack.enter_context(running('stub-vllm', second, '')).port}"
        servers = {}
        for name in names:
            engine = vllm if name == "gateway-vllm" else upstream
            servers[name] = stub if name == "stub" else stack.enter_context(running(name, first, engine))
            if name == "gateway-vllm":
                check(name, servers[name], LIMIT_PROOF)
            for kind in requests:
                check(name, servers[name], REQUESTS[kind])
        stack.enter_context(pinned(second))
        results = run_rounds(servers, args, requests)
    medians = summarize(results)
    show(medians)
    if args.json:
        settings = {"seconds": args.seconds, "rounds": args.rounds, "targets": TARGETS}
        report = {
            "machine": environment,
            "settings": settings,
            "medians": medians,
            "rounds": [asdict(result) for result in results],
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
