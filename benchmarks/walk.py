"""Count how often control crosses from file to file while the gateway answers one request.

A reader who follows a request opens a file at each crossing, so the count says how far the request walks.
The whole app runs in this process: a raw ASGI call goes in, and a scripted engine behind a real socket
answers. `sys.setprofile` sees every call. Four requests are counted:

    plain     no header: the gateway passes the reply on
    budget    X-Reasoning-Budget: high, which the gateway enforces itself
    streamed  the same as a stream
    vote      X-Samples: 3, majority, every sample drawn; the answers are 7, 7 and 8

The columns:

    calls      functions entered in files of gateway/, policies/ and scorers/
    crossings  those entered from another file of these packages
    borders    distinct pairs of functions (caller, callee) among the crossings
    files      distinct pairs of files among the crossings

A call is counted where a function starts; a coroutine or generator that resumes does not count again.
Where library code stands between two functions of ours, the crossing still counts. Generated code
(a dataclass's `__init__`) belongs to no file and does not count.

Two counts of one request are always equal. Work for threads runs inline, so that it is counted too. The
event loop's clock all but stands still, so that no timer fires. Each request is sent three times to warm
up and then measured twice; the script fails if the two counts differ.

    python -m benchmarks.walk --top 20
    python -m benchmarks.walk --root ../before --json before.json     # another checkout, or another commit
"""

from __future__ import annotations

import argparse
import asyncio
import dis
import gc
import inspect
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, cast

from rich.console import Console
from rich.table import Table

__all__ = ["Requests", "Walk", "main", "walks"]

PACKAGES = ("gateway", "policies", "scorers")
WARM_UP = 3
PAUSE = 20  # turns of the event loop between two events, so that none of them arrive together
THOUGHT = ("<think>", "3 + 4 ", "is ", "7.", "</think>")
ANSWERS = ("\\boxed{7}", "\\boxed{7}", "\\boxed{8}")
Requests = dict[str, tuple[dict[str, str], dict[str, Any]]]
REQUESTS: Requests = {
    "plain": ({}, {}),
    "budget": ({"X-Reasoning-Budget": "high"}, {}),
    "streamed": ({"X-Reasoning-Budget": "high"}, {"stream": True}),
    "vote": ({"X-Samples": "3", "X-Vote": "majority", "X-Stop": "none"}, {}),
}
App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
Border = tuple[str, str]


def reply_tokens(place: int) -> list[str]:
    """Return the pieces of the sample at this place."""
    return [*THOUGHT, "The answer is ", ANSWERS[place % len(ANSWERS)]]


def whole_reply(choices: int) -> dict[str, Any]:
    texts = ["".join(reply_tokens(place)) for place in range(choices)]
    return {
        "id": "up-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate(texts)
        ],
        "usage": usage(choices),
    }


def usage(choices: int) -> dict[str, int]:
    generated = sum(len(reply_tokens(place)) for place in range(choices))
    return {"prompt_tokens": 9, "completion_tokens": generated, "total_tokens": 9 + generated}


def streamed_reply(choices: int) -> list[bytes]:
    """Return the events of a streamed reply; the choices take turns, as in an engine's batch."""
    samples = [reply_tokens(place) for place in range(choices)]
    deltas = [
        (place, {"content": token}, None)
        for turn in zip(*samples, strict=True)
        for place, token in enumerate(turn)
    ]
    ends: list[tuple[int, dict[str, str], str | None]] = [(place, {}, "stop") for place in range(choices)]
    bodies: list[dict[str, Any]] = [
        {"choices": [{"index": place, "delta": delta, "finish_reason": finish}]}
        for place, delta, finish in [*deltas, *ends]
    ]
    bodies.append({"choices": [], "usage": usage(choices)})
    head = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    return [
        *(b"data: " + json.dumps({**head, **body}).encode() + b"\n\n" for body in bodies),
        b"data: [DONE]\n\n",
    ]


