"""The gateway in a thread of its own, while the demo is its client."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from gateway.app import create_app, make_upstream
from gateway.config import ConfigError, Settings
from gateway.demo.client import DemoFailed
from gateway.upstreams.base import Upstream
from gateway.upstreams.embedded.engine import EngineFailed
from gateway.upstreams.embedded.model_store import ModelUnavailable

__all__ = ["Gateway", "listen", "serving"]


def listen(settings: Settings) -> socket.socket:
    """Return the socket to serve on. Raises `DemoFailed` if it can't be opened, as when the port is taken."""
    try:
        return socket.create_server((settings.host, settings.port), backlog=2048)
    except OSError as error:
        address, reason = f"{settings.host}:{settings.port}", os.strerror(error.errno or 0)
        raise DemoFailed(
            f"ThinkGate can't listen on {address}: {reason}; choose another port with --port."
        ) from error


class Gateway(threading.Thread):
    """A thread that serves the app until `stop`; `wait_until_up` waits for its first moment."""

    def __init__(self, settings: Settings, listener: socket.socket, upstream: Upstream | None = None) -> None:
        super().__init__(name="gateway", daemon=True)
        self._settings = settings
        self._listener = listener
        self._upstream = upstream
        self._settled = threading.Event()
        self._failure: Exception | None = None
        self._server: _Server | None = None

    def wait_until_up(self) -> None:
        """Return once the gateway serves requests. Raises `DemoFailed` if it can't start."""
        self._settled.wait()
        if self._failure is not None:
            raise DemoFailed(str(self._failure)) from self._failure

    def stop(self) -> None:
        """Stop serving, and wait until the engine has ended too."""
        if self._server is not None:
            self._server.should_exit = True
        self.join()

    def run(self) -> None:
        """Serve in this thread's own event loop."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        upstream = self._upstream or make_upstream(self._settings)
        try:
            app = create_app(self._settings, upstream)
            # The app would start it too, but could not report a failure in one sentence.
            await upstream.start()
        except (ConfigError, ModelUnavailable, EngineFailed) as error:
            self._failure = error
            self._settled.set()
            return
        config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=3)
        self._server = _Server(config, self._settled)
        await self._server.serve(sockets=[self._listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, up: threading.Event) -> None:
        super().__init__(config)
        self._up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up.set()


@contextmanager
def serving(settings: Settings, listener: socket.socket) -> Iterator[Gateway]:
    """Run a gateway until the block ends. Raises `DemoFailed`."""
    gateway = Gateway(settings, listener)
    gateway.start()
    try:
        gateway.wait_until_up()
        yield gateway
    finally:
        gateway.stop()
