"""`/v1/messages`, as Anthropic's own client sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx
import pytest

from gateway.app import create_app
from gateway.config import Settings
from gateway.dialects.messages_input import chat_request
from gateway.errors import BadRequest, UpstreamError
from gateway.upstreams.base import Upstream
from gateway.upstreams.client import HTTPUpstream
from tests.fakes import Script, ScriptedUpstream, Text, call, calls, says, thinks
from tests.serving import serving
from tests.stub_engine import Json, stub_engine

WEATHER = {"name": "weather", "description": "Now.", "input_schema": {"type": "object", "properties": {}}}
ASKS = {"role": "user", "content": "hi"}
TALK: dict[str, Any] = {"model": "tiny", "max_tokens": 4096, "messages": [ASKS]}
THINKING = {"type": "enabled", "budget_tokens": 1024}


@asynccontextmanager
async def client_before(upstream: Upstream) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's client, talking to the gateway in front of this engine."""
    async with (
        serving(create_app(Settings(), upstream)) as address,
        anthropic.AsyncAnthropic(base_url=address, api_key="none", max_retries=0) as client,
    ):
        yield client


@asynccontextmanager
async def client_of(*scripts: Script) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, ScriptedUpstream]]:
    """Anthropic's client with a scripted engine."""
    upstream = ScriptedUpstream(*scripts, strict=True)
    async with client_before(upstream) as client:
        yield client, upstream


