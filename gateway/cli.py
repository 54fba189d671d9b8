"""The `thinkgate` command."""

from __future__ import annotations

import argparse
import importlib
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.config import ConfigError, Settings, load_settings

__all__ = ["main"]

_COMMANDS = ("gateway.demo", "gateway.replay_command")
"""Modules of further subcommands: each has `add_parser(subparsers)`, whose parser sets `run`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="thinkgate", description="Spends inference-time compute on purpose."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = subparsers.add_parser("serve", help="run the gateway")
    serve.add_argument("--host", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (8000)")
    serve.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    serve.set_defaults(run=_serve)
    for name in _COMMANDS:
        importlib.import_module(name).add_parser(subparsers)
    chosen = parser.parse_args(arguments)
    status: int = chosen.run(chosen)
    return status


def _serve(arguments: argparse.Namespace) -> int:
    try:
        settings = load_settings(arguments.config, host=arguments.host, port=arguments.port)
    except ConfigError as error:
        print(f"thinkgate: {error}", file=sys.stderr)
        return 2
    return run_server(settings)


def run_server(settings: Settings) -> int:
    """Serves until it is told to stop; the exit status is 1 where it can't start."""
    import uvicorn

    from gateway.app import create_app

    try:
        listener = socket.create_server((settings.host, settings.port), backlog=2048)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        print(f"thinkgate: can't listen on {where}: {error.strerror}.", file=sys.stderr)
        return 1
    config = uvicorn.Config(create_app(settings), access_log=False, log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    print(f"ThinkGate on http://{settings.host}:{listener.getsockname()[1]}/v1", flush=True)
    with listener:
        server.run(sockets=[listener])
    return 0 if server.started else 1
