"""A request's events -> bytes on the wire, for as long as the client is there to read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.dialects.base import Writer
from gateway.errors import GatewayError, internal_error
from gateway.runs.events import Delta, Event, Finished, Progress, RunResult

__all__ = ["ClientGone", "EventStream", "HangUpWatch", "fold", "json_response", "write"]

T = TypeVar("T")


class ClientGone(Exception):
    """The client hung up before its answer was complete."""


async def fold(events: AsyncGenerator[Event, None]) -> RunResult:
    """Runs a request to its end for a client that wants it in one piece."""
    async with aclosing(events):
        async for happened in events:
            if isinstance(happened, Finished):
                return happened.result
    raise AssertionError("a run ends with Finished")


async def write(
    events: AsyncGenerator[Event, None],
    writer: Writer,
    ended: Callable[[RunResult | int], None],
) -> AsyncGenerator[bytes, None]:
    """Runs a request and writes what happens; an error after the first bytes becomes the writer's.

    `ended` is told the result, or the status of what went wrong after the first bytes.
    Raises what goes wrong before anything was written, so that it can have its true status.
    """
    begun = False
    async with aclosing(events):
        try:
            async for happened in events:
                if isinstance(happened, Delta):
                    block = writer.delta(happened)
                elif isinstance(happened, Progress):
                    block = writer.progress(happened)
                else:
                    ended(happened.result)
                    block = writer.finish(happened.result)
                if block:
                    begun = True
                    yield block
        except GatewayError as error:
            if not begun:
                raise
            ended(error.status)
            yield writer.error(error)
        except Exception as error:
            if begun:
                ended(500)
                yield writer.error(internal_error(error))
            raise


class HangUpWatch:
    """Within it, a client that hangs up cancels what is awaited; leaving it raises `ClientGone` then.

    The watch itself begins after `grace` seconds, so that the many replies that are there
    by then pay nothing for it.
    """

    __slots__ = ("_gone", "_receive", "_task", "_timer", "_watcher", "grace")

    def __init__(self, receive: Receive, grace: float = 0.02) -> None:
        self.grace = grace
        self._receive = receive
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        """Begins the watch."""
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(self.grace, self._begin)

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Ends the watch."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and kind is asyncio.CancelledError and self._task and self._task.uncancel() == 0:
            raise ClientGone from None

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()


class EventStream(Response):
    """Server-sent events whose status waits for the first of them.

    Unlike Starlette's own streaming response it closes its source as soon as the client
    hangs up, also while it waits for the next event.
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
        """Sends until the source ends or the client is gone."""
        try:
            async with aclosing(self._source), HangUpWatch(receive):
                start: Message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
                await self._send(send, self._first)
                async for block in self._source:
                    await self._send(send, block)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ClientGone, OSError):
            return
        finally:
            self._after()

    @staticmethod
    async def _send(send: Callable[[Message], Awaitable[None]], block: bytes) -> None:
        await send({"type": "http.response.body", "body": block, "more_body": True})


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON reply."""
    return Response(orjson.dumps(body), status, headers, "application/json")
