"""`POST /v1/chat/completions` in the whole app, on a scripted engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError

from gateway.app import create_app
from gateway.config import Settings
from gateway.errors import UpstreamError
from gateway.upstreams.client import HTTPUpstream
from tests.fakes import Script, ScriptedUpstream, Text, says, thinks, until
from tests.serving import events_of, serving
from tests.stub_engine import Events, Json, chunk, stub_engine

PATH = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "What is 3 + 4?"}]}
SEVEN = says("The answer is ", "\\boxed{7}.")
EIGHT = says("The answer is ", "\\boxed{8}.")
BROKEN = UpstreamError(503, "out of order", {"type": "overloaded"})


@asynccontextmanager
async def client_of(upstream: ScriptedUpstream) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway in front of this engine."""
    transport = httpx.ASGITransport(create_app(Settings(), upstream), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


async def post(
    upstream: ScriptedUpstream, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    """Return the reply to one request."""
    async with client_of(upstream) as client:
        return await client.post(PATH, json={**ASK, **fields}, headers=headers)


async def streamed(
    upstream: ScriptedUpstream, headers: dict[str, str] | None = None, **fields: Any
) -> list[dict[str, Any]]:
    """Return the events of one streamed request that ends well."""
    response = await post(upstream, headers, stream=True, **fields)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    return events_of(response.text)


def text_of(events: list[dict[str, Any]], field: str = "content", index: int = 0) -> str:
    """Return all text that the deltas of one choice put into a field."""
    return "".join(
        choice["delta"].get(field) or ""
        for event in events
        for choice in event["choices"]
        if choice["index"] == index
    )


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """Return the value of one line of `/metrics`."""
    lines = (await client.get("/metrics")).text.splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " ")), 0.0)


async def eventually(client: httpx.AsyncClient, name: str, value: float) -> None:
    """Wait until a line of `/metrics` has this value."""
    async with asyncio.timeout(10):
        while await metric(client, name) != value:
            pass


async def test_a_plain_request_comes_back_whole() -> None:
    """The reply is OpenAI's, with all fields of the upstream and the gateway's report."""
    script = says("Hello.", Text(delta={"refusal": None, "annotations": ["x"]}), stop_reason=5)
    response = await post(ScriptedUpstream(script))
    body = response.json()
    assert response.status_code == 200
    [choice] = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "Hello."
    assert choice["message"]["annotations"] == ["x"]
    assert (choice["finish_reason"], choice["stop_reason"], choice["index"]) == ("stop", 5, 0)
    assert (body["id"], body["system_fingerprint"], body["object"]) == ("up-1", "fp", "chat.completion")
    assert body["usage"]["prompt_tokens"] == 10
    assert body["usage"]["completion_tokens"] == 2
    assert body["scaling"]["budget"]["asked"] is None
    assert response.headers["x-reasoning-budget-applied"] == "none"
    assert response.headers["x-samples-used"] == "1"
    assert response.headers["x-request-id"]


async def test_request_fields_go_upstream_untouched() -> None:
    """Fields that the gateway doesn't own reach the upstream: tools, formats, images, vendors' extras."""
    fields: dict[str, Any] = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "logprobs": True,
        "top_logprobs": 3,
        "stop": ["\n"],
        "seed": 7,
        "temperature": 0.1,
        "max_tokens": 50,
        "user": "me",
        "metadata": {"a": "b"},
        "guided_regex": "[0-9]+",
        "chat_template_kwargs": {"custom": 1},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
                "name": "bob",
            },
        ],
    }
    upstream = ScriptedUpstream(SEVEN)
    assert (await post(upstream, **fields)).status_code == 200
    assert upstream.bodies == [{"model": "tiny", **fields}]
    upstream = ScriptedUpstream(SEVEN)
    await streamed(upstream, **fields)
    assert upstream.bodies == [{"model": "tiny", **fields}]


