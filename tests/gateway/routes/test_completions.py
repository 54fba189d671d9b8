"""`/v1/completions`: relayed to the engine and back without changes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from gateway.app import create_app
from gateway.config import Settings
from gateway.upstreams.client import HTTPUpstream
from tests.fakes import until
from tests.serving import serving
from tests.stub_engine import Events, Json, StubEngine, stub_engine

PATH = "/v1/completions"
BODY: dict[str, Any] = {"model": "tiny", "prompt": "Once", "thinking_token_budget": 3, "odd": [1, None]}
CHOICE = {"index": 0, "text": " upon", "finish_reason": "stop"}
REPLY = {"id": "cmpl-1", "object": "text_completion", "choices": [CHOICE], "odd": {}}


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[httpx.AsyncClient, StubEngine]]:
    """A client of the gateway, and the engine behind it."""
    async with (
        stub_engine() as engine,
        serving(create_app(Settings(), HTTPUpstream(engine.base_url))) as address,
        httpx.AsyncClient(base_url=address) as client,
    ):
        yield client, engine


async def test_a_reply_comes_back_unchanged() -> None:
    """The gateway changes neither request nor reply, not even unknown fields."""
    async with gateway() as (client, engine):
        engine.answers(PATH, Json(REPLY))
        reply = await client.post(PATH, json=BODY)
        assert engine.bodies(PATH) == [BODY]
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == REPLY


async def test_a_stream_comes_back_byte_for_byte() -> None:
    """Events pass as the engine wrote them, `[DONE]` included."""
    events = [{"choices": [{"index": 0, "text": " a", "finish_reason": None}]}, REPLY]
    async with gateway() as (client, engine):
        engine.answers(PATH, Events([b": hello\n\n", *events]))
        reply = await client.post(PATH, json={**BODY, "stream": True})
    written = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text == f": hello\n\n{written}data: [DONE]\n\n"


async def test_openais_client_reads_both() -> None:
    """The official client reads an ordinary completion, with and without stream."""
    async with (
        stub_engine() as engine,
        serving(create_app(Settings(), HTTPUpstream(engine.base_url))) as address,
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        engine.answers(PATH, Json(REPLY))
        whole = await client.completions.create(model="tiny", prompt="Once")
        engine.answers(PATH, Events([REPLY]))
        stream = await client.completions.create(model="tiny", prompt="Once", stream=True)
        texts = [chunk.choices[0].text async for chunk in stream]
    assert whole.choices[0].text == " upon"
    assert texts == [" upon"]


async def test_a_client_that_hangs_up_ends_the_generation() -> None:
    """The engine's connection closes while it still writes, and the metrics count a 499."""
    gate = asyncio.Event()
    async with gateway() as (client, engine):
        engine.answers(PATH, Events([REPLY, gate]))
        async with client.stream("POST", PATH, json={**BODY, "stream": True}) as reply:
            await anext(reply.aiter_bytes())
            assert engine.open == 1
        await until(lambda: engine.hang_ups == 1, "the engine's connection being closed")
        metrics = (await client.get("/metrics")).text
    assert 'thinkgate_requests_total{status="499"} 1.0' in metrics


async def test_an_engines_error_reaches_the_client() -> None:
    """The client gets the engine's status and its own error body."""
    async with gateway() as (client, engine):
        engine.answers(PATH, Json({"error": {"message": "too long", "param": "prompt"}}, 400))
        for stream in (False, True):
            reply = await client.post(PATH, json={**BODY, "stream": stream})
            assert reply.status_code == 400
            assert reply.json()["error"]["message"] == "too long"


async def test_a_broken_stream_ends_with_an_error() -> None:
    """The last event is an error, without `[DONE]`."""
    async with gateway() as (client, engine):
        engine.answers(PATH, Events([REPLY], done=False, end=False))
        reply = await client.post(PATH, json={**BODY, "stream": True})
    *_, last = reply.text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "upstream_error"


