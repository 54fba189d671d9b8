"""Real servers on loopback ports, for tests that depend on the connection itself."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from tests.fakes import until

__all__ = ["events_of", "serving", "serving_in_thread"]


def _server(app: FastAPI) -> tuple[uvicorn.Server, socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="on", ws="none", timeout_graceful_shutdown=5)
    return uvicorn.Server(config), listener


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve the app with a real server in this event loop; yield its base URL."""
    server, listener = _server(app)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or task.done(), "the server's start")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@contextmanager
def serving_in_thread(app: FastAPI) -> Iterator[str]:
    """Serve the app with a real server in its own thread, for all tests of a session; yield its base URL."""
    server, listener = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.02)
        assert server.started, "the server did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def events_of(text: str) -> list[dict[str, Any]]:
    """Return a stream's JSON payloads, without comments; `[DONE]` may only come last."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    payloads = [block.removeprefix("data: ") for block in blocks]
    assert "[DONE]" not in payloads[:-1]
    return [json.loads(payload) for payload in payloads if payload != "[DONE]"]
