"""What the OpenAPI document says of requests that are read by hand, field by field, for speed."""

from __future__ import annotations

from typing import Any

from policies.prompts import LEVELS
from scorers.votes import VOTES

__all__ = ["CHAT_OPENAPI", "COMPLETIONS_OPENAPI", "COUNT_OPENAPI", "MESSAGES_OPENAPI", "RESPONSES_OPENAPI"]


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
_HEADERS = [
    _header("X-Reasoning-Budget", "How long to think: a level, or thinking tokens.", _LEVEL),
    _header(
        "X-Samples",
        "How many samples to draw; auto: as many as it takes.",
        {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]},
    ),
    _header("X-Vote", "How samples are combined.", {"type": "string", "enum": list(VOTES)}),
    _header(
        "X-Stop", "When to stop drawing: none, adaptive, window, first-<m>, confident.", {"type": "string"}
    ),
    _header("X-Scorer", "What weighs the samples; none, confidence, or another name.", {"type": "string"}),
]
_SWITCH = {"type": ["boolean", "null"]}
_OBJECT = {"type": ["object", "null"]}
_LIST = {"type": ["array", "null"]}


def _operation(
    required: list[str],
    properties: dict[str, Any],
    answer: str,
    *,
    error: dict[str, Any] = _ERROR,
    headers: list[dict[str, Any]] = _HEADERS,
) -> dict[str, Any]:
    def failure(description: str) -> dict[str, Any]:
        return {"description": description, "content": {"application/json": {"schema": error}}}

    schema = {"type": "object", "required": required, "properties": properties}
    return {
        "parameters": headers,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {
                "description": answer,
                "content": {
                    "application/json": {"schema": {"type": "object"}},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            "400": failure("The request can't be; `error.param` names the field or header."),
            "404": failure("No upstream serves the model."),
            "502": failure("The upstream failed."),
            "504": failure("The upstream took too long."),
        },
    }


def _messages(content: list[str]) -> dict[str, Any]:
    message = {
        "type": "object",
        "required": ["role"],
        "properties": {"role": {"type": "string"}, "content": {"type": content}},
    }
    return {"type": "array", "minItems": 1, "items": message}


CHAT_OPENAPI = _operation(
    ["messages"],
    {
        "model": {"type": "string"},
        "messages": _messages(["string", "array", "null"]),
        "stream": _SWITCH,
        "n": _COUNT,
        "max_tokens": _COUNT,
        "max_completion_tokens": _COUNT,
        "reasoning_effort": {"type": ["string", "null"]},
        "scaling": _OBJECT,
    },
    "A chat completion, or its chunks.",
)

RESPONSES_OPENAPI = _operation(
    ["input"],
    {
        "model": {"type": "string"},
        "input": {"type": ["string", "array"]},
        "instructions": {"type": ["string", "null"]},
        "max_output_tokens": _COUNT,
        "reasoning": _OBJECT,
        "stream": _SWITCH,
        "text": _OBJECT,
        "tools": _LIST,
        "scaling": _OBJECT,
    },
    "A response, or its events.",
)

_ANTHROPIC_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {"type": {"const": "error"}, "error": _ERROR["properties"]["error"]},
}
_CONVERSATION = {
    "model": {"type": "string"},
    "messages": _messages(["string", "array"]),
    "system": {"type": ["string", "array", "null"]},
    "thinking": _OBJECT,
    "tools": _LIST,
}

MESSAGES_OPENAPI = _operation(
    ["messages", "max_tokens"],
    {
        **_CONVERSATION,
        "max_tokens": {"type": "integer", "minimum": 1},
        "stream": _SWITCH,
        "scaling": _OBJECT,
    },
    "A message, or its events.",
    error=_ANTHROPIC_ERROR,
)

COUNT_OPENAPI = _operation(["messages"], _CONVERSATION, "The prompt's tokens.", error=_ANTHROPIC_ERROR)

COMPLETIONS_OPENAPI = _operation(
    [],
    {"model": {"type": "string"}, "stream": _SWITCH},
    "The upstream's reply as it is.",
    headers=[],
)
