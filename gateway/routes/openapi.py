"""The OpenAPI document of the endpoints whose requests the gateway parses itself, for speed.

The schemas hold the fields that the gateway reads. Other fields are allowed everywhere: they
belong to the dialect (docs/reference/endpoints.md) or to the engine.
"""

from __future__ import annotations

from typing import Any

from gateway.runs.budget import AUTO, Scaling
from gateway.scorer_settings import SCORERS
from policies.prompts import LEVELS
from scorers.votes import VOTES

__all__ = [
    "CHAT_OPENAPI",
    "COMPLETIONS_OPENAPI",
    "COUNT_OPENAPI",
    "MESSAGES_OPENAPI",
    "RESPONSES_OPENAPI",
    "feedback_openapi",
]

_Schema = dict[str, Any]


def _schema(kind: str | list[str], description: str = "", **more: Any) -> _Schema:
    return {"type": kind, **({"description": description} if description else {}), **more}


def _nullable(kind: str, description: str = "", **more: Any) -> _Schema:
    return _schema([kind, "null"], description, **more)


def _header(name: str, description: str, schema: _Schema) -> _Schema:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


_BUDGET: _Schema = {
    "anyOf": [
        {"type": "string", "enum": [*LEVELS, AUTO, "none", "xhigh"]},
        {"type": "string", "pattern": "^[0-9]{1,9}$"},
    ],
}
_BUDGET_MEANING = (
    "How long to think: a level (an operator may add more), a number of thinking tokens, or auto, which "
    "chooses the level by difficulty. none equals off, xhigh equals max."
)
_STOP: _Schema = {"type": "string", "pattern": "^(none|adaptive|window|confident|first-[1-9][0-9]{0,5})$"}
_HEADERS = [
    _header("X-Reasoning-Budget", _BUDGET_MEANING, _BUDGET),
    _header(
        "X-Samples",
        "How many samples to draw, up to the operator's limit (default 64); auto: difficulty decides.",
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 64}, {"const": AUTO}]},
    ),
    _header("X-Vote", "How to combine the samples into one answer.", {"type": "string", "enum": list(VOTES)}),
    _header(
        "X-Scorer",
        f"What weighs the samples: {', '.join(['none', *SCORERS])}, or a scorer of the operator's.",
        {"type": "string", "examples": ["none", *SCORERS]},
    ),
    _header("X-Stop", "The stopping rule: when the vote has enough samples.", _STOP),
]
_NAMED_HEADERS = {
    "X-Request-Id": "The client's own X-Request-Id, or a new one.",
    "X-Reasoning-Budget-Applied": "The limit in thinking tokens, or none.",
    "X-Samples-Used": "How many samples finished; only without stream.",
}

_SWITCH = _schema(["boolean", "null"])
_COUNT = _nullable("integer", minimum=1)
_TOKENS = _nullable("integer", minimum=0)
_UNLIMITED = _nullable("integer", "Thinking tokens; -1: no limit.", minimum=-1)
_OBJECT = _nullable("object")
_LIST = _nullable("array", items={"type": "object"})
_MODEL = _schema(
    "string", "A served model; `name:high`, `name@8` and `name:high@8` also choose a level and samples."
)
_SCALING: _Schema = {
    "description": "How many samples to draw, how to combine them, and what to report.",
    "anyOf": [Scaling.model_json_schema(), {"type": "null"}],
}
_REASONING = _nullable(
    "object",
    "OpenRouter's field for how long to think, and whether the reply leaves the thinking out. Other fields "
    "of a vendor's reach the upstream.",
    properties={
        "effort": {"anyOf": [_BUDGET, {"type": "null"}]},
        "max_tokens": _TOKENS,
        "exclude": _SWITCH,
        "enabled": _SWITCH,
    },
)
_BUDGET_FIELDS: dict[str, _Schema] = {
    "reasoning_effort": {"description": _BUDGET_MEANING, "anyOf": [_BUDGET, {"type": "null"}]},
    "reasoning": _REASONING,
    "thinking": _nullable(
        "object",
        "Anthropic's field for how long to think; adaptive and auto name no budget. Other fields "
        "of a vendor's reach the upstream.",
        properties={
            "type": {"type": "string", "enum": ["enabled", "disabled", "adaptive", "auto"]},
            "budget_tokens": _TOKENS,
        },
    ),
    "thinking_token_budget": _UNLIMITED,
    "thinking_budget": _UNLIMITED,
    "enable_thinking": _SWITCH,
    "include_reasoning": _SWITCH,
}

