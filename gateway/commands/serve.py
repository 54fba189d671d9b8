"""`thinkgate serve`: run the gateway until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import socket
import sys
from pathlib import Path
from typing import Any

from gateway.config import ConfigError, Settings, load_settings

__all__ = ["add_parser", "calm_collector", "run_server", "yield_soon"]


def add_parser(subparsers: Any) -> None:
    """Add `serve` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("serve", help="run the gateway")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: 8000; 0: any free port)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        return run_server(load_settings(arguments.config, host=arguments.host, port=arguments.port))
    except ConfigError as error:
        print(f"thinkgate: {error}", file=sys.stderr)
        return 2


def run_server(settings: Settings) -> int:
    """Serve until a signal ends the process. Return the exit status: 1 if the gateway can't start."""
    import uvicorn

    from gateway.app import create_app, make_recorder, make_upstream
    from gateway.recordings.writer import RecorderFailed
    from gateway.upstreams.embedded.engine import EngineFailed
    from gateway.upstreams.embedded.model_store import ModelUnavailable

    try:
        listener = socket.create_server((settings.host, settings.port), backlog=2048)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        print(f"thinkgate: can't listen on {address}: {os.strerror(error.errno or 0)}.", file=sys.stderr)
        return 1
    upstream, recorder = make_upstream(settings), make_recorder(settings)
    try:
        app = create_app(settings, upstream, recorder)
    except ConfigError:
        listener.close()
        raise
    # Clients keep idle connections for up to a minute; one that the server closes first costs a request.
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="on", timeout_keep_alive=75)

    async def serve() -> int:
        # Both start before the app does, so that a failure is one sentence; the app then finds them running.
        try:
            if recorder is not None:
                recorder.start()
            await upstream.start()
        except (EngineFailed, ModelUnavailable, RecorderFailed) as error:
            print(f"thinkgate: {error}", file=sys.stderr)
            return 1
        calm_collector()
        yield_soon()
        server = uvicorn.Server(config)
        print(f"ThinkGate on http://{settings.host}:{listener.getsockname()[1]}/v1", flush=True)
        await server.serve(sockets=[listener])
        return 0 if server.started else 1

    try:
        with listener, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            return runner.run(serve())
    except KeyboardInterrupt:  # uvicorn has shut down in good order and then passes the signal on
        return 0


def calm_collector() -> None:
    """Make the garbage collector ignore the objects that are loaded by now, and run less often.

    Its passes over the modules' many objects were a quarter of the work at 32 connections
    and caused the worst delays (benchmarks/overhead.py); requests leave few cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def yield_soon() -> None:
    """Make a computing thread hand the interpreter to the event loop after 0.1 ms instead of 5.

    Otherwise each wake of the loop waits that long while a thread reads a hostile answer
    (benchmarks/grader.py).
    """
    sys.setswitchinterval(0.0001)