async def test_a_stream_passes_on_every_chunk() -> None:
    """Each upstream chunk becomes one chunk; role comes once, then texts, logprobs, end, report and usage."""
    logprob = {"content": [{"token": "x", "logprob": -1.0}]}
    script = says(*(Text(word, choice={"logprobs": logprob}) for word in ("The ", "end", ".")))
    upstream = ScriptedUpstream(script, counts=False)
    events = await streamed(upstream, stream_options={"include_usage": True})
    assert text_of(events) == "The end."
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    assert [delta.get("role") for delta in deltas].count("assistant") == 1
    choices = [choice for event in events for choice in event["choices"]]
    assert sum(choice.get("logprobs") == logprob for choice in choices) == 3
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert {event["id"] for event in events} == {"up-1"}
    assert events[-1]["usage"]["completion_tokens"] == 3
    assert events[-1]["choices"] == []
    assert [event for event in events if "scaling" in event] == [events[-2]]
    assert not any("usage" in event for event in events[:-1])


async def test_a_stream_sends_no_usage_unless_asked() -> None:
    """OpenAI does the same; the gateway's own counting doesn't show."""
    events = await streamed(ScriptedUpstream(SEVEN), {"X-Reasoning-Budget": "low"})
    assert not any("usage" in event for event in events)


async def test_held_back_text_does_not_hold_back_its_logprobs() -> None:
    """A token that may begin a tag waits, but all logprobs arrive in order."""
    entries = [{"token": token, "logprob": -1.0} for token in ("a", "<thi", "s")]
    script = says(*(Text(entry["token"], choice={"logprobs": {"content": [entry]}}) for entry in entries))
    events = await streamed(ScriptedUpstream(script))
    assert text_of(events) == "a<this"
    found = [
        entry
        for event in events
        for choice in event["choices"]
        for entry in (choice.get("logprobs") or {}).get("content", [])
    ]
    assert found == entries


async def test_thinking_and_answer_come_apart() -> None:
    """Thinking in tags goes to both reasoning fields, and `content` holds the answer alone."""
    script = thinks(3, "Seven.")
    message = (await post(ScriptedUpstream(script))).json()["choices"][0]["message"]
    assert message["content"] == "Seven."
    assert message["reasoning"] == message["reasoning_content"] == "step0 step1 step2"
    events = await streamed(ScriptedUpstream(script))
    assert text_of(events) == "Seven."
    assert text_of(events, "reasoning") == text_of(events, "reasoning_content") == "step0 step1 step2"


async def test_thinking_that_the_engine_split_comes_in_both_fields() -> None:
    """Engines use different names for the field; clients get both."""
    script = says(Text(reasoning="Hm, "), Text(reasoning="four."), "Seven.")
    message = (await post(ScriptedUpstream(script))).json()["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"] == "Hm, four."
    assert text_of(await streamed(ScriptedUpstream(script)), "reasoning") == "Hm, four."


@pytest.mark.parametrize("field", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}])
async def test_thinking_can_be_left_out(field: dict[str, Any]) -> None:
    """The reply hides it, but the report counts it."""
    body = (await post(ScriptedUpstream(thinks(3, "Seven.")), **field)).json()
    assert "reasoning" not in body["choices"][0]["message"]
    assert body["scaling"]["budget"]["used"] > 0
    events = await streamed(ScriptedUpstream(thinks(3, "Seven.")), **field)
    assert (text_of(events), text_of(events, "reasoning"), text_of(events, "reasoning_content")) == (
        "Seven.",
        "",
        "",
    )


@pytest.mark.parametrize("renders", [True, False])
@pytest.mark.parametrize("counts", [True, False])
async def test_a_budget_is_enforced(renders: bool, counts: bool) -> None:
    """The gateway cuts thinking at the limit and closes it, and the model answers, streamed or not."""
    for stream in (False, True):
        upstream = ScriptedUpstream(thinks(50), renders=renders, counts=counts)
        headers = {"X-Reasoning-Budget": "10"}
        if stream:
            events = await streamed(upstream, headers, stream_options={"include_usage": True})
            content, reasoning = text_of(events), text_of(events, "reasoning")
            scaling, usage = events[-2]["scaling"], events[-1]["usage"]
            roles = [choice["delta"].get("role") for event in events for choice in event["choices"]]
            assert roles.count("assistant") == 1
        else:
            body = (await post(upstream, headers)).json()
            message = body["choices"][0]["message"]
            content, reasoning = message["content"], message["reasoning"]
            scaling, usage = body["scaling"], body["usage"]
        assert content == "The answer is 7."
        assert reasoning.split() == [f"step{i}" for i in range(len(reasoning.split()))]
        assert 1 <= usage["completion_tokens_details"]["reasoning_tokens"] <= 11
        assert scaling["budget"] | {"used": 0} == {
            "asked": "10", "by": "header", "limit": 10, "enforced": "forced", "family": "generic", "used": 0,
        }  # fmt: skip
        assert len(upstream.plans) == 2
        assert upstream.dropped == 1
        assert upstream.resumed[0].startswith("<think>step0")
        assert upstream.resumed[0].rstrip().endswith("</think>")


