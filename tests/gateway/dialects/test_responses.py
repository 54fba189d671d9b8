"""`/v1/responses`, as OpenAI's own client sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from gateway.app import create_app
from gateway.config import Settings
from gateway.dialects.responses_input import chat_request
from gateway.errors import BadRequest, UpstreamError
from tests.fakes import Script, ScriptedUpstream, Text, calls, says, thinks
from tests.serving import serving

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
TALK = {"model": "tiny", "input": "hi"}


@asynccontextmanager
async def client_of(*scripts: Script) -> AsyncIterator[tuple[openai.AsyncOpenAI, ScriptedUpstream]]:
    """OpenAI's client, talking to the gateway in front of a scripted engine."""
    upstream = ScriptedUpstream(*scripts, strict=True)
    async with (
        serving(create_app(Settings(), upstream)) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client, upstream


async def events_of(client: openai.AsyncOpenAI, **fields: Any) -> list[Any]:
    """Return all events of a streamed response."""
    return [event async for event in await client.responses.create(**TALK, stream=True, **fields)]


class TestReplies:
    """Unstreamed replies."""

    async def test_text_comes_as_a_message(self) -> None:
        """A plain reply is one message, complete, with its usage and the `scaling` object."""
        async with client_of(says("Hel", "lo")) as (client, _):
            response = await client.responses.create(**TALK, metadata={"run": "7"})
        assert response.output_text == "Hello"
        assert [item.type for item in response.output] == ["message"]
        assert (response.status, response.store, response.metadata) == ("completed", False, {"run": "7"})
        assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 2)
        assert response.scaling["samples"]["finished"] == 1

    async def test_thinking_is_an_item_of_its_own(self) -> None:
        """Thinking comes before the message, and its tokens are counted apart."""
        async with client_of(thinks(3, "The answer is 7.")) as (client, _):
            response = await client.responses.create(**TALK, reasoning={"effort": "low"})
        thinking, message = response.output
        assert "".join(part.text for part in thinking.content).strip() == "step0 step1 step2"
        assert thinking.summary == []
        assert message.content[0].text == "The answer is 7."
        assert response.usage.output_tokens_details.reasoning_tokens == 3
        assert response.scaling["budget"]["asked"] == "low"

    async def test_a_summary_is_the_thinking_itself(self) -> None:
        """A client that asks for a summary reads nothing else, so the summary holds the thinking."""
        async with client_of(thinks(2, "The answer is 7.")) as (client, _):
            response = await client.responses.create(**TALK, reasoning={"effort": "low", "summary": "auto"})
        assert [part.text.strip() for part in response.output[0].summary] == ["step0 step1"]
        assert response.output[0].content is None

    async def test_thinking_can_be_left_out(self) -> None:
        """`exclude` keeps the thinking out of the reply, not out of the usage."""
        async with client_of(thinks(2, "The answer is 7.")) as (client, _):
            response = await client.responses.create(
                **TALK, extra_body={"reasoning": {"effort": "low", "exclude": True}}
            )
        assert [item.type for item in response.output] == ["message"]
        assert response.usage.output_tokens_details.reasoning_tokens == 2

    async def test_tool_calls_are_items(self) -> None:
        """Each call is an item with its own arguments; the tools go upstream in chat's shape."""
        calls = [
            {
                "id": f"call_{i}",
                "type": "function",
                "function": {"name": "weather", "arguments": f'{{"n":{i}}}'},
            }
            for i in range(2)
        ]
        script = says(Text(delta={"tool_calls": calls}), finish="tool_calls")
        async with client_of(script) as (client, upstream):
            response = await client.responses.create(**TALK, tools=[WEATHER], tool_choice="required")
        assert [(item.type, item.call_id, item.name, item.arguments) for item in response.output] == [
            ("function_call", "call_0", "weather", '{"n":0}'),
            ("function_call", "call_1", "weather", '{"n":1}'),
        ]
        function = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
        assert upstream.bodies[0]["tools"] == [{"type": "function", "function": function}]
        assert upstream.bodies[0]["tool_choice"] == "required"

    async def test_a_cut_reply_is_incomplete(self) -> None:
        """A reply that the token limit cut says so."""
        async with client_of(says("Hel", finish="length")) as (client, _):
            response = await client.responses.create(**TALK, max_output_tokens=16)
        assert response.status == "incomplete"
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output[0].status == "incomplete"

    async def test_parse_gives_the_object_of_a_schema(self) -> None:
        """The client's `parse` sends a schema, which reaches the engine as `response_format`."""

        class Answer(BaseModel):
            value: int

        async with client_of(says('{"value": 7}')) as (client, upstream):
            response = await client.responses.parse(**TALK, text_format=Answer)
        assert response.output_parsed == Answer(value=7)
        form = upstream.bodies[0]["response_format"]
        assert (form["type"], form["json_schema"]["name"]) == ("json_schema", "Answer")
        assert form["json_schema"]["schema"]["required"] == ["value"]

    async def test_the_headers_work_as_in_chat(self) -> None:
        """Samples, vote and budget can come in headers here too, and the reply reports them."""
        scripts = [says(f"The answer is {value}.") for value in (7, 8, 7)]
        async with client_of(*scripts) as (client, _):
            raw = await client.responses.with_raw_response.create(
                **TALK, extra_headers={"X-Samples": "3", "X-Stop": "none", "X-Vote": "majority"}
            )
        response = raw.parse()
        assert raw.headers["x-samples-used"] == "3"
        assert response.output_text == "The answer is 7."
        assert [group["count"] for group in response.scaling["vote"]["groups"]] == [2, 1]

    async def test_an_unknown_model_is_a_404(self) -> None:
        """The client raises its own error, with the names that exist."""
        async with client_of(says("Hi")) as (client, _):
            with pytest.raises(openai.NotFoundError, match="available: tiny"):
                await client.responses.create(model="other", input="hi")


