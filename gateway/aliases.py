"""Names that stand for models, a share each: how a new model takes over without a client knowing.

The file (TOML, or JSON where its name ends in .json) is read again when it has been replaced:

    reasoner = [{model = "qwen3", share = 95}, {model = "qwen3-taught", share = 5}]

A file that can't be used leaves the last good one in force, and says so in the log, on
/health and in the metrics. Requests under way keep the model that they began with.
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

__all__ = ["Aliases", "AliasesError", "Target", "choose", "conversation_key", "parse_aliases"]

_log = logging.getLogger(__name__)
_POLL = 1.0  # seconds between looks at the file


class AliasesError(Exception):
    """The aliases file can't be used; the message is one sentence."""


class Target(BaseModel):
    """A model that an alias stands for, and its part of the requests; shares count relative to their sum."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)]
    share: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


_FILE = TypeAdapter(dict[str, Annotated[tuple[Target, ...], Field(min_length=1)]])


def parse_aliases(payload: bytes, *, json: bool = False) -> Mapping[str, Sequence[Target]]:
    """The aliases of a file's content. Raises AliasesError."""
    try:
        held: Any = orjson.loads(payload) if json else tomllib.loads(payload.decode())
        aliases = _FILE.validate_python(held)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise AliasesError(f"{where or 'the file'}: {problem['msg']}") from error
    except ValueError as error:  # what either parser raises, undecodable bytes included
        raise AliasesError(f"not valid {'JSON' if json else 'TOML'}: {error}") from error
    for name, targets in aliases.items():
        if not name:
            raise AliasesError("an alias needs a name")
        if not any(target.share for target in targets):
            raise AliasesError(f"{name}: no target has a share")
        if len({target.model for target in targets}) < len(targets):
            raise AliasesError(f"{name}: names a model twice")
    return aliases


def choose(targets: Sequence[Target], key: str) -> str:
    """The target for a key: always the same one while the shares stand; over many keys, each by its share.

    Weighted rendezvous hashing (Schindelhauer and Schomaker 2005): when shares change, only as
    many keys move as must, and all of them to a target whose part has grown.
    """

    def weight(target: Target) -> float:
        digest = hashlib.blake2b(f"{target.model}\0{key}".encode("utf-8", "replace"), digest_size=8).digest()
        drawn = (int.from_bytes(digest) + 1) / (2**64 + 2)  # within (0, 1)
        return -target.share / math.log(drawn)

    return max(targets, key=weight).model


def conversation_key(body: Mapping[str, Any]) -> str:
    """What stays the same over the turns of one conversation, so that they all meet the same model.

    The client's `user` where it sends one, else everything up to the first message of the user's.
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
    """The aliases in force. Explicit life: `start` begins to watch the file, `close` ends that.

    Raises AliasesError where the file can't be used to begin with. Without a path there are none.
    """

    def __init__(self, path: Path | None = None, poll: float = _POLL) -> None:
        self._path = path
        self._poll = poll
        self._seen: tuple[int, ...] | None = None
        self._task: asyncio.Task[None] | None = None
        self.error: str | None = None
        """What is wrong with the file as it is now; the aliases before it stay in force."""
        self.table: Mapping[str, Sequence[Target]] = {}
        self.reload()
        if self.error is not None:
            raise AliasesError(self.error)

    @property
    def configured(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    def route(self, name: str, key: str) -> Route | None:
        """Where a request for this name goes; None where it is no alias."""
        targets = self.table.get(name)
        return None if targets is None else Route(name, choose(targets, key))

    def reload(self) -> None:
        """Reads the file, if it is another one than before; blocks meanwhile."""
        if self._path is None:
            return
        try:
            stat = self._path.stat()
            if self._seen == (seen := (stat.st_ino, stat.st_mtime_ns, stat.st_size)):
                return
            payload = self._path.read_bytes()
        except OSError as error:
            self._failed(f"aliases: {self._path} can't be read ({error.strerror}).")
            self._seen = None
            return
        self._seen = seen
        try:
            self.table = parse_aliases(payload, json=self._path.suffix == ".json")
        except AliasesError as error:
            self._failed(f"aliases: {self._path}: {error}.")
            return
        self.error = None

    def start(self) -> None:
        """Begins to watch the file; needs a running event loop."""
        if self._path is not None and self._task is None:
            self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Ends the watch."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll)
            await asyncio.to_thread(self.reload)

    def _failed(self, message: str) -> None:
        if message != self.error and self.table:
            _log.error("%s The aliases before stay in force.", message)
        self.error = message