class ScriptedEngine(asyncio.Protocol):
    """One connection to an engine of an unknown kind with one model, `tiny`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, rest = self.received.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0].partition(b":")[2]) if lengths else 0
        if separator and len(rest) >= length:  # the gateway never sends a second request before the reply
            self.received = b""
            self.answer(head.split(b" ")[1].decode(), json.loads(rest) if rest else {})

    def answer(self, path: str, body: dict[str, Any]) -> None:
        if path == "/v1/models":
            self.send_json("200 OK", {"object": "list", "data": [{"id": "tiny", "owned_by": "someone"}]})
        elif path != "/v1/chat/completions":
            self.send_json("404 Not Found", {"detail": "Not Found"})
        elif body.get("stream"):
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self.send_events(streamed_reply(body.get("n") or 1), PAUSE)
        else:
            self.send_json("200 OK", whole_reply(body.get("n") or 1))

    def send_json(self, status: str, body: Any) -> None:
        payload = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
        )
        self.transport.write(head.encode() + payload)

    def send_events(self, events: list[bytes], turns: int) -> None:
        """Send one event after so many turns of the loop, then the next."""
        if turns:
            asyncio.get_running_loop().call_soon(self.send_events, events, turns - 1)
            return
        block = events[0] if events else b""
        self.transport.write(b"%x\r\n%s\r\n" % (len(block), block))
        if events and not self.transport.is_closing():
            self.send_events(events[1:], PAUSE)


class InlineExecutor(ThreadPoolExecutor):
    """An executor that runs its work at once, in the calling thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as the executor it stands in for
            future.set_exception(error)
        return future


class SlowClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves by a microsecond with each reading: no timer fires by chance."""

    readings = 0

    def time(self) -> float:
        self.readings += 1
        return self.readings / 1e6


@dataclass
class Walk:
    """The calls of one request; `saw` is the profile function that counts them."""

    root: str
    calls: int = 0
    crossings: Counter[Border] = field(default_factory=Counter)
    _files: dict[str, str] = field(default_factory=dict)

    def saw(self, frame: FrameType, event: str, _: object) -> None:
        """Count a function that starts in one of the packages."""
        if event != "call" or not (file := self._file(frame.f_code)) or resumes(frame):
            return
        self.calls += 1
        caller = frame.f_back
        while caller is not None and not self._file(caller.f_code):
            caller = caller.f_back
        if caller is not None and (origin := self._file(caller.f_code)) != file:
            names = caller.f_code.co_qualname, frame.f_code.co_qualname
            self.crossings[f"{origin} {names[0]}", f"{file} {names[1]}"] += 1

    def _file(self, code: CodeType) -> str:
        """Return the file's path below the root, or an empty string outside the packages."""
        name = code.co_filename
        if (file := self._files.get(name)) is None:
            file = name.removeprefix(f"{self.root}/") if name.startswith(f"{self.root}/") else ""
            self._files[name] = file = file if file.partition("/")[0] in PACKAGES else ""
        return file

    @property
    def figures(self) -> dict[str, int]:
        """The row of the table, by column."""
        files = {(a.partition(" ")[0], b.partition(" ")[0]) for a, b in self.crossings}
        return {
            "calls": self.calls,
            "crossings": self.crossings.total(),
            "borders": len(self.crossings),
            "files": len(files),
        }


def resumes(frame: FrameType) -> bool:
    """Tell whether a generator or coroutine resumes here rather than begins."""
    suspends = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    if not frame.f_code.co_flags & suspends:
        return False
    return frame.f_lasti > start(frame.f_code)


@cache
def start(code: CodeType) -> int:
    """Return the offset at which the body of a generator or coroutine begins."""
    return next(
        instruction.offset for instruction in dis.get_instructions(code) if instruction.opname == "RESUME"
    )