async def test_the_clients_system_message_is_kept() -> None:
    """The budget's prompt follows it, and the conversation keeps its order."""
    messages = [{"role": "system", "content": "You are a pirate."}, *ASK["messages"]]
    upstream = ScriptedUpstream(SEVEN)
    await post(upstream, {"X-Reasoning-Budget": "high"}, messages=messages)
    sent = upstream.bodies[0]["messages"]
    assert [message["role"] for message in sent] == ["system", "user"]
    assert sent[0]["content"].startswith("You are a pirate.")
    assert len(sent[0]["content"]) > len("You are a pirate.")


@pytest.mark.parametrize("total", [1, 2, 10])
async def test_a_small_total_leaves_both_sides_something(total: int) -> None:
    """`max_tokens` caps thinking and answer together, and always leaves tokens for the answer."""
    upstream = ScriptedUpstream(thinks(50))
    body = (await post(upstream, {"X-Reasoning-Budget": "high"}, max_tokens=total)).json()
    assert body["choices"][0]["message"]["content"]
    asked_for = [plan.get("max_tokens") for plan in upstream.bodies]
    assert asked_for[0] == total
    assert all(1 <= count <= total for count in asked_for)


@pytest.mark.parametrize(
    ("headers", "param"),
    [({"X-Reasoning-Budget": "much"}, "X-Reasoning-Budget"), ({"X-Samples": "0"}, "X-Samples")],
)
async def test_an_unknown_header_value_is_a_400_in_openais_shape(headers: dict[str, str], param: str) -> None:
    """It names the header and the allowed values, streamed or not."""
    for stream in (False, True):
        response = await post(ScriptedUpstream(SEVEN), headers, stream=stream)
        error = response.json()["error"]
        assert response.status_code == 400
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["param"], error["type"]) == (param, "invalid_request_error")
        assert "allowed" in error["message"]


@pytest.mark.parametrize(
    "payload",
    [b"", b"nonsense", b"[]", b"{}", b'{"messages": []}', b'{"messages": ["hi"]}', b'{"messages": [{}]}',
     b'{"messages": [{"role": "user", "content": 5}]}', b'{"messages": [{"role": "user"}], "n": 0}',
     b'{"messages": [{"role": "user"}], "stream": "yes"}', b'{"messages": [{"role": "user"}], "n": true}',
     b'{"messages": [{"role": "user"}], "max_tokens": "5"}', b"\xff\xfe"],
)  # fmt: skip
async def test_an_invalid_request_is_a_400(payload: bytes) -> None:
    """It never reaches the upstream, and the gateway does not fail."""
    upstream = ScriptedUpstream(SEVEN)
    async with client_of(upstream) as client:
        response = await client.post(PATH, content=payload)
    assert response.status_code == 400
    assert response.json()["error"]["message"]
    assert upstream.plans == []


async def test_an_unknown_model_is_a_404() -> None:
    """The message lists the models."""
    response = await post(ScriptedUpstream(SEVEN, strict=True), model="huge")
    assert response.status_code == 404
    assert "tiny" in response.json()["error"]["message"]
    assert response.json()["error"]["code"] == "model_not_found"


async def test_a_models_suffix_sets_budget_and_samples() -> None:
    """Clients that can send neither headers nor fields use it."""
    upstream = ScriptedUpstream(SEVEN)
    body = (await post(upstream, model="tiny:low@3")).json()
    assert body["scaling"]["budget"]["asked"] == "low"
    assert body["scaling"]["budget"]["by"] == "model"
    assert body["scaling"]["samples"]["asked"] == 3
    assert {plan["model"] for plan in upstream.bodies} == {"tiny"}


