"""A job's events -> bytes on the wire, for as long as the client is there to read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.backends.sse import event
from gateway.errors import GatewayError
from gateway.events import Delta, Event, Finished, Outcome, Progress

__all__ = ["ClientGone", "EventStream", "Writer", "fold", "hang_up_watch", "json_response", "write"]

T = TypeVar("T")


class ClientGone(Exception):
    """The client hung up before its answer was complete."""


class Writer(Protocol):
    """A dialect's way of writing events; see `gateway.dialects.chat.ChatStream`."""

    def delta(self, delta: Delta) -> bytes:
        """New text of a sample; may be empty."""
        ...

    def progress(self, progress: Progress) -> bytes:
        """How a vote stands."""
        ...

    def finish(self, outcome: Outcome) -> bytes:
        """All that is left, the end included."""
        ...


async def fold(events: AsyncGenerator[Event, None]) -> Outcome:
    """Runs a job to its end for a client that wants it in one piece."""
    async with aclosing(events):
        async for happened in events:
            if isinstance(happened, Finished):
                return happened.outcome
    raise AssertionError("a run ends with Finished")


async def write(
    events: AsyncGenerator[Event, None], writer: Writer, ended: Callable[[Outcome], None]
) -> AsyncGenerator[bytes, None]:
    """Runs a job and writes what happens; an error after the first bytes becomes an `error` event.

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
                    ended(happened.outcome)
                    block = writer.finish(happened.outcome)
                if block:
                    begun = True
                    yield block
        except GatewayError as error:
            if not begun:
                raise
            yield event(orjson.dumps(error.body()))


@asynccontextmanager
async def hang_up_watch(receive: Receive) -> AsyncIterator[None]:
    """Within it, a client that hangs up cancels what is awaited. Raises `ClientGone` then."""
    task = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task is not None:
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task is None or task.uncancel() > 0:
            raise
        raise ClientGone from None
    finally:
        watcher.cancel()


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
            async with aclosing(self._source), hang_up_watch(receive):
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
