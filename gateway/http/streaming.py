"""Writes a run's events as bytes, and stops the run when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.dialects.base import Writer
from gateway.errors import GatewayError, internal_error
from gateway.runs.events import Aside, Delta, Event, Progress, RunResult

__all__ = ["ClientGone", "DisconnectWatch", "EventStream", "json_response", "write"]


class ClientGone(Exception):
    """The client disconnected before its answer was complete."""


async def write(
    events: AsyncGenerator[Event, None],
    writer: Writer,
    on_end: Callable[[RunResult | int], None],
) -> AsyncGenerator[bytes, None]:
    """Yield a run's events as bytes; the writer turns an error after the first bytes into an event.

    `on_end` receives the result, or the status of a failure after the first bytes. A failure before anything
    was written is raised, so that it can have its true status.
    """
    started = False
    async with aclosing(events):
        try:
            async for event in events:
                if isinstance(event, Delta):
                    block = writer.delta(event)
                elif isinstance(event, Progress):
                    block = writer.progress(event)
                elif isinstance(event, Aside):
                    block = writer.aside(event)
                else:
                    on_end(event.result)
                    block = writer.finish(event.result)
                if block:
                    started = True
                    yield block
        except GatewayError as error:
            if not started:
                raise
            on_end(error.status)
            yield writer.error(error)
        except Exception as error:
            if started:
                on_end(500)
                yield writer.error(internal_error(error))
            raise


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


class EventStream(Response):
    """Server-sent events; the status waits for the first of them.

    Unlike Starlette's own streaming response, it closes its source as soon as the client disconnects, even
    while it waits for the next event.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        first: bytes,
        headers: dict[str, str],
        after: Callable[[], Any],
    ) -> None:
        super().__init__(None, headers={**headers, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._source = source
        self._first = first
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the source ends or the client is gone."""
        try:
            async with aclosing(self._source), DisconnectWatch(receive):
                start: Message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
                await send({"type": "http.response.body", "body": self._first, "more_body": True})
                async for block in self._source:
                    await send({"type": "http.response.body", "body": block, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ClientGone, OSError):
            return
        finally:
            self._after()


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON reply."""
    return Response(orjson.dumps(body), status, headers, "application/json")