async def test_a_vote_returns_the_winner_and_its_report() -> None:
    """The reply holds the whole winning sample, all tokens, and the count of each group."""
    upstream = ScriptedUpstream(EIGHT, SEVEN, SEVEN, prompt_tokens=10)
    response = await post(upstream, {"X-Samples": "3", "X-Stop": "none"})
    body = response.json()
    assert body["choices"][0]["message"]["content"] == "The answer is \\boxed{7}."
    assert len(body["choices"]) == 1
    assert response.headers["x-samples-used"] == "3"
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 6, 16)
    assert body["scaling"]["samples"] == {
        "asked": 3, "launched": 3, "finished": 3, "truncated": 0, "unanswered": 0, "aborted": 0, "failed": 0,
    }  # fmt: skip
    vote = body["scaling"]["vote"]
    assert (vote["method"], vote["stop"], vote["share"], vote["margin"]) == ("majority", "none", 0.6667, 1)
    assert [(group["answer"], group["count"]) for group in vote["groups"]] == [("7", 2), ("8", 1)]


async def test_a_streamed_vote_shows_progress_and_then_the_winner() -> None:
    """Progress chunks without text come first, then the whole winner and the report."""
    upstream = ScriptedUpstream(thinks(2, "\\boxed{7}"), thinks(2, "\\boxed{8}"), thinks(2, "\\boxed{7}"))
    events = await streamed(upstream, {"X-Samples": "3", "X-Stop": "none"})
    progress = [event["scaling"]["progress"] for event in events if "progress" in event.get("scaling", {})]
    assert [event["status"] for event in progress] == ["finished"] * 3
    assert sorted(event["answer"] for event in progress) == ["7", "7", "8"]
    assert text_of(events) == "\\boxed{7}"
    assert text_of(events, "reasoning") == "step0 step1"
    assert events[-1]["scaling"]["samples"]["finished"] == 3
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_first_sample_shown_live_is_corrected() -> None:
    """If the vote disagrees, a marked correction follows and the report holds its offset."""
    scaling = {"samples": 3, "stop": "none", "stream": "first"}
    events = await streamed(ScriptedUpstream(EIGHT, SEVEN, SEVEN), scaling=scaling)
    text = text_of(events)
    assert text.startswith("The answer is \\boxed{8}.")
    revised = events[-1]["scaling"]["revised"]
    assert text[revised:] == "The answer is \\boxed{7}."
    events = await streamed(ScriptedUpstream(SEVEN, SEVEN, EIGHT), scaling=scaling)
    assert text_of(events) == "The answer is \\boxed{7}."
    assert "revised" not in events[-1]["scaling"]


async def test_some_failures_are_reported() -> None:
    """The other samples decide; the report counts the failures and says why."""
    upstream = ScriptedUpstream(says(BROKEN), SEVEN)
    body = (await post(upstream, {"X-Samples": "3"})).json()
    assert body["scaling"]["samples"]["failed"] == 1
    assert any("out of order" in note for note in body["scaling"]["notes"])
    assert body["choices"][0]["message"]["content"] == "The answer is \\boxed{7}."


@pytest.mark.parametrize("headers", [{}, {"X-Samples": "3"}, {"X-Samples": "3", "X-Stop": "none"}])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_early_failure_has_its_true_status(headers: dict[str, str], stream: bool) -> None:
    """A failure before the first token has the upstream's status and error, also in a stream."""
    response = await post(ScriptedUpstream(says(BROKEN)), headers, stream=stream)
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "out of order"
    assert response.json()["error"]["type"] == "overloaded"


async def test_a_late_failure_is_an_error_event() -> None:
    """After the stream has begun, the error is an event, without [DONE]."""
    response = await post(ScriptedUpstream(says("The ", BROKEN)), stream=True)
    assert response.status_code == 200
    events = events_of(response.text)
    assert text_of(events[:-1]) == "The "
    assert events[-1]["error"]["message"] == "out of order"
    assert "[DONE]" not in response.text


class Buggy(ScriptedUpstream):
    """An engine whose adapter has a bug."""

    async def _play(self, scripts: list[Script]) -> Any:
        async for played in super()._play(scripts):
            yield played
            if played.content:
                raise ZeroDivisionError

    async def complete(self, plan: Any) -> Any:
        """Fail at once."""
        raise ZeroDivisionError


