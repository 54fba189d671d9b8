"""The `thinkgate` command."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import os
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gateway.config import ConfigError, Settings, load_settings

__all__ = ["main"]

_COMMANDS = ("gateway.demo", "gateway.commands.replay", "gateway.commands.training", "gateway.commands.keys")
"""Modules of further subcommands: each has `add_parser(subparsers)`, whose parser sets `run`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status.

    Without a subcommand, print the help to stderr and return 2, as for any wrong command line.
    """
    parser = argparse.ArgumentParser(
        prog="thinkgate", description="Spends inference-time compute on purpose."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    parser.set_defaults(run=None)
    subparsers = parser.add_subparsers(metavar="COMMAND")
    serve = subparsers.add_parser("serve", help="run the gateway")
    serve.add_argument("--host", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (8000)")
    serve.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    serve.set_defaults(run=_serve)
    for name in _COMMANDS:
        importlib.import_module(name).add_parser(subparsers)
    chosen = parser.parse_args(arguments)
    if chosen.run is None:
        parser.print_help(sys.stderr)
        return 2
    status: int = chosen.run(chosen)
    return status


def _version() -> str:
    """Return the version that is installed; a checkout that runs uninstalled has none."""
    try:
        return version("thinkgate")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _serve(arguments: argparse.Namespace) -> int:
    try:
        return run_server(load_settings(arguments.config, host=arguments.host, port=arguments.port))
    except ConfigError as error:
        print(f"thinkgate: {error}", file=sys.stderr)
        return 2


def calm_collector() -> None:
    """Has the garbage collector leave alone what is loaded by now, and run less often.

    Its passes over the modules' many objects were a quarter of the work at 32 connections
    and the worst of the delays (benchmarks/overhead.py); requests leave few cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def yield_soon() -> None:
    """Has a computing thread hand the interpreter to the event loop after 0.1 ms instead of 5.

    Otherwise each wake of the loop waits that long while a hostile answer is read in a
    thread (benchmarks/grader.py).
    """
    sys.setswitchinterval(0.0001)


def run_server(settings: Settings) -> int:
    """Serves until it is told to stop; the exit status is 1 where it can't start."""
    import uvicorn

    from gateway.app import create_app, make_recorder, make_upstream
    from gateway.recordings.writer import RecorderFailed
    from gateway.upstreams.embedded.engine import EngineFailed
    from gateway.upstreams.embedded.model_store import ModelUnavailable

    try:
        listener = socket.create_server((settings.host, settings.port), backlog=2048)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        print(f"thinkgate: can't listen on {where}: {os.strerror(error.errno or 0)}.", file=sys.stderr)
        return 1
    upstream, recorder = make_upstream(settings), make_recorder(settings)
    try:
        app = create_app(settings, upstream, recorder)
    except ConfigError:
        listener.close()
        raise
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="on")

    async def serve() -> int:
        try:
            if recorder is not None:
                recorder.start()
            await upstream.start()  # both ahead of the app's own start, which then finds them running
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
    except KeyboardInterrupt:  # uvicorn has ended in good order and then hands the signal on
        return 0