class TestStreams:
    """Streamed replies."""

    async def test_text_events_come_in_the_official_order(self) -> None:
        """Events run from `response.created` to `response.completed`, numbered without a gap."""
        async with client_of(says("Hel", "lo")) as (client, _):
            events = await events_of(client)
        assert [event.type for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [event.sequence_number for event in events] == list(range(10))
        assert events[-1].response.output_text == events[6].text == "Hello"
        assert len({event.item_id for event in events[3:8]}) == 1
        assert events[-1].response.scaling["samples"]["finished"] == 1

    @pytest.mark.parametrize(
        ("summary", "kind"), [(None, "reasoning_text"), ("detailed", "reasoning_summary_text")]
    )
    async def test_thinking_has_its_own_events(self, summary: str | None, kind: str) -> None:
        """Thinking streams as `reasoning_text`, or as the summary if the client wants one."""
        async with client_of(thinks(2, "The answer is 7.")) as (client, _):
            events = await events_of(client, reasoning={"effort": "low", "summary": summary})
        deltas = [event.delta for event in events if event.type == f"response.{kind}.delta"]
        done = next(event for event in events if event.type == f"response.{kind}.done")
        assert "".join(deltas) == done.text
        assert done.text.strip() == "step0 step1"
        assert [item.type for item in events[-1].response.output] == ["reasoning", "message"]

    async def test_tool_calls_stream_their_arguments(self) -> None:
        """Arguments arrive as the model writes them, one item for each call, and end as whole JSON."""
        async with (
            client_of(calls()) as (client, _),
            client.responses.stream(**TALK, tools=[WEATHER]) as stream,
        ):
            deltas = [
                event.delta
                async for event in stream
                if event.type == "response.function_call_arguments.delta"
            ]
            response = await stream.get_final_response()
        assert deltas == ['{"city": ', '"Ulm"}', '{"city": "Jena"}']
        assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
        assert [item.call_id for item in response.output[1:]] == ["call_1", "call_2"]
        assert response.output[1].arguments == '{"city": "Ulm"}'

    async def test_the_stream_helper_gathers_text_and_thinking(self) -> None:
        """The client's `stream` ends with the response that its events describe."""
        async with (
            client_of(thinks(2, "The answer is 7.")) as (client, _),
            client.responses.stream(**TALK, reasoning={"effort": "low"}) as stream,
        ):
            response = await stream.get_final_response()
        assert response.output_text == "The answer is 7."
        assert response.status == "completed"
        assert response.usage.output_tokens_details.reasoning_tokens == 2

    async def test_a_vote_tells_how_it_stands(self) -> None:
        """Each sample's end is a `response.in_progress` event; then the winner comes."""
        scripts = [says(f"The answer is {value}.") for value in (7, 8, 7)]
        body = {"scaling": {"samples": 3, "stop": "none"}}
        async with (
            client_of(*scripts) as (client, _),
            client.responses.stream(**TALK, extra_body=body) as stream,
        ):
            events = [event async for event in stream]
            response = await stream.get_final_response()
        standings = [event for event in events if getattr(event, "scaling", None)]
        assert [event.type for event in standings] == ["response.in_progress"] * 3
        assert standings[-1].scaling["samples"]["finished"] == 3
        assert response.output_text == "The answer is 7."
        assert response.scaling["vote"]["share"] == pytest.approx(2 / 3, abs=1e-3)

    async def test_a_first_sample_shown_live_is_corrected(self) -> None:
        """If the vote disagrees with the live sample, the winner follows after a marked line."""
        scripts = [says(f"The answer is {value}.") for value in (8, 7, 7)]
        body = {"scaling": {"samples": 3, "stop": "none", "stream": "first"}}
        async with client_of(*scripts) as (client, _):
            events = await events_of(client, extra_body=body)
        response = events[-1].response
        shown, winner = response.output_text.split("\n\n[The samples' vote came to another answer.]\n\n")
        assert (shown, winner) == ("The answer is 8.", "The answer is 7.")
        assert response.output_text[response.scaling["revised"] :] == winner

    async def test_a_cut_reply_ends_incomplete(self) -> None:
        """The last event is `response.incomplete`, as from OpenAI."""
        async with client_of(says("Hel", finish="length")) as (client, _):
            events = await events_of(client)
        assert events[-1].type == "response.incomplete"
        assert events[-1].response.incomplete_details.reason == "max_output_tokens"

    async def test_a_failure_in_mid_stream_raises_in_the_client(self) -> None:
        """The text so far stays; then the response fails and the client raises."""
        async with client_of(says("Hel", UpstreamError(502, "engine lost"))) as (client, _):
            stream = await client.responses.create(**TALK, stream=True)
            seen = []
            while not seen or seen[-1].type != "response.failed":
                seen.append(await anext(stream))
            with pytest.raises(openai.APIError, match="engine lost"):
                await anext(stream)
        assert seen[-2].delta == "Hel"
        assert seen[-1].response.error.message == "engine lost"

    async def test_a_failure_before_the_first_event_has_its_status(self) -> None:
        """The status line waits, so an early failure is an HTTP error."""
        async with client_of(says(UpstreamError(503, "full"))) as (client, _):
            with pytest.raises(openai.InternalServerError, match="full") as raised:
                await client.responses.create(**TALK, stream=True)
        assert raised.value.status_code == 503


class TestRequests:
    """Requests as the engine gets them."""

    def test_a_string_is_the_users_message(self) -> None:
        """`instructions` become the system message before the input."""
        chat = chat_request({"input": "hi", "instructions": "Be brief.", "max_output_tokens": 5})
        assert chat == {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
            "max_tokens": 5,
        }

    def test_one_turn_of_items_is_one_message(self) -> None:
        """Consecutive thinking, text and calls are one message of the assistant; results follow it."""
        items = [
            {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
            {
                "type": "reasoning",
                "id": "r",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "Hm."}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "sun"},
            {"type": "function_call_output", "call_id": "b", "output": "rain"},
        ]
        calls = [
            {"id": i, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for i in "ab"
        ]
        assert chat_request({"input": items})["messages"] == [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": "I look.", "reasoning": "Hm.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "sun"},
            {"role": "tool", "tool_call_id": "b", "content": "rain"},
        ]

    def test_developers_are_the_system(self) -> None:
        """Developer text becomes system text, and consecutive system messages become one."""
        items = [{"role": "developer", "content": "One."}, {"role": "user", "content": "hi"}]
        chat = chat_request({"instructions": "Zero.", "input": items})
        assert chat["messages"][0] == {"role": "system", "content": "Zero.\n\nOne."}

    def test_images_go_along_in_place(self) -> None:
        """An image stays between the texts that surround it."""
        parts = [
            {"type": "input_text", "text": "this"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
        ]
        (message,) = chat_request({"input": [{"role": "user", "content": parts}]})["messages"]
        assert message["content"] == [
            {"type": "text", "text": "this"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
        ]

    def test_allowed_tools_are_the_only_ones(self) -> None:
        """Chat has no `allowed_tools`, so the other tools are left out."""
        other = {**WEATHER, "name": "other"}
        choice = {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "other"}],
        }
        chat = chat_request({"input": "hi", "tools": [WEATHER, other], "tool_choice": choice})
        assert [tool["function"]["name"] for tool in chat["tools"]] == ["other"]
        assert chat["tool_choice"] == "required"

    def test_hints_are_left_out_and_an_engines_extras_go_along(self) -> None:
        """The gateway drops fields without effect; fields that it doesn't know reach the engine."""
        body = {"input": "hi", "store": False, "user": "u", "include": ["reasoning.encrypted_content"]}
        chat = chat_request({**body, "truncation": "auto", "top_k": 5, "temperature": 0.2})
        assert chat.keys() == {"messages", "top_k", "temperature"}

    @pytest.mark.parametrize(
        ("fields", "param", "message"),
        [
            ({"previous_response_id": "r"}, "previous_response_id", "whole conversation"),
            ({"conversation": "c"}, "conversation", "whole conversation"),
            ({"store": True}, "store", "false"),
            ({"background": True}, "background", "false"),
            ({"prompt": {"id": "p"}}, "prompt", "instructions"),
            ({"tools": [{"type": "web_search"}]}, "tools[0].type", "function"),
            ({"tool_choice": {"type": "mcp"}}, "tool_choice.type", "allowed_tools"),
            ({"top_logprobs": 3}, "top_logprobs", "chat/completions"),
            ({"include": ["message.output_text.logprobs"]}, "include", "chat/completions"),
            ({"max_output_tokens": 0}, "max_output_tokens", "from 1"),
            ({"text": {"format": {"type": "grammar"}}}, "text.format.type", "json_schema"),
            ({"reasoning": {"summary": "long"}}, "reasoning.summary", "detailed"),
            ({"input": []}, "input", "at least one"),
            ({"input": [{"role": "system", "content": "x"}]}, "input", "not the system's"),
            ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "function_call_output"),
            ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "developer"),
            (
                {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
                "input[0].content[0].type",
                "input_image",
            ),
        ],
    )
    def test_a_refusal_names_the_field(self, fields: dict[str, Any], param: str, message: str) -> None:
        """Each refusal names the field and says what is allowed."""
        with pytest.raises(BadRequest) as refusal:
            chat_request({"input": "hi", **fields})
        assert refusal.value.param == param
        assert message in refusal.value.message