_ERROR: _Schema = _schema(
    "object",
    required=["error"],
    properties={
        "error": _schema(
            "object",
            required=["message", "type"],
            properties={
                "message": _schema("string", "What is wrong, and what is allowed."),
                "type": _schema("string"),
                "param": _nullable("string", "The field or header that is wrong."),
                "code": _schema(["string", "integer", "null"]),
            },
        )
    },
)
_ANTHROPIC_ERROR: _Schema = _schema(
    "object",
    required=["type", "error"],
    properties={"type": {"const": "error"}, "error": _ERROR["properties"]["error"]},
)

_EVENT = _schema(
    "object",
    "A server-sent event. Its data is JSON; the last event of a chat stream is [DONE].",
    required=["data"],
    properties={"event": _schema("string"), "data": _schema("string")},
)


def _messages(content: list[str], *, roles: _Schema) -> _Schema:
    text = _schema(content, "Text, or a list of parts.", items={"type": "object", "required": ["type"]})
    message = _schema("object", required=["role"], properties={"role": roles, "content": text})
    return {"type": "array", "minItems": 1, "items": message}


def _operation(
    required: list[str],
    properties: dict[str, _Schema],
    answer: _Schema,
    description: str,
    *,
    streams: bool = True,
    error: _Schema = _ERROR,
    headers: list[_Schema] = _HEADERS,
) -> dict[str, Any]:
    def failure(description: str) -> dict[str, Any]:
        return {"description": description, "content": {"application/json": {"schema": error}}}

    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if streams:
        content["text/event-stream"] = {"itemSchema": _EVENT}
    body = _schema("object", required=required, properties=properties)
    named = _NAMED_HEADERS if streams and headers else {"X-Request-Id": _NAMED_HEADERS["X-Request-Id"]}
    return {
        "parameters": headers,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": description,
                "headers": {
                    name: {"description": meaning, "schema": {"type": "string"}}
                    for name, meaning in named.items()
                },
                "content": content,
            },
            "400": failure("The request is invalid; `error.param` names the field or header."),
            "404": failure("No upstream serves the model."),
            "500": failure("A bug of the gateway."),
            "501": failure("The upstream can't do what the request needs."),
            "502": failure("The upstream failed, or the gateway can't reach it."),
            "504": failure("The upstream took too long."),
            "default": failure("The upstream's own error, with its own status."),
        },
    }


def _reply(required: list[str], **properties: _Schema) -> _Schema:
    """Return the schema of a reply, with the fields that it always has."""
    return _schema("object", required=required, properties=properties)


_REPORT = _schema("object", "What the client asked for, what the gateway did, and what it cost.")
_USAGE = _schema("object", "The prompt once, and all generated tokens, those of aborted samples included.")

CHAT_OPENAPI = _operation(
    ["messages"],
    {
        "model": _MODEL,
        "messages": _messages(["string", "array", "null"], roles=_schema("string")),
        "stream": _SWITCH,
        "stream_options": _OBJECT,
        "n": _nullable("integer", "Choices to return; with samples, the best-ranked.", minimum=1),
        "max_tokens": _COUNT,
        "max_completion_tokens": _nullable("integer", "Thinking and answer together.", minimum=1),
        "temperature": _nullable("number"),
        "seed": _nullable("integer", "Sample i uses seed + i."),
        "response_format": _OBJECT,
        "tools": _LIST,
        "chat_template_kwargs": _OBJECT,
        **_BUDGET_FIELDS,
        "scaling": _SCALING,
    },
    _reply(
        ["id", "object", "created", "model", "choices", "usage", "scaling"],
        object={"const": "chat.completion"},
        choices={"type": "array", "items": {"type": "object"}},
        usage=_USAGE,
        scaling=_REPORT,
    ),
    "A chat completion, or its chunks.",
)

