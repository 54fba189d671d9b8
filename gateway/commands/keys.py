"""`thinkgate keys NAME`: print a new key, and the settings that admit it."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from gateway.http.auth import key_digest, new_key

__all__ = ["add_parser"]

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def add_parser(subparsers: Any) -> None:
    """Add `keys` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "keys",
        help="make a key for a client",
        description="Print a new key. Nothing stores it: the settings hold only its hash.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the key's owner")
    parser.set_defaults(run=_make)


def _make(arguments: argparse.Namespace) -> int:
    key = new_key()
    name = arguments.name if _BARE.fullmatch(arguments.name) else json.dumps(arguments.name)
    print(f"# For the client, as its API key:\n#   {key}\n# For the settings file:")
    print(f'[keys.{name}]\nsecret_sha256 = "{key_digest(key)}"')
    return 0
