"""Aliases: names that stand for models, each with a share, so that a new model can take over unseen.

The file is TOML, or JSON if its name ends in .json. The gateway reads it again when it is replaced:

    reasoner = [{model = "qwen3", share = 95}, {model = "qwen3-taught", share = 5}]

If a new file can't be used, the last good aliases stay in force. The log, /health and the metrics
then report the problem. A running request keeps its model.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gateway.runs.request import Route

__all__ = ["Aliases", "AliasesError", "Target", "choose_target", "conversation_key", "parse_aliases"]

_log = logging.getLogger(__name__)
_INTERVAL = 1.0  # seconds between checks of the file


class AliasesError(Exception):
    """The aliases file can't be used; the message is one sentence."""


class Target(BaseModel):
    """A model behind an alias, and its share of the requests; shares count relative to their sum."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)]
    share: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


_FILE = TypeAdapter(dict[str, Annotated[tuple[Target, ...], Field(min_length=1)]])


def parse_aliases(payload: bytes, *, json: bool = False) -> Mapping[str, Sequence[Target]]:
    """Parse the content of an aliases file. Raises `AliasesError`."""
    try:
        content: Any = orjson.loads(payload) if json else tomllib.loads(payload.decode())
        aliases = _FILE.validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise AliasesError(f"{field or 'the file'}: {problem['msg']}") from error
    except ValueError as error:  # from either parser, or for undecodable bytes
        raise AliasesError(f"not valid {'JSON' if json else 'TOML'}: {error}") from error
    for name, targets in aliases.items():
        if not name:
            raise AliasesError("an alias needs a name")
        if not any(target.share for target in targets):
            raise AliasesError(f"{name}: no target has a share above 0")
        if len({target.model for target in targets}) < len(targets):
            raise AliasesError(f"{name}: the same model appears twice")
    return aliases


def choose_target(targets: Sequence[Target], key: str) -> str:
    """Return the target for a key: the same one as long as the shares stay, each by its share.

    This is weighted rendezvous hashing (Schindelhauer and Schomaker 2005). When shares change,
    the fewest possible keys move, and all of them to a target whose share has grown.
    """

    def weight(target: Target) -> float:
        digest = hashlib.blake2b(f"{target.model}\0{key}".encode("utf-8", "replace"), digest_size=8).digest()
        uniform = (int.from_bytes(digest) + 1) / (2**64 + 2)  # within (0, 1)
        return -target.share / math.log(uniform)

    return max(targets, key=weight).model


def conversation_key(body: Mapping[str, Any]) -> str:
    """Return a key that all turns of one conversation share, so that they reach the same model.

    It is the client's `user` if there is one, else everything up to the first user message.
    """
    user = body.get("user")
    if isinstance(user, str) and user:
        return f"user {user}"
    start: list[Any] = [body.get("prompt")]
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            break
        start += [message.get("role"), message.get("content")]
        if message.get("role") == "user":
            break
    return orjson.dumps(start).decode()


class Aliases:
    """The aliases in force. `start` begins to watch the file, and `close` stops.

    Raises `AliasesError` if the first file can't be used. Without a path there are no aliases.
    """

    def __init__(self, path: Path | None = None, interval: float = _INTERVAL) -> None:
        self._path = path
        self._interval = interval
        self._version: tuple[int, ...] | None = None
        self._task: asyncio.Task[None] | None = None
        self.error: str | None = None
        """The problem with the current file, whose predecessor stays in force; None if there is none."""
        self.table: Mapping[str, Sequence[Target]] = {}
        self.reload()
        if self.error is not None:
            raise AliasesError(self.error)

    @property
    def configured(self) -> bool:
        """Whether the settings name a file."""
        return self._path is not None

    def route(self, name: str, key: str) -> Route | None:
        """Return the alias and its target for a name, or None if the name is no alias."""
        targets = self.table.get(name)
        return None if targets is None else Route(name, choose_target(targets, key))

    def reload(self) -> None:
        """Read the file if it has changed. Blocks."""
        if self._path is None:
            return
        try:
            stat = self._path.stat()
            if self._version == (version := (stat.st_ino, stat.st_mtime_ns, stat.st_size)):
                return
            payload = self._path.read_bytes()
        except OSError as error:
            self._fail(f"aliases: {self._path} can't be read ({error.strerror}).")
            self._version = None
            return
        self._version = version
        try:
            self.table = parse_aliases(payload, json=self._path.suffix == ".json")
        except AliasesError as error:
            self._fail(f"aliases: {self._path}: {error}.")
            return
        self.error = None

    def start(self) -> None:
        """Begin to watch the file; needs a running event loop."""
        if self._path is not None and self._task is None:
            self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop watching the file."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await asyncio.to_thread(self.reload)

    def _fail(self, message: str) -> None:
        if message != self.error and self.table:
            _log.error("%s The previous aliases stay in force.", message)
        self.error = message
