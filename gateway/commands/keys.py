"""`thinkgate keys NAME`: a new key, and the table of settings that lets it in."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from gateway.http.auth import digest, new_key

__all__ = ["add_parser"]

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def add_parser(subparsers: Any) -> None:
    """Adds `keys` to the command line's subparsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "keys",
        help="make a key for a client",
        description="Makes a new key. It is shown once and kept nowhere: the settings hold its hash.",
    )
    parser.add_argument("name", metavar="NAME", help="whose key it is")
    parser.set_defaults(run=_make)


def _make(arguments: argparse.Namespace) -> int:
    key = new_key()
    name = arguments.name if _BARE.fullmatch(arguments.name) else json.dumps(arguments.name)
    print(f"# For the client, which sends it as its API key:\n#   {key}\n# For the settings' file:")
    print(f'[keys.{name}]\nsecret_sha256 = "{digest(key)}"')
    return 0