async def test_a_bug_is_a_500_in_openais_shape() -> None:
    """A stream gets an error event without [DONE]. Neither reply reveals internals."""
    response = await post(Buggy(SEVEN))
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    upstream = Buggy(SEVEN)
    response = await post(upstream, stream=True)
    assert events_of(response.text)[-1]["error"]["type"] == "server_error"
    assert "[DONE]" not in response.text
    assert upstream.open == 0


async def test_the_official_client_reads_everything() -> None:
    """openai's own client reads replies, streams and errors."""
    upstream = ScriptedUpstream(SEVEN)
    async with (
        serving(create_app(Settings(), upstream)) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as client,
    ):
        reply = await client.chat.completions.create(**ASK, reasoning_effort="low")
        assert reply.choices[0].message.content == "The answer is \\boxed{7}."
        assert reply.model_extra is not None
        assert reply.model_extra["scaling"]["budget"]["asked"] == "low"
        stream = await client.chat.completions.create(
            **ASK, stream=True, stream_options={"include_usage": True}, extra_headers={"X-Samples": "4"}
        )
        text, usage = "", None
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
        assert text == "The answer is \\boxed{7}."
        assert usage is not None
        assert usage.completion_tokens >= 6
        with pytest.raises(BadRequestError, match="X-Samples"):
            await client.chat.completions.create(**ASK, extra_headers={"X-Samples": "none"})
        assert [model.id async for model in client.models.list()] == ["tiny"]


async def test_the_official_client_sees_a_late_failure() -> None:
    """Its stream raises instead of ending normally."""
    upstream = ScriptedUpstream(says("The ", BROKEN))
    async with (
        serving(create_app(Settings(), upstream)) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as client,
    ):
        stream = await client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(APIError, match="out of order"):
            [chunk async for chunk in stream]


