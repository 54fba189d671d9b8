"""Subcommands that another package does: `thinkgate eval` is `python -m training eval`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any

__all__ = ["add_parser"]

_SERVE = ("-m", "gateway", "serve", "--port", "0")


def add_parser(subparsers: Any) -> None:
    """Adds the subcommands to the command line; what follows their names is for the other package."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "eval",
        help="measure accuracy and cost on a data set",
        add_help=False,
        prefix_chars="\0",  # nothing is an option here, so that all of it goes on as it is
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    """Becomes the evaluation, which knows the gateway by its address alone, or starts one by this command."""
    serve = shlex.join([sys.executable, *_SERVE])
    command = [sys.executable, "-m", "training", "eval", f"--serve={serve}", *arguments.rest]
    sys.stdout.flush()
    os.execv(sys.executable, command)
