"""What all dialects share: the exchange that one makes of a request, its writer, and checks of fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import UnionType
from typing import Any, Protocol

import orjson

from gateway.errors import BadRequest, GatewayError, UpstreamError, unknown_value
from gateway.runs.events import Aside, Delta, Progress, RunResult
from gateway.runs.request import RunRequest

__all__ = [
    "CORRECTION",
    "Exchange",
    "Writer",
    "check_chat_fields",
    "encode",
    "json_object",
    "objects",
    "one_of",
    "positive",
    "refuse",
    "string",
    "wrong",
]

CORRECTION = "\n\n[The samples' vote came to another answer.]\n\n"
"""The text between a first sample that was shown live and a winner that differs from it."""

_CHAT_FIELDS: tuple[tuple[str, type | UnionType, str], ...] = (
    ("seed", int, "a whole number"),
    ("top_logprobs", int, "a whole number"),
    ("stop", str | list, "a string or a list of strings"),
    ("tools", list, "a list"),
    ("chat_template_kwargs", dict, "an object"),
    ("stream_options", dict, "an object"),
)
_COUNTS = ("n", "max_tokens", "max_completion_tokens")
_CHECKED = frozenset({*_COUNTS, *(field for field, _, _ in _CHAT_FIELDS)})
_MAX_SEED = 2**63 - 2**16  # seed + i, for sample i, stays within 64 bits
_WRITABLE_DEPTH = 254  # levels that orjson writes; it reads 1,024
_MAX_DEPTH = 200  # what a dialect makes of a body, or echoes in a reply, is nested a little deeper


class Writer(Protocol):
    """Writes the events of one streamed reply (see `gateway.dialects.chat.ChatStream`)."""

    @property
    def id(self) -> str:
        """The reply's id, or what is known of it so far."""
        ...

    def delta(self, delta: Delta) -> bytes:
        """Write new text of a sample; may return nothing."""
        ...

    def aside(self, aside: Aside) -> bytes:
        """Write an upstream event that belongs to no choice; may return nothing."""
        ...

    def progress(self, progress: Progress) -> bytes:
        """Write how the vote stands."""
        ...

    def heartbeat(self) -> bytes:
        """Write a sign of life that the dialect's clients skip, for a time without any other event."""
        ...

    def finish(self, result: RunResult) -> bytes:
        """Write everything that is left, and the end of the stream."""
        ...

    def error(self, error: GatewayError) -> bytes:
        """End a stream that has begun and then failed."""
        ...


class Exchange(Protocol):
    """One request in its dialect, and the two ways to answer it.

    A class makes one from a request's payload, or raises `BadRequest`. `chat` is the same request
    as a body of chat completions, with its budget fields and `stream`.
    """

    chat: dict[str, Any]
    translated: bool
    """Whether `chat` is a translation; in chat completions it is the request as it came."""

    def reply(self, request: RunRequest, result: RunResult, model: str) -> dict[str, Any]:
        """Return the unstreamed reply; `model` is the upstream's name for its model."""
        ...

    def writer(self, request: RunRequest, model: str) -> Writer:
        """Return a writer of the reply as a stream."""
        ...


def json_object(payload: bytes) -> dict[str, Any]:
    """Parse a request's body, which must be a JSON object. Raises `BadRequest`."""
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise BadRequest("The request body must be a JSON object.")
    if payload.count(b"[") + payload.count(b"{") > _MAX_DEPTH:
        _check_depth(body)
    return body


def _check_depth(body: dict[str, Any]) -> None:
    """Refuse a body that can be read but not written again, which is what the gateway does with it."""
    nested: Any = body
    for _ in range(_WRITABLE_DEPTH - _MAX_DEPTH):
        nested = [nested]
    try:
        orjson.dumps(nested)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"The request body is nested deeper than {_MAX_DEPTH} levels.") from error


def encode(reply: Any) -> bytes:
    """Return a reply, or a part of one, as JSON. Raises `UpstreamError` for an engine's that can't be."""
    try:
        return orjson.dumps(reply)
    except orjson.JSONEncodeError as error:
        raise UpstreamError(502, "The upstream's reply is nested too deeply.") from error


def check_chat_fields(chat: Mapping[str, Any]) -> None:
    """Check the types of the fields that every chat request may have and the gateway itself relies on.

    The upstream judges all others, and all values. Raises `BadRequest`.
    """
    if _CHECKED.isdisjoint(chat):
        return
    for field in _COUNTS:
        if chat.get(field) is not None:
            positive(chat[field], field)
    for field, kind, allowed in _CHAT_FIELDS:
        if (value := chat.get(field)) is not None and (not isinstance(value, kind) or value is True):
            raise wrong(field, allowed)
    if not -_MAX_SEED <= (chat.get("seed") or 0) <= _MAX_SEED:
        raise wrong("seed", f"a whole number from -{_MAX_SEED} to {_MAX_SEED}")


def wrong(field: str, allowed: str) -> BadRequest:
    """Return the error for a field of the wrong type."""
    return BadRequest(f"{field} must be {allowed}.", param=field, code="invalid_value")


def refuse(field: str, reason: str) -> BadRequest:
    """Return the error for a field that the dialect has and the gateway does not support."""
    return BadRequest(f"{field}: {reason}", param=field, code="unsupported_value")


def string(value: object, field: str) -> str:
    """Check that a field is a string, and return it."""
    if not isinstance(value, str):
        raise wrong(field, "a string")
    return value


def positive(value: object, field: str) -> int:
    """Check that a field is a whole number from 1, and return it."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise wrong(field, "a whole number from 1")
    return value


def objects(value: object, field: str) -> list[Mapping[str, Any]]:
    """Check that a field is a list of objects, and return it."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong(field, "a list of objects")
    return value


def one_of(value: object, allowed: Collection[str], field: str) -> str:
    """Check that a field is one of the allowed words, and return it."""
    if not isinstance(value, str) or value not in allowed:
        raise unknown_value(value, allowed, param=field)
    return value
