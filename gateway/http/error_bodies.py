"""Error replies in the shape that a path's clients expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from gateway.dialects import messages
from gateway.http.streaming import json_response, sendable

__all__ = ["error_response"]


def error_response(
    path: str, error: Mapping[str, Any], status: int, headers: Mapping[str, str] | None = None
) -> Response:
    """Return OpenAI's `error` object as a reply; under /v1/messages it gets Anthropic's shape.

    An engine's details that are nested too deeply for JSON are left out.
    """
    anthropic = path.startswith("/v1/messages")
    plain_headers = sendable(headers or {})
    try:
        body = messages.error_body(status, error) if anthropic else {"error": error}
        return json_response(body, status, plain_headers)
    except orjson.JSONEncodeError:
        texts = {key: value for key, value in error.items() if isinstance(value, str)}
        return json_response({"error": texts}, status, plain_headers)