RESPONSES_OPENAPI = _operation(
    ["input"],
    {
        "model": _MODEL,
        "input": _schema(["string", "array"]),
        "instructions": _nullable("string"),
        "max_output_tokens": _nullable("integer", "Thinking and answer together.", minimum=1),
        "reasoning": _REASONING,
        "stream": _SWITCH,
        "text": _OBJECT,
        "tools": _LIST,
        "metadata": _OBJECT,
        "scaling": _SCALING,
    },
    _reply(
        ["id", "object", "status", "model", "output", "usage", "scaling"],
        object={"const": "response"},
        output={"type": "array", "items": {"type": "object"}},
        usage=_USAGE,
        scaling=_REPORT,
    ),
    "A response, or its events.",
)

_CONVERSATION = {
    "model": _MODEL,
    "messages": _messages(["string", "array"], roles=_schema("string", enum=["user", "assistant", "system"])),
    "system": _schema(["string", "array", "null"], "Text, or a list of text parts."),
    "thinking": _nullable(
        "object",
        "How long to think; adaptive equals no field at all.",
        properties={
            "type": {"type": "string", "enum": ["enabled", "disabled", "adaptive"]},
            "budget_tokens": _TOKENS,
            "display": {"enum": ["summarized", "omitted", None]},
        },
    ),
    "output_config": _nullable("object", "`effort` is a level, `format` a JSON schema."),
    "tools": _nullable(
        "array",
        items={"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
    ),
    "scaling": _SCALING,
}

MESSAGES_OPENAPI = _operation(
    ["messages", "max_tokens"],
    {
        **_CONVERSATION,
        "max_tokens": _schema("integer", "Thinking and answer together.", minimum=1),
        "stream": _SWITCH,
        "stop_sequences": _nullable("array", items={"type": "string"}),
    },
    _reply(
        ["id", "type", "role", "model", "content", "stop_reason", "usage", "scaling"],
        type={"const": "message"},
        content={"type": "array", "items": {"type": "object"}},
        usage=_USAGE,
        scaling=_REPORT,
    ),
    "A message, or its events.",
    error=_ANTHROPIC_ERROR,
)


def feedback_openapi(body: _Schema) -> dict[str, Any]:
    """Return the document of `/v1/feedback`; `body` is the schema of its request."""
    operation = _operation(
        [],
        {},
        _reply(["object", "id"], object={"const": "feedback"}, id=_schema("string", "The completion's id.")),
        "The feedback is recorded next to the answer.",
        streams=False,
        headers=[],
    )
    operation["requestBody"]["content"]["application/json"]["schema"] = body
    responses = {status: operation["responses"][status] for status in ("200", "400", "500")}
    refusal = responses["400"]["content"]
    responses["404"] = {"description": "No recently recorded answer has this id.", "content": refusal}
    responses["409"] = {
        "description": "The gateway keeps no recording (`record_to`).",
        "content": refusal,
    }
    responses["503"] = {"description": "The recorder can't keep up.", "content": refusal}
    return {**operation, "responses": responses}


COUNT_OPENAPI = _operation(
    ["messages"],
    _CONVERSATION,
    _reply(["input_tokens"], input_tokens=_schema("integer", minimum=0)),
    "The tokens of the prompt, with the budget's own text.",
    streams=False,
    error=_ANTHROPIC_ERROR,
)

COMPLETIONS_OPENAPI = _operation(
    [],
    {"model": _schema("string"), "stream": _SWITCH},
    _schema("object"),
    "The upstream's reply, unchanged.",
    headers=[],
)
