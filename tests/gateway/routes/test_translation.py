"""What the upstream gets of a request that asks for nothing."""

from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.config import Settings
from tests.fakes import ScriptedUpstream, says

TOOL_SCHEMA = {"type": "object", "properties": {}}
CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
USAGE_ASKED = {"stream_options": {"include_usage": True}}


async def sent(path: str, body: dict[str, Any], settings: Settings | None = None) -> dict[str, Any]:
    """Return the body of the one upstream request to which a request leads."""
    upstream = ScriptedUpstream(says("Hello."))
    transport = httpx.ASGITransport(create_app(settings or Settings(), upstream))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        reply = await client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    [received] = upstream.bodies
    return dict(received)


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "adaptive", "vendor": 1}},
        {"thinking": {"type": "auto"}},
        {"thinking": {"clear_thinking": False}},
        {"reasoning": {"exclude": True, "summary": "auto", "vendor": {"a": 1}}},
        {"include_reasoning": True, "preserve_thinking": True, "clear_thinking": False},
        {"reasoning_effort": None, "stop": None},
        {"stop": "x", "seed": 2**40, "logit_bias": {"5": -1.5}, "guided_json": {"type": "object"}},
        {"max_completion_tokens": 5, "user": "me", "metadata": {"a": ["b"]}},
    ],
)
async def test_a_chat_request_goes_out_as_it_came(fields: dict[str, Any]) -> None:
    """Vendors' options of thinking included, as long as they name no budget."""
    body = {**CHAT, **fields}
    assert await sent("/v1/chat/completions", body) == body


@pytest.mark.parametrize("setting", [{"default_budget": "low"}, {"budget_cap": 100}])
async def test_an_operators_budget_needs_the_thinking_in_sight(setting: dict[str, Any]) -> None:
    """So the gateway hides it itself, instead of leaving that to the upstream."""
    body = {**CHAT, "include_reasoning": False, "reasoning": {"exclude": True, "vendor": 1}}
    received = await sent("/v1/chat/completions", body, Settings(**setting))
    assert "include_reasoning" not in received
    assert received["reasoning"] == {"vendor": 1}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "translated"),
    [
        ({}, {}),
        ({"reasoning": {"summary": "auto"}, "store": False, "metadata": {"a": "b"}}, {}),
        ({"reasoning": {"exclude": True}}, {}),
        ({"temperature": 0.5, "top_k": 3, "truncation": "auto"}, {"temperature": 0.5, "top_k": 3}),
        ({"max_output_tokens": 9, "text": {"format": {"type": "text"}}}, {"max_tokens": 9}),
    ],
)
async def test_a_response_sends_what_the_table_says_and_nothing_else(
    fields: dict[str, Any], translated: dict[str, Any], stream: bool
) -> None:
    """The table stands in docs/reference/endpoints.md; a stream asks for the usage that its end reports."""
    body = {"model": "tiny", "input": "hi", **fields, **({"stream": True} if stream else {})}
    assert await sent("/v1/responses", body) == {**CHAT, **translated, **(USAGE_ASKED if stream else {})}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "translated"),
    [
        ({}, {}),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, {}),
        ({"metadata": {"user_id": "u"}, "stop_sequences": ["x"], "top_k": 3}, {"stop": ["x"], "top_k": 3}),
        (
            {"tools": [{"name": "f", "input_schema": TOOL_SCHEMA}]},
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": TOOL_SCHEMA}}]},
        ),
    ],
)
async def test_a_message_sends_what_the_table_says_and_nothing_else(
    fields: dict[str, Any], translated: dict[str, Any], stream: bool
) -> None:
    """The table stands in docs/reference/endpoints.md; a stream asks for the usage that its end reports."""
    body = {**CHAT, "max_tokens": 9, **fields, **({"stream": True} if stream else {})}
    expected = {**CHAT, "max_tokens": 9, **translated, **(USAGE_ASKED if stream else {})}
    assert await sent("/v1/messages", body) == expected
