"""Whatever a client sends, the dialect reads it or refuses it, and never fails."""

import asyncio
import copy
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app import create_app
from gateway.config import Settings
from gateway.dialects import messages_input, responses_input
from gateway.dialects.chat import parse_body
from gateway.errors import BadRequest
from gateway.upstreams.base import Chunk, Completion, UpstreamRequest
from tests.fakes import ScriptedUpstream, says

WORDS = re.findall(
    r"\w+",
    """
    user assistant system developer tool text input_text output_text refusal input_image image
    image_url url  base64 message reasoning thinking redacted_thinking function function_call
    function_call_output tool_use  tool_result custom json_schema json_object allowed_tools auto any
    none required enabled disabled adaptive  omitted detailed low high standard
    """,
)
KEYS = re.findall(
    r"\w+",
    """
    type role content text input instructions output call_id arguments name id tools tool_choice
    format schema  mode reasoning effort summary include store stream n metadata max_tokens
    max_output_tokens messages system  thinking budget_tokens display output_config stop_sequences
    source media_type data url image_url detail  file_id tool_use_id input_schema signature function
    parameters model context
    """,
)
SCALARS = st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(WORDS) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
PARTS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(WORDS)}, optional=dict.fromkeys(KEYS[2:], VALUES))
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(WORDS[:4])},
        optional={"content": PARTS | VALUES, "type": st.sampled_from(WORDS), "summary": PARTS},
    ),
    max_size=4,
)
BODIES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6).flatmap(
    lambda body: st.fixed_dictionaries(
        {
            **{key: st.just(value) for key, value in body.items()},
            "input": TURNS | VALUES,
            "messages": TURNS | VALUES,
        }
    )
)


def chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """Read a chat request."""
    return parse_body(orjson.dumps(body))


@pytest.mark.parametrize("read", [responses_input.chat_request, messages_input.chat_request, chat])
@settings(deadline=None)
@given(body=BODIES)
def test_a_request_is_read_or_refused_by_name(
    read: Callable[[Mapping[str, Any]], dict[str, Any]], body: dict[str, Any]
) -> None:
    """A request that is read is valid chat; a refusal is a 400 that names a field."""
    refusal = request = None
    try:
        request = read(body)
    except BadRequest as error:
        refusal = error
    if refusal is None:
        assert parse_body(orjson.dumps(request)) == request
    else:
        assert refusal.param


FUNCTION = {"name": "f", "parameters": {"type": "object"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCALING = {"samples": 2, "vote": "majority", "scorer": "confidence", "stop": "none", "max_tokens": 99}
SAMPLING = {"temperature": 0.5, "seed": 1, "scaling": SCALING, "chat_template_kwargs": {"thinking": True}}
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "reasoning": "Hm.", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": "1"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
        "reasoning_effort": "low",
        "reasoning": {"effort": "low", "exclude": True},
        "thinking": {"type": "enabled"},
        "include_reasoning": False,
        "enable_thinking": True,
        "stop": ["x"],
        "logprobs": True,
        "top_logprobs": 2,
        "n": 1,
        "max_tokens": 99,
        "stream": False,
        "stream_options": {"include_usage": True},
        "user": "me",
        "metadata": {"a": "b"},
        **SAMPLING,
    },
    "/v1/responses": {
        "model": "tiny",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "1"},
        ],
        "instructions": "Be brief.",
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": "auto",
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {}}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": [],
        "max_output_tokens": 99,
        "metadata": {"a": "b"},
        "stream": False,
        "user": "me",
        "top_p": 0.9,
        "logprobs": True,
        **SAMPLING,
    },
    "/v1/messages": {
        "model": "tiny",
        "max_tokens": 99,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "1"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 10},
        "output_config": {"effort": "low"},
        "stop_sequences": ["x"],
        "metadata": {"user_id": "me"},
        "stream": False,
        "top_k": 3,
        **SAMPLING,
    },
}


def _nested(depth: int) -> Any:
    """Return lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ODD = (
    VALUES
    | st.sampled_from([2**31, 2**63, 2**64 - 1, -(2**63), 10**30, 0.0, -1.5, 1e308, "\ud83d\ude00", "\x00"])
    | st.integers(190, 300).map(_nested)
)
HEADERS = st.dictionaries(
    st.sampled_from(["X-Reasoning-Budget", "X-Samples", "X-Vote", "X-Scorer", "X-Stop", "X-Session-Id"]),
    st.sampled_from(["low", "2", "auto", "best", "first-1", "confident", ""]) | st.binary(max_size=4),
    max_size=2,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where every part of a body stands."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, part in entries:
        yield (*place, key)
        yield from places(part, (*place, key))


def replaced(body: Mapping[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return the body with another value in one place."""
    changed: Any = copy.deepcopy(dict(body))
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return changed