@pytest.mark.parametrize(
    ("headers", "streams"),
    [
        ({}, 1),
        ({"X-Reasoning-Budget": "high"}, 1),
        ({"X-Samples": "4", "X-Stop": "first-4"}, 4),
        ({"X-Samples": "4", "X-Stop": "none"}, 1),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_disconnect_stops_all_work(
    headers: dict[str, str], streams: int, stream: bool, begun: bool
) -> None:
    """Whenever the client leaves, and however many samples run, the upstream stops."""
    first = ["The "] if begun else []
    upstream = ScriptedUpstream(says(*first, asyncio.Event()))
    app = create_app(Settings(), upstream)
    async with (
        serving(app) as url,
        httpx.AsyncClient(base_url=url) as client,
        httpx.AsyncClient(base_url=url) as other,
    ):
        request = client.build_request("POST", PATH, json={**ASK, "stream": stream}, headers=headers)
        task = asyncio.create_task(client.send(request, stream=True))
        await until(lambda: upstream.open == streams, "the samples upstream")
        if stream and begun and streams == 1 and "X-Samples" not in headers:
            await (await task).aclose()
        else:
            task.cancel()
            await asyncio.wait({task})
        await until(lambda: upstream.open == 0, "the end of all work upstream")
        assert upstream.dropped == streams
        assert (await other.get("/health")).status_code == 200
        await eventually(other, "thinkgate_requests_running", 0)
        assert await metric(other, 'thinkgate_requests_total{status="499"}') == 1


async def test_a_disconnect_in_the_middle_of_the_request_is_no_failure() -> None:
    """A client that leaves before its request is complete causes no log line."""
    upstream = ScriptedUpstream(SEVEN)
    async with serving(create_app(Settings(), upstream)) as url, httpx.AsyncClient(base_url=url) as client:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await client.post(PATH, json=ASK)).status_code == 200
        assert await metric(client, "thinkgate_requests_running") == 0
    assert len(upstream.plans) == 1


async def test_the_metrics_count_requests_tokens_and_samples() -> None:
    """They count by status, kind and ending, and nothing stays in progress."""
    upstream = ScriptedUpstream(EIGHT, SEVEN, SEVEN, says("The ", BROKEN))
    async with client_of(upstream) as client:
        await client.post(PATH, json=ASK, headers={"X-Samples": "3", "X-Stop": "none"})
        await client.post(PATH, json={**ASK, "stream": True})
        await client.post(PATH, json={**ASK, "n": 0})
        for status in ("200", "503", "400"):
            assert await metric(client, f'thinkgate_requests_total{{status="{status}"}}') == 1
        assert await metric(client, "thinkgate_requests_running") == 0
        assert await metric(client, 'thinkgate_tokens_total{kind="answer"}') == 6
        assert await metric(client, 'thinkgate_samples_total{status="finished"}') == 3


async def test_health_and_readiness_differ() -> None:
    """The gateway can be healthy while its upstream is down."""
    upstream = ScriptedUpstream(SEVEN)
    upstream.healthy_now = False
    async with client_of(upstream) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 503
        upstream.healthy_now = True
        assert (await client.get("/ready")).status_code == 200


async def test_the_models_are_the_upstreams() -> None:
    """The list keeps the upstream's fields; an unknown path or model is an error in OpenAI's shape."""
    async with client_of(ScriptedUpstream(SEVEN)) as client:
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["tiny"]
        assert (await client.get("/v1/models/tiny")).json()["id"] == "tiny"
        for path in ("/v1/models/huge", "/v1/nothing"):
            response = await client.get(path)
            assert response.status_code == 404
            assert response.json()["error"]["message"]


async def test_a_request_keeps_its_id() -> None:
    """The reply carries the client's own id if a header can hold it, else a new one."""
    async with client_of(ScriptedUpstream(SEVEN)) as client:
        mine = await client.post(PATH, json=ASK, headers={"X-Request-Id": "abc"})
        assert mine.headers["x-request-id"] == "abc"
        others = {(await client.get("/health")).headers["x-request-id"] for _ in range(2)}
        assert len(others) == 2


async def test_tool_calls_come_through_a_budget() -> None:
    """A model that thinks can still call a tool, streamed or not."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a"'}}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    script = says(
        Text(reasoning="I should add."),
        Text(delta={"tool_calls": [call]}),
        Text(delta={"tool_calls": [rest]}),
        finish="tool_calls",
    )
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    headers = {"X-Reasoning-Budget": "100"}
    body = (await post(ScriptedUpstream(script), headers, tools=tools)).json()
    [choice] = body["choices"]
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    ]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    events = await streamed(ScriptedUpstream(script), headers, tools=tools)
    calls = [
        call["function"]["arguments"]
        for event in events
        for choice in event["choices"]
        for call in choice["delta"].get("tool_calls", [])
    ]
    assert "".join(calls) == '{"a": 1}'


async def test_logprobs_come_through_a_cut() -> None:
    """The logprobs of thinking and answer arrive in one list."""
    entry = {"token": "x", "logprob": -1.0}
    tokens = [Text(f"s{i} ", choice={"logprobs": {"content": [entry]}}) for i in range(9)]
    upstream = ScriptedUpstream(
        says("<think>", *tokens),
        continuations=[says(Text("Seven.", choice={"logprobs": {"content": [entry]}}))],
    )
    body = (await post(upstream, {"X-Reasoning-Budget": "4"}, logprobs=True)).json()
    assert len(body["choices"][0]["logprobs"]["content"]) == 5


@pytest.mark.parametrize("stream", [False, True])
async def test_content_in_parts_is_noted(stream: bool) -> None:
    """Mistral's API sends thinking and text as a list; the client gets both as text, and a note about it."""
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Easy."}]},
        {"type": "text", "text": "Four."},
    ]
    whole = Json({"choices": [{"index": 0, "message": {"content": parts}, "finish_reason": "stop"}]})
    steps = [{"choices": [{"index": 0, "delta": {"content": [part]}}]} for part in parts]
    streamed = Events([*steps, chunk(finish="stop")])
    async with stub_engine() as engine:
        engine.answers("/v1/chat/completions", streamed if stream else whole)
        app = create_app(Settings(), HTTPUpstream(engine.base_url))
        async with serving(app) as address, httpx.AsyncClient(base_url=address) as client:
            reply = await client.post(PATH, json={**ASK, "stream": stream})
    events = events_of(reply.text) if stream else [reply.json()]
    messages = [choice["delta" if stream else "message"] for event in events for choice in event["choices"]]
    assert "".join(message.get("content") or "" for message in messages) == "Four."
    assert "".join(message.get("reasoning") or "" for message in messages) == "Easy."
    assert "list of parts" in " ".join(events[-1]["scaling"]["notes"])