async def ask(app: App, headers: dict[str, str], fields: dict[str, Any]) -> None:
    """Send one request; raise `SystemExit` if the reply is not a 200."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "What is 3 + 4?"}], **fields}
    payload = json.dumps(body).encode()
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()  # empty after the request: the client stays
    inbox.put_nowait({"type": "http.request", "body": payload, "more_body": False})
    replies: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        replies.append(message)

    sent = {
        "Host": "gateway",
        "Content-Type": "application/json",
        "Content-Length": str(len(payload)),
        **headers,
    }
    path = "/v1/chat/completions"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, inbox.get, send)
    if replies[0]["status"] != 200:
        raise SystemExit(f"the gateway answered {replies[0]['status']} to {headers}: {replies[1]['body']!r}")


async def measure(root: str, app: App, headers: dict[str, str], fields: dict[str, Any]) -> Walk:
    walk = Walk(root)
    gc.collect()
    gc.disable()  # a finalizer that runs by chance would be counted
    sys.setprofile(walk.saw)
    try:
        await ask(app, headers, fields)
    finally:
        sys.setprofile(None)
        gc.enable()
    return walk


async def walks(root: Path, requests: Requests) -> dict[str, Walk]:
    """Return the walk of each request through the gateway of a checkout."""
    sys.path.insert(0, str(root))
    import gateway
    from gateway.app import create_app
    from gateway.config import Settings

    if not str(gateway.__file__).startswith(f"{root}/"):
        raise SystemExit(f"gateway comes from {gateway.__file__}, not from {root}")
    loop = asyncio.get_running_loop()
    loop.set_default_executor(InlineExecutor())
    server = await loop.create_server(ScriptedEngine, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    app = create_app(Settings.model_validate({"upstream": f"http://127.0.0.1:{port}/v1"}))
    taken = {}
    async with app.router.lifespan_context(app):
        for name, (headers, fields) in requests.items():
            for _ in range(WARM_UP):
                await ask(app, headers, fields)
            first, second = [await measure(str(root), app, headers, fields) for _ in range(2)]
            if (first.calls, first.crossings) != (second.calls, second.crossings):
                raise SystemExit(f"{name}: two counts differ: {first.figures} and {second.figures}")
            taken[name] = second
    server.close()
    return taken


def show(taken: dict[str, Walk], top: int) -> None:
    table = Table("request", title="calls of one request, and those that cross files")
    for heading in ("calls", "crossings", "borders", "files"):
        table.add_column(heading, justify="right")
    for name, walk in taken.items():
        table.add_row(name, *map(str, walk.figures.values()))
    Console(width=100).print(table)
    for name, walk in taken.items() if top else ():
        print(f"\n{name}, the {top} heaviest borders:")
        for (caller, callee), count in heaviest(walk)[:top]:
            print(f"{count:5}  {caller} -> {callee}")


def heaviest(walk: Walk) -> list[tuple[Border, int]]:
    """Return the borders by their crossings, most first; equal ones in the order of their names."""
    return sorted(walk.crossings.items(), key=lambda item: (-item[1], item[0]))


def main(argv: list[str] | None = None) -> None:
    """Count, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.walk", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="checkout to measure")
    parser.add_argument(
        "--only", nargs="+", choices=REQUESTS, default=list(REQUESTS), help="requests to send"
    )
    parser.add_argument("--top", type=int, default=0, metavar="N", help="also print the N heaviest borders")
    parser.add_argument("--json", type=Path, help="write the figures and every border here")
    args = parser.parse_args(argv)
    requests = {name: REQUESTS[name] for name in args.only}
    with asyncio.Runner(loop_factory=SlowClockLoop) as runner:
        taken = runner.run(walks(args.root.resolve(), requests))
    show(taken, args.top)
    if args.json:
        report = {
            name: {**walk.figures, "by_border": [[*border, count] for border, count in heaviest(walk)]}
            for name, walk in taken.items()
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