class _Writing(ScriptedUpstream):
    """An engine whose requests are written as JSON, as those to a real one are."""

    async def complete(self, plan: UpstreamRequest) -> Completion:
        """Write the request, and answer it."""
        orjson.dumps(plan.body)
        return await super().complete(plan)

    async def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """Write the request, and answer it."""
        orjson.dumps(plan.body)
        async for chunk in super().stream(plan):
            yield chunk


class _Client:
    """Sends requests to one gateway in an event loop of its own."""

    def __init__(self) -> None:
        upstream = _Writing(says("The answer is 7."), strict=True)
        self._app = create_app(Settings(math_workers=0), upstream)
        self._runner = asyncio.Runner()

    def post(self, path: str, payload: bytes, headers: Mapping[str, str | bytes]) -> httpx.Response:
        """Return the reply; an error that the app raises is the test's."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.post(path, content=payload, headers=list(headers.items()))  # type: ignore[arg-type]

        return self._runner.run(send())

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()


@pytest.fixture(scope="module")
def client() -> Iterator[_Client]:
    """One client for all examples."""
    made = _Client()
    yield made
    made.close()


def check_reply(path: str, reply: httpx.Response) -> None:
    """Check that a reply is an answer, or an error of the client's in the shape that the client knows."""
    assert reply.status_code == 200 or 400 <= reply.status_code < 500, reply.text
    if reply.status_code != 200:
        body = reply.json()
        assert body["error"]["message"]
        assert "type" in body["error"]
        assert path != "/v1/messages" or body["type"] == "error"
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize("path", VALID)
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_value_in_any_field_is_answered_or_refused(
    path: str, client: _Client, data: st.DataObject
) -> None:
    """Never a 500: an engine may take what OpenAI's clients never send, but the gateway survives it."""
    body, headers = VALID[path], data.draw(HEADERS)
    dropped = data.draw(st.sets(st.sampled_from(sorted(body.keys() - {"model", "messages", "input"}))))
    body = {key: value for key, value in body.items() if key not in dropped}
    place = data.draw(st.sampled_from(sorted(places(body), key=str)))
    stream = data.draw(st.booleans())
    changed = replaced({**body, "stream": stream} if stream else body, place, data.draw(ODD))
    check_reply(path, client.post(path, json.dumps(changed).encode(), headers))


@pytest.mark.parametrize("path", VALID)
def test_a_valid_body_is_answered(path: str, client: _Client) -> None:
    """The bodies that the other tests change are valid themselves."""
    body = {key: value for key, value in VALID[path].items() if key not in ("thinking", "enable_thinking")}
    reply = client.post(path, orjson.dumps(body), {})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("path", VALID)
@pytest.mark.parametrize(
    "payload",
    [
        b'{"model": "\\ud800"}',
        b'{"n": NaN}',
        b'{"seed": 1e999}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b"\xff",
        b"",
    ],
)
def test_no_json_is_a_400(path: str, payload: bytes, client: _Client) -> None:
    """Lone surrogates, numbers that JSON doesn't know, and bytes that are no text."""
    reply = client.post(path, payload, {})
    assert reply.status_code == 400
    check_reply(path, reply)


@pytest.mark.parametrize("path", VALID)
@pytest.mark.parametrize("depth", [190, 199, 200, 230, 254, 300, 1000, 2000])
@pytest.mark.parametrize("field", ["metadata", "tools", "vendor"])
def test_a_body_nested_too_deeply_is_a_400(path: str, depth: int, field: str, client: _Client) -> None:
    """What can be read but not written again is refused at the door, wherever it stands."""
    mark = f'"{field}":0'.encode()
    deep = f'"{field}":'.encode() + b'{"a":' * depth + b"1" + b"}" * depth
    payload = orjson.dumps({**VALID[path], field: 0}).replace(mark, deep)
    reply = client.post(path, payload, {})
    check_reply(path, reply)
    assert depth < 200 or reply.status_code == 400