class TestReplies:
    """Unstreamed replies."""

    async def test_text_comes_as_a_block(self) -> None:
        """A plain reply is one text block, with its usage and the `scaling` object."""
        async with client_of(says("Hel", "lo")) as (client, upstream):
            message = await client.messages.create(**TALK, system="Be brief.")
        assert [(block.type, block.text) for block in message.content] == [("text", "Hello")]
        assert (message.role, message.type, message.stop_reason) == ("assistant", "message", "end_turn")
        assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 2)
        assert message.scaling["samples"]["finished"] == 1
        assert upstream.bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}

    async def test_thinking_is_a_block_of_its_own(self) -> None:
        """Thinking comes before the text, under the client's own budget, with the signature `unsigned`."""
        async with client_of(thinks(3, "The answer is 7.")) as (client, _):
            message = await client.messages.create(**TALK, thinking=THINKING)
        thinking, text = message.content
        assert thinking.thinking.strip() == "step0 step1 step2"
        assert thinking.signature == "unsigned"
        assert text.text == "The answer is 7."
        assert message.usage.output_tokens_details.thinking_tokens == 3
        assert message.scaling["budget"]["limit"] == 1024

    async def test_the_budget_is_kept(self) -> None:
        """The gateway ends thinking that passes its budget, and an answer follows."""
        async with client_of(thinks(40, close=False)) as (client, upstream):
            message = await client.messages.create(**TALK, thinking={"type": "enabled", "budget_tokens": 5})
        assert message.scaling["budget"]["enforced"] == "forced"
        assert message.usage.output_tokens_details.thinking_tokens == 5
        assert "7" in message.content[-1].text
        assert upstream.resumed[0].endswith("</think>\n\n")

    async def test_tool_calls_are_blocks(self) -> None:
        """Each call is a block with its input as an object; the tools go upstream in chat's shape."""
        function = {"name": "weather", "arguments": '{"city": "Ulm"}'}
        calls = [{"id": "call_1", "type": "function", "function": function}]
        script = says(Text("Let me see.", delta={"tool_calls": calls}), finish="tool_calls")
        choice = {"type": "any", "disable_parallel_tool_use": True}
        async with client_of(script) as (client, upstream):
            message = await client.messages.create(**TALK, tools=[WEATHER], tool_choice=choice)
        assert message.stop_reason == "tool_use"
        assert [block.type for block in message.content] == ["text", "tool_use"]
        assert (message.content[1].id, message.content[1].input) == ("call_1", {"city": "Ulm"})
        body = upstream.bodies[0]
        assert body["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]
        assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)

    @pytest.mark.parametrize(
        ("script", "reason", "sequence"),
        [
            (says("a", finish="length"), "max_tokens", None),
            (says("a", stop_reason="###"), "stop_sequence", "###"),
            (says("a", finish="tool_calls"), "end_turn", None),  # no call, so no client may wait for one
        ],
    )
    async def test_why_it_stopped(self, script: Script, reason: str, sequence: str | None) -> None:
        """The reason uses Anthropic's words, and names the stop sequence if the engine does."""
        async with client_of(script) as (client, upstream):
            message = await client.messages.create(**TALK, stop_sequences=["###"])
        assert (message.stop_reason, message.stop_sequence) == (reason, sequence)
        assert upstream.bodies[0]["stop"] == ["###"]

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_refusal_is_its_own_text(self, stream: bool) -> None:
        """What an engine files as `refusal` is shown, and the reason says what it is."""
        delta = {"role": "assistant", "content": None, "refusal": "I can't help."}
        choice = {"index": 0, "message": delta, "finish_reason": "stop"}
        async with stub_engine() as server:
            server.answers("/v1/chat/completions", Json({"choices": [choice]}))
            async with client_before(HTTPUpstream(f"{server.base_url}")) as client:
                if stream:
                    async with client.messages.stream(**TALK) as events:
                        message = await events.get_final_message()
                else:
                    message = await client.messages.create(**TALK)
        assert [block.text for block in message.content] == ["I can't help."]
        assert message.stop_reason == "refusal"

    async def test_the_headers_work_as_in_chat(self) -> None:
        """Samples, vote and budget can come in headers here too, and the reply reports them."""
        scripts = [says(f"The answer is {value}.") for value in (7, 8, 7)]
        async with client_of(*scripts) as (client, _):
            message = await client.messages.create(
                **TALK, extra_headers={"X-Samples": "3", "X-Stop": "none", "X-Vote": "majority"}
            )
        assert message.content[0].text == "The answer is 7."
        assert [group["count"] for group in message.scaling["vote"]["groups"]] == [2, 1]

    async def test_errors_have_anthropics_shape(self) -> None:
        """The client gets the kind and the message; the message names a bad field."""
        async with client_of(says("Hi")) as (client, _):
            with pytest.raises(anthropic.NotFoundError) as missing:
                await client.messages.create(**{**TALK, "model": "other"})
            with pytest.raises(anthropic.BadRequestError) as bad:
                await client.messages.create(**TALK, extra_headers={"X-Vote": "loudest"})
        assert missing.value.body["type"] == "error"
        assert missing.value.body["error"]["type"] == "not_found_error"
        assert bad.value.body["error"]["type"] == "invalid_request_error"
        assert bad.value.body["error"]["param"] == "X-Vote"

    async def test_a_wrong_method_has_that_shape_too(self) -> None:
        """Every error under `/v1/messages` has Anthropic's shape."""
        async with (
            serving(create_app(Settings(), ScriptedUpstream(says("Hi")))) as address,
            httpx.AsyncClient() as client,
        ):
            reply = await client.get(f"{address}/v1/messages")
        assert (reply.status_code, reply.json()["type"]) == (405, "error")


