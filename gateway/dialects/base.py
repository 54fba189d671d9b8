"""What every dialect has in common: the exchange it makes of a request, and how fields are checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import orjson

from gateway.errors import BadRequest, one_of
from gateway.http.streaming import Writer
from gateway.runs.events import RunResult
from gateway.runs.request import RunRequest

__all__ = [
    "CORRECTION",
    "Exchange",
    "json_object",
    "known",
    "objects",
    "positive",
    "refuse",
    "string",
    "wrong",
]

CORRECTION = "\n\n[The samples' vote came to another answer.]\n\n"
"""What stands between a first sample shown live and the vote's winner, where they differ."""


class Exchange(Protocol):
    """One request in its dialect, and the two ways to answer it.

    Made from the request's payload; `chat` is the same request as a body for chat
    completions, budget fields and `stream` included. The maker raises `BadRequest`.
    """

    chat: dict[str, Any]

    def reply(self, request: RunRequest, result: RunResult, model: str) -> dict[str, Any]:
        """The unstreamed reply; `model` is the upstream's name for its model."""
        ...

    def writer(self, request: RunRequest, model: str) -> Writer:
        """What writes the reply as a stream."""
        ...


def json_object(payload: bytes) -> dict[str, Any]:
    """The JSON object that is a request's body. Raises `BadRequest`."""
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise BadRequest("The request body must be a JSON object.")
    return body


def wrong(field: str, allowed: str) -> BadRequest:
    """The error for a field of the wrong type."""
    return BadRequest(f"{field} must be {allowed}.", param=field, code="invalid_value")


def refuse(field: str, why: str) -> BadRequest:
    """The error for something that the dialect knows and the gateway doesn't do."""
    return BadRequest(f"{field}: {why}", param=field, code="unsupported_value")


def string(value: object, field: str) -> str:
    """A field that must be a string."""
    if not isinstance(value, str):
        raise wrong(field, "a string")
    return value


def positive(value: object, field: str) -> int:
    """A field that must be a whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise wrong(field, "a whole number from 1")
    return value


def objects(value: object, field: str) -> list[Mapping[str, Any]]:
    """A field that must be a list of objects."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong(field, "a list of objects")
    return value


def known(value: object, allowed: Collection[str], field: str) -> str:
    """A field that must be one of a few words."""
    if not isinstance(value, str) or value not in allowed:
        raise one_of(value, allowed, param=field)
    return value
