"""The gateway behind a real socket, for clients that are not ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from gateway.app import create_app
from gateway.backends.base import Backend
from gateway.config import Settings

__all__ = ["serving"]


class _Server(uvicorn.Server):
    """Says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def serving(backend: Backend | None = None, **settings: Any) -> AsyncIterator[str]:
    """The app on a loopback port; gives its address, without `/v1`."""
    app = create_app(Settings(**settings), backend)
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="on", ws="none")
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(30):
                await server.up.wait()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
