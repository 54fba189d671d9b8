"""The `thinkgate` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from gateway.commands import demo, keys, replay, serve, training

__all__ = ["COMMANDS", "main"]

COMMANDS = (serve, demo, replay, training, keys)
"""The modules of the subcommands. To add one, write a file in `gateway/commands/` and name it here.

Each has `add_parser(subparsers)`; its parser sets `run`, which takes the arguments and returns the status.
"""


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
    for command in COMMANDS:
        command.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    if parsed.run is None:
        parser.print_help(sys.stderr)
        return 2
    status: int = parsed.run(parsed)
    return status


def _version() -> str:
    """Return the version that is installed; a checkout that runs uninstalled has none."""
    try:
        return version("thinkgate")
    except PackageNotFoundError:
        return "unknown (not installed)"
