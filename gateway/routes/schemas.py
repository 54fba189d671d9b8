"""What the OpenAPI document says of requests that are read by hand, field by field, for speed."""

from __future__ import annotations

from typing import Any

from policies.prompts import LEVELS
from scorers.votes import VOTES

__all__ = ["CHAT_OPENAPI"]


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "integer", "null"]},
            },
        }
    },
}
_LEVEL = {"anyOf": [{"type": "string", "enum": list(LEVELS)}, {"type": "string", "pattern": "^[0-9]{1,9}$"}]}
_COUNT = {"type": ["integer", "null"], "minimum": 1}


def _failure(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


CHAT_OPENAPI: dict[str, Any] = {
    "parameters": [
        _header("X-Reasoning-Budget", "How long to think: a level, or thinking tokens.", _LEVEL),
        _header("X-Samples", "How many samples to draw.", {"type": "integer", "minimum": 1}),
        _header("X-Vote", "How samples are combined.", {"type": "string", "enum": list(VOTES)}),
        _header("X-Stop", "When to stop drawing: none, adaptive, window, first-<m>.", {"type": "string"}),
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["messages"],
                    "properties": {
                        "model": {"type": "string"},
                        "messages": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["role"],
                                "properties": {
                                    "role": {"type": "string"},
                                    "content": {"type": ["string", "array", "null"]},
                                },
                            },
                        },
                        "stream": {"type": ["boolean", "null"]},
                        "n": _COUNT,
                        "max_tokens": _COUNT,
                        "max_completion_tokens": _COUNT,
                        "reasoning_effort": {"type": ["string", "null"]},
                        "scaling": {"type": ["object", "null"]},
                    },
                }
            }
        },
    },
    "responses": {
        "200": {
            "description": "A chat completion, or its chunks.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        },
        "400": _failure("The request can't be; `error.param` names the field or header."),
        "404": _failure("No upstream serves the model."),
        "502": _failure("The upstream failed."),
        "504": _failure("The upstream took too long."),
    },
}