def ends(reason: object, text: str = " upon") -> dict[str, Any]:
    """Return a reply, or an event, that ends for this reason."""
    return {**REPLY, "choices": [{"index": 0, "text": text, "finish_reason": reason}]}


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        ({"error": {"message": "slow down", "code": 429}}, 429, "slow down"),
        ({"object": "error", "message": "boom", "code": 503}, 503, "boom"),
        (ends("abort"), 502, "abort"),
        (ends("content_filter"), 400, "content filter"),
        ({"choices": []}, 502, "no choices"),
        (ends(None), 502, "finish reason"),
        ([1], 502, "not a JSON object"),
        (b"<html>", 502, "not JSON"),
    ],
)
async def test_a_failure_in_a_200_is_an_error(reply: Any, status: int, message: str) -> None:
    """Errors keep their own status, and an aborted or filtered reply is no success."""
    async with gateway() as (client, engine):
        engine.answers(PATH, Json(reply))
        for body in (BODY, {**BODY, "stream": True}):
            response = await client.post(PATH, json=body)
            assert response.status_code == status
            assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"error": {"message": "out of memory", "code": 503}}], "out of memory"),
        ([b"event: error\ndata: boom\n\n"], "boom"),
        ([ends("abort")], "abort"),
        ([], "before it was complete"),
        ([b"data: {nonsense\n\n"], "not JSON"),
    ],
)
async def test_a_failure_in_a_stream_is_an_error_event(steps: list[Any], message: str) -> None:
    """The text before it has passed; its own event doesn't, and there is no `[DONE]`."""
    gate = asyncio.Event()
    async with gateway() as (client, engine):
        engine.answers(PATH, Events([ends(None), gate, *steps]))
        async with client.stream("POST", PATH, json={**BODY, "stream": True}) as reply:
            blocks = reply.aiter_text()
            first = await anext(blocks)
            gate.set()
            rest = "".join([block async for block in blocks])
    assert json.loads(first.removeprefix("data: ")) == ends(None)
    [last] = rest.strip().split("\n\n")
    assert message in json.loads(last.removeprefix("data: "))["error"]["message"]


async def test_of_several_choices_one_may_fail() -> None:
    """The others are complete; all of them failed is an error."""
    good, bad = ends("stop")["choices"][0], {**ends("abort")["choices"][0], "index": 1}
    async with gateway() as (client, engine):
        for choices, status in (([good, bad], 200), ([{**bad, "index": 0}, bad], 502)):
            engine.answers(PATH, Json({**REPLY, "choices": choices}))
            assert (await client.post(PATH, json={**BODY, "n": 2})).status_code == status
            events = [{**REPLY, "choices": [choice]} for choice in choices]
            engine.answers(PATH, Events(events))
            text = (await client.post(PATH, json={**BODY, "n": 2, "stream": True})).text
            assert ("[DONE]" in text) is (status == 200)


async def test_the_upstreams_key_is_blacked_out() -> None:
    """Also where the bytes of a stream are cut in the middle of it."""
    key = "sk-0123456789"
    half = json.dumps(ends("stop", f"it is {key}")).encode()
    place = half.index(key.encode()) + 5
    async with (
        stub_engine() as engine,
        serving(create_app(Settings(), HTTPUpstream(engine.base_url, key))) as address,
        httpx.AsyncClient(base_url=address) as client,
    ):
        for reply in (Json(ends("stop", key)), Events([b"data: " + half[:place], half[place:] + b"\n\n"])):
            engine.answers(PATH, reply)
            text = (await client.post(PATH, json={**BODY, "stream": isinstance(reply, Events)})).text
            assert key not in text
            assert "[upstream key]" in text


async def test_what_comes_after_done_does_not_pass() -> None:
    """The stream ends with the first `[DONE]`."""
    async with gateway() as (client, engine):
        engine.answers(PATH, Events([ends("stop"), b"data: [DONE]\n\ndata: more\n\n"]))
        text = (await client.post(PATH, json={**BODY, "stream": True})).text
    assert text.endswith("data: [DONE]\n\n")
    assert "more" not in text


async def test_rate_limits_go_on_to_the_client() -> None:
    """With a reply, and with an error."""
    headers = {"X-RateLimit-Remaining": "3", "Server": "x"}
    async with gateway() as (client, engine):
        engine.answers(PATH, Json(REPLY, headers=headers))
        reply = await client.post(PATH, json=BODY)
    assert reply.headers["X-RateLimit-Remaining"] == "3"
    assert reply.headers.get("Server") != "x"


@pytest.mark.parametrize(
    ("headers", "body", "param"),
    [
        ({"X-Reasoning-Budget": "low"}, {}, "X-Reasoning-Budget"),
        ({"X-Samples": "4"}, {}, "X-Samples"),
        ({}, {"scaling": {"samples": 4}}, "scaling"),
        ({}, {"model": "tiny:high"}, "model"),
        ({}, {"model": "tiny@4"}, "model"),
    ],
)
async def test_a_budget_is_refused(headers: dict[str, str], body: dict[str, Any], param: str) -> None:
    """The engine would ignore it, so the error names the field and the endpoints that support it."""
    async with gateway() as (client, engine):
        reply = await client.post(PATH, json={**BODY, **body}, headers=headers)
        assert engine.bodies(PATH) == []
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param)
    assert "/v1/chat/completions" in error["message"]


async def test_an_unknown_model_is_a_404() -> None:
    """The error is the same as at every other endpoint."""
    async with gateway() as (client, _):
        reply = await client.post(PATH, json={**BODY, "model": "other"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
