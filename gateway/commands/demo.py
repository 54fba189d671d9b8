"""`thinkgate demo`: ten questions at several budgets, then a running gateway."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add `demo` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo", help="ask ten questions at several budgets, then keep serving"
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: 8000; 0: any free port)")
    parser.add_argument("--once", action="store_true", help="exit after the questions")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gateway.demo.command import run_demo  # here, because it loads the whole gateway

    return run_demo(port=arguments.port, once=arguments.once)
