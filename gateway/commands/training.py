"""Subcommands that another package does: `thinkgate eval` is `python -P -m training eval`."""

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
"""What each is for, and what it is told beside the user's own words."""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommands to the command line; what follows their names is for the other package."""
    for name, (purpose, told) in _COMMANDS.items():
        parser: argparse.ArgumentParser = subparsers.add_parser(
            name,
            help=purpose,
            add_help=False,
            prefix_chars="\0",  # nothing is an option here, so that all of it goes on as it is
        )
        parser.add_argument("rest", nargs=argparse.REMAINDER)
        parser.set_defaults(run=partial(_become, name, told))


def _become(name: str, told: tuple[str, ...], arguments: argparse.Namespace) -> int:
    """Becomes the other package's command, which knows the gateway by its address alone."""
    command = python_command("training", name, *told, *arguments.rest)
    sys.stdout.flush()
    os.execve(sys.executable, command, python_environment())
