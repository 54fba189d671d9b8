"""Subcommands of the `training` package: `thinkgate eval` runs `python -P -m training eval`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from scorers.grader.safe_python import python_command, python_environment

__all__ = ["add_parser"]

_SERVE = shlex.join(python_command("gateway", "serve", "--port", "0"))
_COMMANDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "adapter": ("convert a LoRA adapter for the embedded engine", ()),
    "canary": ("compare a served model's logprobs with its weights", ()),
    "eval": ("measure accuracy and cost on a data set", (f"--serve={_SERVE}",)),
    "promote": ("move traffic to a better model, a share at a time", ()),
    "train": ("fine-tune the policy: one stage, or the whole pipeline", ()),
}
"""The help text of each command, and the arguments that precede the user's own."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommands to the command line. The other package parses their arguments."""
    for name, (purpose, extra) in _COMMANDS.items():
        parser: argparse.ArgumentParser = subparsers.add_parser(
            name,
            help=purpose,
            add_help=False,
            prefix_chars="\0",  # no option is parsed here, so all arguments pass unchanged
        )
        parser.add_argument("rest", nargs=argparse.REMAINDER)
        parser.set_defaults(run=partial(_exec, name, extra))


def _exec(name: str, extra: tuple[str, ...], arguments: argparse.Namespace) -> int:
    """Replace this process with the other package's command, which knows only the gateway's address."""
    command = python_command("training", name, *extra, *arguments.rest)
    sys.stdout.flush()
    os.execve(sys.executable, command, python_environment())
