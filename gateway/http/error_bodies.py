"""Error replies in the shape that a path's clients expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from gateway.dialects import messages
from gateway.http.streaming import json_response

__all__ = ["error_response"]


def error_response(
    path: str, error: Mapping[str, Any], status: int, headers: dict[str, str] | None = None
) -> Response:
    """Return OpenAI's `error` object as a reply; under /v1/messages it gets Anthropic's shape."""
    anthropic = path.startswith("/v1/messages")
    body = messages.error_body(status, error) if anthropic else {"error": error}
    return json_response(body, status, headers)
