"""Writes a run's events as bytes, keeps the client's connection alive, and stops the run when it hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.dialects.base import Writer
from gateway.errors import GatewayError, internal_error
from gateway.http.bugs import log_bug
from gateway.runs.events import Aside, Delta, Event, Progress, RunResult

__all__ = [
    "CLIENT_CLOSED_REQUEST",
    "ClientGone",
    "DisconnectWatch",
    "EventStream",
    "json_response",
    "sendable",
    "write",
]

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that disconnected; only ever seen in the metrics
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


class ClientGone(Exception):
    """The client disconnected before its answer was complete."""


async def write(
    events: AsyncGenerator[Event, None], writer: Writer, on_result: Callable[[RunResult], None]
) -> AsyncGenerator[bytes, None]:
    """Yield a run's events as bytes; `on_result` receives its result. Raises the run's error."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Delta):
                block = writer.delta(event)
            elif isinstance(event, Progress):
                block = writer.progress(event)
            elif isinstance(event, Aside):
                block = writer.aside(event)
            else:
                on_result(event.result)
                block = writer.finish(event.result)
            if block:
                yield block


@dataclass(slots=True)
class DisconnectWatch:
    """A context that is cancelled when the client disconnects, and then raises `ClientGone`.

    The watch itself begins after `grace` seconds, so that it costs nothing for the many replies that are
    ready by then.
    """

    receive: Receive
    grace: float = 0.02
    _disconnected: bool = field(default=False, init=False)
    _task: asyncio.Task[Any] | None = field(default=None, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _watcher: asyncio.Task[None] | None = field(default=None, init=False)

    async def __aenter__(self) -> None:
        """Begin the watch."""
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(self.grace, self._begin)

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """End the watch."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if (
            self._disconnected
            and kind is asyncio.CancelledError
            and self._task
            and self._task.uncancel() == 0
        ):
            raise ClientGone from None

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self._disconnected = True
        if self._task is not None:
            self._task.cancel()


class _Pulse:
    """Sends the blocks of one stream, and a sign of life after each silence of `period` seconds.

    The status goes out with the first of either. One timer serves the whole stream: it goes off once a
    period, and then waits for what is left of the present silence. A block that a slow reader holds up is no
    silence.
    """

    __slots__ = (
        "_beat_task",
        "_block",
        "_heartbeat",
        "_loop",
        "_period",
        "_quiet_since",
        "_send",
        "_sending",
        "_start",
        "_timer",
        "started",
    )

    def __init__(
        self, send: Send, start: Callable[[], Message], period: float, heartbeat: Callable[[], bytes]
    ) -> None:
        self.started = False
        self._send = send
        self._start = start
        self._period = period
        self._heartbeat = heartbeat
        self._loop = asyncio.get_running_loop()
        self._sending = False
        self._block = b""
        self._beat_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        """Begin to count the silence."""
        self._quiet_since = self._loop.time()
        self._timer = self._loop.call_later(self._period, self._tick)

    async def __aexit__(self, *_: object) -> None:
        """Send no more signs of life."""
        self._timer.cancel()
        if self._beat_task is not None:
            self._beat_task.cancel()

    async def send(self, block: bytes, *, more: bool = True) -> None:
        """Send a block; `more` says whether others follow. Raises `ClientGone`, or a bug of the last beat."""
        if (beat_task := self._beat_task) is not None:
            self._beat_task = None
            await beat_task
        self._sending = True
        if self.started:  # as in `_transmit`, which would cost each block one call more
            try:
                await self._send({"type": "http.response.body", "body": block, "more_body": more})
            except OSError:
                raise ClientGone from None
        else:
            await self._transmit(block, more=more)
        self._block = block
        self._sending = not more
        self._quiet_since = self._loop.time()

    async def _transmit(self, block: bytes, *, more: bool) -> None:
        try:
            if not self.started:
                self.started = True
                await self._send(self._start())
            await self._send({"type": "http.response.body", "body": block, "more_body": more})
        except OSError:
            raise ClientGone from None

    def _tick(self) -> None:
        now = self._loop.time()
        due = now + self._period if self._sending else self._quiet_since + self._period
        if now < due:
            self._timer = self._loop.call_at(due, self._tick)
        else:
            self._beat_task = self._loop.create_task(self._beat())

    async def _beat(self) -> None:
        """Send a sign of life, unless the last block ended in the middle of an event."""
        try:
            if not self._block or self._block.endswith(_EVENT_ENDS):
                await self._transmit(self._heartbeat(), more=True)
        except ClientGone:
            pass  # the watch of the connection says so too
        self._beat_task = None  # a beat that failed stays, and one that was cancelled is the last
        self._quiet_since = self._loop.time()
        self._timer = self._loop.call_later(self._period, self._tick)


class EventStream(Response):
    """Server-sent events; the status waits for the first of them, or for the first sign of life.

    Unlike Starlette's own streaming response, it closes its source as soon as the client disconnects, even
    while it waits for the next event. It reads no further while the client is slow to read.

    - `headers` are read when the status goes out: those of the upstream are known only then.
    - `period` is the longest silence in seconds; `heartbeat` returns a sign of life.
    - `explain` says an error of the source in the client's terms. An error before the status is raised, so
      that it can have its true status; after it, `fail` returns the event that ends the stream.
    - `on_end` receives the status in which the stream ended.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        *,
        period: float,
        heartbeat: Callable[[], bytes],
        explain: Callable[[GatewayError], GatewayError],
        fail: Callable[[GatewayError], bytes],
        on_end: Callable[[int], None],
    ) -> None:
        super().__init__(None, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._late_headers = headers
        self._source = source
        self._period = period
        self._heartbeat = heartbeat
        self._explain = explain
        self._fail = fail
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the source ends or the client is gone."""
        pulse = _Pulse(send, self._start_message, self._period, self._heartbeat)
        status = CLIENT_CLOSED_REQUEST
        try:
            async with aclosing(self._source), DisconnectWatch(receive), pulse:
                try:
                    async for block in self._source:
                        await pulse.send(block)
                    await pulse.send(b"", more=False)
                    status = 200
                except GatewayError as error:
                    failure = self._explain(error)
                    status = failure.status
                    if not pulse.started:
                        raise failure from error.__cause__
                    await pulse.send(self._fail(failure), more=False)
                except ClientGone:
                    raise
                except Exception as error:
                    status = 500
                    if not pulse.started:
                        raise
                    log_bug(scope, error)
                    await pulse.send(self._fail(internal_error(error)), more=False)
        except ClientGone:
            return
        finally:
            self._on_end(status)

    def _start_message(self) -> Message:
        self.headers.update(sendable(self._late_headers))
        return {"type": "http.response.start", "status": 200, "headers": self.raw_headers}


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON reply."""
    return Response(orjson.dumps(body), status, headers, "application/json")


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Return an upstream's headers without those that can't be sent on as they are."""
    texts = {name: name + value for name, value in headers.items()}
    return {name: headers[name] for name, text in texts.items() if text.isascii() and text.isprintable()}