class TestStreams:
    """Streamed replies."""

    async def test_the_events_come_in_the_official_order(self) -> None:
        """Events run from `message_start` to `message_stop`, and each block starts and stops in between."""
        async with client_of(thinks(1, "The answer is 7.")) as (client, _):
            stream = await client.messages.create(**TALK, thinking=THINKING, stream=True)
            events = [event async for event in stream]
        kinds = [event.type for event in events]
        steps = [kind for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
        block = ["content_block_start", "content_block_delta", "content_block_stop"]
        assert steps == ["message_start", *block, *block, "message_delta", "message_stop"]
        deltas = [event.delta.type for event in events if event.type == "content_block_delta"]
        assert list(dict.fromkeys(deltas)) == ["thinking_delta", "signature_delta", "text_delta"]
        assert events[-2].scaling["samples"]["finished"] == 1

    async def test_the_stream_helper_gathers_thinking_and_text(self) -> None:
        """The client's `stream` ends with the whole message, its usage included."""
        async with (
            client_of(thinks(2, "The answer is 7.")) as (client, _),
            client.messages.stream(**TALK, thinking=THINKING) as stream,
        ):
            texts = [text async for text in stream.text_stream]
            message = await stream.get_final_message()
        assert "".join(texts) == "The answer is 7."
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.content[0].thinking.strip() == "step0 step1"
        assert message.content[0].signature == "unsigned"
        assert message.stop_reason == "end_turn"
        assert (message.usage.input_tokens, message.usage.output_tokens_details.thinking_tokens) == (10, 2)

    async def test_tool_calls_stream_their_input(self) -> None:
        """Input arrives as the model writes it, one block for each call, and ends as whole objects."""
        async with (
            client_of(calls()) as (client, _),
            client.messages.stream(**TALK, tools=[WEATHER]) as stream,
        ):
            message = await stream.get_final_message()
        assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
        assert [block.input for block in message.content[1:]] == [{"city": "Ulm"}, {"city": "Jena"}]
        assert [block.id for block in message.content[1:]] == ["call_1", "call_2"]
        assert message.stop_reason == "tool_use"

    async def test_calls_that_are_written_in_turns_come_one_after_the_other(self) -> None:
        """A block can't grow again once it has ended, so the second call waits for the first."""
        script = says(
            call(0, '{"city": ', "call_1"),
            call(1, '{"city": "Je', "call_2"),
            call(0, '"Ulm"}'),
            call(1, 'na"}'),
            finish="tool_calls",
        )
        async with (
            client_of(script) as (client, _),
            client.messages.stream(**TALK, tools=[WEATHER]) as stream,
        ):
            message = await stream.get_final_message()
        assert [(block.id, block.input) for block in message.content] == [
            ("call_1", {"city": "Ulm"}),
            ("call_2", {"city": "Jena"}),
        ]

    async def test_a_votes_progress_is_a_ping(self) -> None:
        """The client skips pings; a reader of pings sees how the vote stands; then the winner comes."""
        scripts = [says(f"The answer is {value}.") for value in (7, 8, 7)]
        body = {"scaling": {"samples": 3, "stop": "none"}}
        async with (
            client_of(*scripts) as (client, _),
            client.messages.stream(**TALK, extra_body=body) as stream,
        ):
            events = [event async for event in stream]
            message = await stream.get_final_message()
            raw = await client.post("/v1/messages", body={**TALK, **body, "stream": True}, cast_to=str)
        assert "ping" not in {event.type for event in events}
        assert message.content[0].text == "The answer is 7."
        assert raw.count("event: ping\n") == 3
        assert '"finished":3' in raw

    async def test_a_failure_in_mid_stream_raises_in_the_client(self) -> None:
        """An `error` event ends the stream."""
        async with client_of(says("Hel", UpstreamError(502, "engine lost"))) as (client, _):
            with pytest.raises(anthropic.APIStatusError, match="engine lost"):
                async with client.messages.stream(**TALK) as stream:
                    await stream.get_final_message()


class TestCounting:
    """`/v1/messages/count_tokens`."""

    async def test_the_engine_counts(self) -> None:
        """If the engine renders the prompt as tokens, the count is exact, with tools and system."""
        async with stub_engine(owned_by="vllm") as engine:
            engine.answers("/tokenize", Json({"tokens": [1, 2, 3, 4, 5], "count": 5}))
            async with client_before(HTTPUpstream(engine.base_url)) as client:
                counted = await client.messages.count_tokens(
                    model="tiny", messages=[ASKS], tools=[WEATHER], system="Be brief."
                )
            body = engine.bodies("/tokenize")[-1]  # the first one asked for the template
        assert counted.input_tokens == 5
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert body["tools"][0]["function"]["name"] == "weather"

    async def test_a_guess_is_no_count(self) -> None:
        """A prompt that the engine can't render, or that holds an image, is an error."""
        source = {"type": "url", "url": "https://example.org/cat.png"}
        image = {"role": "user", "content": [{"type": "image", "source": source}]}
        async with stub_engine() as engine, client_before(HTTPUpstream(engine.base_url)) as client:
            for message in (ASKS, image):
                with pytest.raises(anthropic.APIStatusError) as raised:
                    await client.messages.count_tokens(model="tiny", messages=[message])
                assert raised.value.status_code == 501


class TestRequests:
    """Requests as the engine gets them."""

    def test_a_tools_turn_becomes_chats_messages(self) -> None:
        """Thinking, text and calls are one message; results follow it, then the user's text."""
        messages = [
            {"role": "user", "content": "weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "unsigned"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Ulm"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Go on."},
                    {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "sun"}]},
                ],
            },
        ]
        function = {"name": "weather", "arguments": '{"city":"Ulm"}'}
        assert chat_request({"messages": messages, "max_tokens": 9}) == {
            "max_tokens": 9,
            "messages": [
                {"role": "user", "content": "weather?"},
                {
                    "role": "assistant",
                    "content": "I look.",
                    "reasoning": "Hm.",
                    "tool_calls": [{"id": "a", "type": "function", "function": function}],
                },
                {"role": "tool", "tool_call_id": "a", "content": "sun"},
                {"role": "user", "content": "Go on."},
            ],
        }

    def test_images_become_urls(self) -> None:
        """Base64 data becomes a data URL in the same position."""
        source = {"type": "base64", "media_type": "image/png", "data": "AA=="}
        content = [{"type": "image", "source": source}, {"type": "text", "text": "what?"}]
        (message,) = chat_request({**TALK, "messages": [{"role": "user", "content": content}]})["messages"]
        assert message["content"] == [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            {"type": "text", "text": "what?"},
        ]

    @pytest.mark.parametrize(
        ("thinking", "fields"),
        [
            ({"type": "disabled"}, {"thinking": {"type": "disabled"}}),
            ({"type": "enabled", "budget_tokens": 9}, {"thinking": {"type": "enabled", "budget_tokens": 9}}),
            ({"type": "adaptive"}, {}),
            ({"type": "adaptive", "display": "omitted"}, {"include_reasoning": False}),
        ],
    )
    def test_thinking_becomes_the_budget(self, thinking: dict[str, Any], fields: dict[str, Any]) -> None:
        """Every type but `adaptive` sets a budget; `display` decides whether the reply shows thinking."""
        assert chat_request({**TALK, "thinking": thinking}) == {**chat_request(TALK), **fields}

    def test_output_config_is_effort_and_schema(self) -> None:
        """Effort becomes the budget's level, and a format becomes the engine's schema."""
        config = {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}}
        chat = chat_request({**TALK, "output_config": config})
        assert chat["reasoning_effort"] == "high"
        assert chat["response_format"]["json_schema"]["schema"] == {"type": "object"}

    def test_hints_are_left_out_and_an_engines_extras_go_along(self) -> None:
        """The gateway drops fields without effect; fields that it doesn't know reach the engine."""
        hints = {"metadata": {"user_id": "u"}, "cache_control": {"type": "ephemeral"}, "service_tier": "auto"}
        chat = chat_request({**TALK, **hints, "top_k": 5, "temperature": 0.2, "seed": 1})
        assert chat == {**chat_request(TALK), "top_k": 5, "temperature": 0.2, "seed": 1}

    @pytest.mark.parametrize(
        ("fields", "param", "message"),
        [
            ({"max_tokens": None}, "max_tokens", "from 1"),
            ({"messages": []}, "messages", "at least one"),
            ({"messages": [ASKS, {"role": "assistant", "content": "So"}]}, "messages", "the user's"),
            ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "blocks"),
            (
                {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
                "messages[0].content[0].type",
                "tool_result",
            ),
            ({"mcp_servers": [{"url": "x"}]}, "mcp_servers", "tools"),
            ({"container": "c"}, "container", "no code"),
            ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type", "custom"),
            ({"tools": [WEATHER], "tool_choice": {"type": "some"}}, "tool_choice.type", "any"),
            ({"thinking": {"type": "between_tools"}}, "thinking.type", "disabled"),
            ({"output_config": {"effort": "huge"}}, "output_config.effort", "xhigh"),
            ({"stop_sequences": "x"}, "stop_sequences", "list"),
        ],
    )
    def test_a_refusal_names_the_field(self, fields: dict[str, Any], param: str, message: str) -> None:
        """Each refusal names the field and says what is allowed."""
        with pytest.raises(BadRequest) as refusal:
            chat_request({**TALK, **fields})
        assert refusal.value.param == param
        assert message in refusal.value.message
