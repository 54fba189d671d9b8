"""What goes wrong at an upstream, as the error that the client gets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.base import UpstreamLimits

__all__ = [
    "broken_connection",
    "error_of",
    "failed_finish",
    "finish_of",
    "malformed",
    "passed_headers",
    "refusal",
    "unfinished",
]

_COMPLETE = {
    "stop": "stop",
    "tool_calls": "tool_calls",
    "function_call": "function_call",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "STOP": "stop",
    "tool_use": "tool_calls",
}
_CUT = {"length": "length", "max_tokens": "length", "MAX_TOKENS": "length", "model_length": "length"}
_FINISH_REASONS = {**_COMPLETE, **_CUT}
"""Finish reasons of an answer that is complete or cut at a token limit, in OpenAI's words."""
_LONGEST_MESSAGE = 2_000
_LONGEST_HEADER = 1_000
_MAX_HEADERS = 16


def finish_of(reason: str) -> str | None:
    """Return a finish reason in OpenAI's words; None where it is none of an answer."""
    return _FINISH_REASONS.get(reason)


def failed_finish(reason: object) -> UpstreamError:
    """Return the error of a reply that ended with another finish reason."""
    if not isinstance(reason, str):
        return malformed("its finish_reason is not a string")
    if reason == "content_filter":  # 400: another try meets the same filter
        return UpstreamError(400, "The upstream's content filter stopped the reply.", {"code": reason})
    word = reason[:100]
    return UpstreamError(502, f"The upstream ended the reply with finish_reason {word!r}.", {"code": word})


def malformed(problem: str) -> UpstreamError:
    """Return the error of a choice that can't be read."""
    return UpstreamError(
        502, f"The upstream sent a malformed choice: {problem}.", {"code": "malformed_reply"}
    )


def unfinished() -> UpstreamUnreachable:
    """Return the error of a reply that ended without a finish reason."""
    return UpstreamUnreachable("The upstream ended its stream before it was complete.")


def error_of(reply: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> UpstreamError | None:
    """Return the error that stands in place of a reply, or of an event; None where it is no error.

    It may be an `error` member, or the object itself (`"object": "error"`, `"type": "error"`, or `detail` or
    `message` without choices). It keeps its own status.
    """
    inner = reply.get("error")
    if inner is None or (reply.get("choices") and _says_nothing(inner)):
        inner = None
        declared = "error" in (reply.get("object"), reply.get("type"))
        if not declared and (reply.get("choices") or not (reply.get("detail") or reply.get("message"))):
            return None
    return _reported(reply, inner, headers)


def _says_nothing(error: object) -> bool:
    """Tell whether an `error` is one of those that others leave out: empty, or an object of empty values."""
    return not (any(error.values()) if isinstance(error, dict) else error)


def refusal(status: int, payload: bytes, headers: Mapping[str, str] | None = None) -> UpstreamError:
    """Return the engine's error; its body may have OpenAI's shape, FastAPI's `detail`, or be plain text."""
    if status < 400:
        problem = (
            "sends elsewhere, and the gateway follows no redirect" if status >= 300 else "holds no reply"
        )
        return UpstreamError(502, f"The upstream's status {status} {problem}; check the setting `upstream`.")
    value = _json(payload)
    if isinstance(value, list) and len(value) == 1:  # Gemini's API
        value = value[0]
    if value is None:
        value = {"message": payload[:500].decode("utf-8", "replace")}
    if not isinstance(value, dict):
        value = {"message": value}
    error = value.get("error")
    if not isinstance(error, dict):
        error = value if error is None else {"message": error}
    message = _text(error.get("message") or error.get("detail")) or f"The upstream answered {status}."
    return _error(status, message, error, ("type", "param", "code"), headers)


def _reported(reply: Mapping[str, Any], inner: object, headers: Mapping[str, str] | None) -> UpstreamError:
    error: Mapping[str, Any] = (
        inner if isinstance(inner, dict) else reply if inner is None else {"message": inner}
    )
    message = _text(error.get("message") or error.get("detail")) or "The upstream failed."
    places = (error, reply)
    codes = (place.get(name) for place in places for name in ("code", "status", "status_code"))
    status = next((number for code in codes if (number := _status(code))), 502)
    fields = tuple(name for name in error if name not in ("message", "object", "choices"))
    return _error(status, message, error, fields, headers)


def _error(
    status: int,
    message: str,
    error: Mapping[str, Any],
    fields: tuple[str, ...],
    headers: Mapping[str, str] | None,
) -> UpstreamError:
    if status in {401, 403}:  # the engine refused the gateway's own key, not the client's
        return UpstreamError(502, f"The upstream refused the gateway's key ({status}).", None, headers)
    details = {name: error[name] for name in fields if error.get(name) is not None}
    for name in ("type", "param"):
        if not isinstance(details.get(name, ""), str):
            del details[name]
    if not isinstance(details.get("code", ""), (str, int)):
        del details["code"]
    # 500 would tell the client that the gateway itself has a bug.
    return UpstreamError(502 if status == 500 else status, message, details, headers)


def _status(code: object) -> int | None:
    """Return the HTTP status that an error names, as a number or its digits."""
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdigit():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _text(message: object) -> str:
    """Return a message as text; some engines send an object or a list."""
    if message is None or isinstance(message, str):
        return (message or "")[:_LONGEST_MESSAGE]
    try:
        return orjson.dumps(message).decode()[:_LONGEST_MESSAGE]
    except TypeError:
        return ""


def _json(payload: bytes) -> Any:
    """Return the JSON value of a body; None where it has none that can be written again."""
    try:
        value = orjson.loads(payload)
        orjson.dumps(value)
    except (orjson.JSONDecodeError, TypeError):
        return None
    return value


def passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a reply that a client should see: when to come back, and rate limits."""
    passed: dict[str, str] = {}
    names = "\n".join(headers).lower()
    if "ratelimit" not in names and "retry-after" not in names:
        return passed
    for name, value in headers.items():
        lower = name.lower()
        if lower not in ("retry-after", "retry-after-ms") and "ratelimit" not in lower:
            continue
        if (
            value.isascii()
            and value.isprintable()
            and len(value) <= _LONGEST_HEADER
            and len(passed) < _MAX_HEADERS
        ):
            passed[name] = value
    return passed


def broken_connection(error: Exception, limits: UpstreamLimits) -> UpstreamUnreachable:
    """Return what a failed connection means for the client."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamUnreachable(
            f"The upstream took longer than connect_timeout ({limits.connect_timeout:g} s) to connect.",
            status=504,
        )
    if isinstance(error, asyncio.TimeoutError):
        return UpstreamUnreachable("The upstream took too long to answer.", status=504)
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamUnreachable("The upstream can't be reached; is it running?")
    cause = str(error.__cause__)
    if isinstance(error, aiohttp.ClientResponseError) and (
        "Got more than" in cause or "Too many headers" in cause
    ):
        return UpstreamUnreachable(
            f"The upstream's headers are longer than max_header_bytes ({limits.max_header_bytes})."
        )
    return UpstreamUnreachable(f"The connection to the upstream broke off ({type(error).__name__}).")
