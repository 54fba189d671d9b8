"""An error as a reply, in the shape that a path's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from gateway.dialects import messages
from gateway.http.streaming import json_response

__all__ = ["error_response"]


def error_response(
    path: str, told: Mapping[str, Any], status: int, headers: dict[str, str] | None = None
) -> Response:
    """OpenAI's `error` object, `told`; under /v1/messages in Anthropic's shape."""
    anthropic = path.startswith("/v1/messages")
    return json_response(messages.error_body(status, told) if anthropic else {"error": told}, status, headers)
