"""An engine over HTTP: what is sent, what comes back, and what goes wrong on the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.base import Chunk, UpstreamLimits, UpstreamRequest
from gateway.upstreams.client import HTTPUpstream
from tests.fakes import until
from tests.stub_engine import Events, Json, Raw, StubEngine, chunk, stub_engine

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PLAN = UpstreamRequest({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]})
WHOLE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop", "odd": 1}
HELLO = Events([chunk("Hel"), chunk("lo"), chunk(finish="stop")])


@asynccontextmanager
async def connected(server: StubEngine, **options: Any) -> AsyncIterator[HTTPUpstream]:
    """Connect an upstream to this server; it knows which engine runs there."""
    upstream = HTTPUpstream(server.base_url, "sk-upstream", **options)
    await upstream.start()
    try:
        await upstream.models()
        yield upstream
    finally:
        await upstream.close()


async def collected(upstream: HTTPUpstream, plan: UpstreamRequest = PLAN) -> list[Chunk]:
    """Return all chunks of one streamed reply."""
    async with aclosing(upstream.stream(plan)) as chunks:
        return [chunk async for chunk in chunks]


async def test_a_stream_comes_chunk_by_chunk() -> None:
    """Texts, the finish and the raw events come through; the request asks for usage and carries the key."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, HELLO)
        chunks = await collected(upstream)
        assert "".join(chunk.content for chunk in chunks) == "Hello"
        assert chunks[-1].finish_reason == "stop"
        assert chunks[0].event["id"] == "up-1"
        [sent] = server.bodies(CHAT)
        assert sent == {**PLAN.body, "stream": True, "stream_options": {"include_usage": True}}
        assert server.requests[-1][2]["authorization"] == "Bearer sk-upstream"


async def test_a_plain_request_goes_out_as_it_is() -> None:
    """An unstreamed request and its reply pass unchanged."""
    reply = {"id": "x", "choices": [WHOLE], "vendor": {"a": [1]}}
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, Json(reply))
        assert (await upstream.complete(PLAN)).body == reply
        assert server.bodies(CHAT) == [PLAN.body]


async def test_leaving_a_stream_drops_the_request_at_once() -> None:
    """Closing the iterator closes the connection, so that the engine stops."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, Events([chunk("Hel"), asyncio.Event()]))
        chunks = upstream.stream(PLAN)
        assert (await anext(chunks)).content == "Hel"
        assert server.open == 1
        await chunks.aclose()
        await until(lambda: server.open == 0, "the hang-up upstream")
        assert server.hang_ups == 1


@pytest.mark.parametrize("owned_by", ["someone", "llamacpp"])
async def test_cancelling_a_plain_request_drops_it(owned_by: str) -> None:
    """Cancelling drops an unstreamed request; it is streamed upstream if the engine would not notice."""
    gate = asyncio.Event()
    async with stub_engine(owned_by) as server, connected(server) as upstream:
        server.answers(CHAT, Events([chunk("Hel"), gate]))
        task = asyncio.create_task(upstream.complete(PLAN))
        await until(lambda: server.open == 1, "the request upstream")
        task.cancel()
        await until(lambda: server.hang_ups == 1, "the hang-up upstream")
        assert bool(server.bodies(CHAT)[0].get("stream")) is (owned_by == "llamacpp")


async def test_a_plain_request_to_llamacpp_comes_back_whole() -> None:
    """A reply that is streamed upstream has the texts, logprobs, tool calls and usage of a plain one."""
    called = {"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"arguments": "{}"}}]}}
    logprobs = [{"token": token, "logprob": -1.0} for token in ("Hel", "lo")]
    events = []
    for token, entry in zip(("Hel", "lo"), logprobs, strict=True):
        events.append(chunk(token, timings={"predicted_n": 1}))
        events[-1]["choices"][0]["logprobs"] = {"content": [entry]}
    events += [{**chunk(), "choices": [called]}, chunk(finish="stop")]
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"x": 1}}
    events.append({**chunk(), "choices": [], "usage": usage})
    async with stub_engine("llamacpp") as server, connected(server) as upstream:
        server.answers(CHAT, Events(events))
        body = (await upstream.complete(PLAN)).body
    [choice] = body["choices"]
    assert choice["message"]["content"] == "Hello"
    assert choice["message"]["tool_calls"][0]["id"] == "c"
    assert choice["logprobs"] == {"content": logprobs}
    assert (choice["finish_reason"], body["usage"], body["object"]) == ("stop", usage, "chat.completion")


async def test_llamacpp_counts_the_tokens_of_every_choice() -> None:
    """Its `timings` give tokens so far and the prompt; a usage event for each choice adds up."""
    events = [
        chunk("a", index=0, timings={"cache_n": 3, "prompt_n": 4, "predicted_n": 1}),
        chunk("b", index=1, timings={"cache_n": 3, "prompt_n": 4, "predicted_n": 2}),
        chunk(index=0, finish="stop"),
        chunk(index=1, finish="stop"),
        *({**chunk(), "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": n}} for n in (1, 2)),
    ]
    async with stub_engine("llamacpp") as server, connected(server) as upstream:
        server.answers(CHAT, Events(events))
        both = UpstreamRequest({**PLAN.body, "n": 2})
        chunks = await collected(upstream, both)
        assert [(chunk.index, chunk.tokens) for chunk in chunks[:2]] == [(0, 1), (1, 2)]
        assert chunks[0].usage == {"prompt_tokens": 7, "completion_tokens": 1}
        assert (await upstream.complete(both)).body["usage"]["completion_tokens"] == 3
        assert server.bodies(CHAT)[0]["timings_per_token"] is True


async def test_vllm_is_asked_to_count_with_every_chunk() -> None:
    """Its continuous usage is each choice's own count."""
    events = [chunk("a b", usage={"prompt_tokens": 7, "completion_tokens": 2}), chunk(finish="stop")]
    async with stub_engine("vllm") as server, connected(server) as upstream:
        server.answers(CHAT, Events(events))
        assert (await collected(upstream))[0].tokens == 2
        assert server.bodies(CHAT)[0]["stream_options"] == {
            "include_usage": True,
            "continuous_usage_stats": True,
        }


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Events([b"data: {nonsense\n\n"]), "not JSON"),
        (Events([b"data: [1, 2]\n\n"]), "not a JSON object"),
        (Events([chunk("Hel")], done=False), "ended its stream before it was complete"),
        (Events([chunk("Hel")], done=False, end=False), "broke off"),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"), "broke off"),
        (Raw(), "broke off"),
        (Raw(b"garbage\r\n\r\n"), "broke off"),
    ],
)
async def test_a_broken_stream_is_an_error(reply: Any, told: str) -> None:
    """Every failure on the wire becomes one kind of error, a 502 in plain words."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, reply)
        with pytest.raises(UpstreamUnreachable, match=told) as error:
            await collected(upstream)
        assert error.value.status == 502


@pytest.mark.parametrize("reply", [Json(b"<html>"), Json([1]), Json(b""), Raw()])
async def test_a_broken_reply_is_an_error(reply: Any) -> None:
    """An unstreamed reply that is no JSON object is a 502."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, reply)
        with pytest.raises(UpstreamUnreachable) as error:
            await upstream.complete(PLAN)
        assert error.value.status == 502


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("reply", "status", "message", "code"),
    [
        (
            Json({"error": {"message": "too long", "type": "T", "param": "messages", "code": "c"}}, 400),
            400,
            "too long",
            "c",
        ),
        (Json({"object": "error", "message": "older vLLM", "code": 404}, 404), 404, "older vLLM", 404),
        (Json({"detail": "FastAPI's"}, 422), 422, "FastAPI's", None),
        (Json([{"error": {"message": "Gemini's", "code": 429}}], 429), 429, "Gemini's", 429),
        (Json([{"error": {"message": "Gemini's", "code": 429}}]), 429, "Gemini's", 429),
        (Json({"error": "just text"}, 500), 502, "just text", None),
        (Json(b"Bad Gateway", 502), 502, "Bad Gateway", None),
        (Json(b"", 503), 503, "503", None),
        (Json({"error": "Unauthorized"}, 401), 502, "refused the gateway's key", None),
    ],
)
async def test_the_engines_refusal_is_passed_on(
    streamed: bool, reply: Json, status: int, message: str, code: Any
) -> None:
    """Status and error fields come through in any shape; a refused gateway key is a 502."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, reply)
        with pytest.raises(UpstreamError, match=message) as error:
            await (collected(upstream) if streamed else upstream.complete(PLAN))
        assert error.value.status == status
        assert error.value.body()["error"]["code"] == code


@pytest.mark.parametrize("error", [{"message": "out of memory", "code": 500}, "out of memory"])
async def test_an_error_event_in_mid_stream_is_an_error(error: Any) -> None:
    """The chunks before an error event come first, then the engine's own message is raised."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, Events([chunk("Hel"), {"error": error}]))
        chunks = upstream.stream(PLAN)
        assert (await anext(chunks)).content == "Hel"
        with pytest.raises(UpstreamError, match="out of memory"):
            await anext(chunks)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_error_that_names_the_setting(streamed: bool, status: int) -> None:
    """The prompt never goes to another address."""
    async with stub_engine() as server, connected(server) as upstream, stub_engine() as other:
        server.answers(CHAT, Json(b"", status, {"Location": f"{other.base_url}/chat/completions"}))
        with pytest.raises(UpstreamError, match="setting `upstream`") as error:
            await (collected(upstream) if streamed else upstream.complete(PLAN))
        assert error.value.status == 502
        assert not other.requests


LIMITS = {
    "Retry-After": "7",
    "X-RateLimit-Remaining-Tokens": "0",
    "anthropic-ratelimit-x": "1",
    "Server": "x",
}


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_error_says_when_to_come_back(streamed: bool) -> None:
    """Retry-After and rate limits go on to the client; other headers don't."""
    passed = {name: value for name, value in LIMITS.items() if name != "Server"}
    for reply in (Json({"error": "slow down"}, 429, LIMITS), Json({"error": {"code": 429}}, 200, LIMITS)):
        async with stub_engine() as server, connected(server) as upstream:
            server.answers(CHAT, reply)
            with pytest.raises(UpstreamError) as error:
                await (collected(upstream) if streamed else upstream.complete(PLAN))
        assert error.value.status == 429
        assert error.value.headers == passed


async def test_rate_limits_come_with_a_reply() -> None:
    """A client can slow down before it is refused."""
    headers = {"X-RateLimit-Limit": "9", "X-RateLimit-Odd": "caf\u00e9", "X-Other": "x"}
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, Json({"choices": [WHOLE]}, headers=headers))
        assert (await upstream.complete(PLAN)).headers == {"X-RateLimit-Limit": "9"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_upstreams_key_is_blacked_out(streamed: bool) -> None:
    """In errors, in their headers, in events and in whole replies."""

    async def ask(reply: Any) -> str:
        async with stub_engine() as server, connected(server) as upstream:
            server.answers(CHAT, reply)
            try:
                if streamed:
                    return str(await collected(upstream))
                return str(await upstream.complete(PLAN))
            except UpstreamError as error:
                return str((error.body(), error.headers))

    leak = {"error": {"message": "wrong key sk-upstream", "code": 429}}
    said = {**WHOLE, "message": {"role": "assistant", "content": "sk-upstream"}, "x": "sk-upstream"}
    events = Events([chunk("sk-upstream"), chunk(finish="stop")])
    for reply in (
        Json(leak),
        Json(leak, 400, {"Retry-After": "sk-upstream"}),
        events if streamed else Json({"choices": [said]}),
    ):
        seen = await ask(reply)
        assert "sk-upstream" not in seen
        assert "[upstream key]" in seen


REFUSED = {
    "object": "error",
    "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]},
}


@pytest.mark.parametrize(
    "refusal",
    [
        Json(REFUSED, 422),
        Json({"error": {"message": "Unknown field: stream_options"}}, 400),
        Json({"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}, 422),
    ],
)
async def test_an_engine_that_refuses_stream_options_gets_none(refusal: Json) -> None:
    """The request goes out again without, and later ones never have any."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, refusal, HELLO)
        for _ in range(2):
            assert len(await collected(upstream)) == 3
        assert ["stream_options" in body for body in server.bodies(CHAT)] == [True, False, False]


async def test_a_refusal_of_another_field_is_the_clients() -> None:
    """Nothing is sent again."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, Json({"error": {"message": "n must be 1"}}, 400), HELLO)
        with pytest.raises(UpstreamError, match="n must be 1"):
            await collected(upstream)
        assert len(server.bodies(CHAT)) == 1


@pytest.mark.parametrize("owned_by", ["someone", "vllm", "llamacpp"])
async def test_a_verbatim_request_goes_out_as_it_is(owned_by: str) -> None:
    """Nothing is added but that it is streamed."""
    body = {**PLAN.body, "stream_options": {"include_usage": False}}
    async with stub_engine(owned_by) as server, connected(server) as upstream:
        server.answers(CHAT, HELLO)
        await collected(upstream, UpstreamRequest(body, ids=True, verbatim=True))
        await collected(upstream, UpstreamRequest(PLAN.body, verbatim=True))
        assert server.bodies(CHAT) == [{**body, "stream": True}, {**PLAN.body, "stream": True}]


async def test_an_engine_that_does_not_stream_is_read_all_the_same() -> None:
    """A whole reply to a streamed request gives its text in one chunk."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, Json({"choices": [WHOLE], "usage": {"prompt_tokens": 1}}))
        [only] = await collected(upstream)
    assert (only.content, only.finish_reason, only.usage) == ("hi", "stop", {"prompt_tokens": 1})


async def test_the_end_may_have_blanks_around_it() -> None:
    """Some engines write `[DONE]` with a blank after it."""
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, Events([chunk("a", finish="stop"), b"data:  [DONE] \n\n"], done=False))
        assert [each.content for each in await collected(upstream)] == ["a"]


async def test_a_choice_that_never_ends_has_failed() -> None:
    """The other one is complete, and so the stream is no error."""
    both = UpstreamRequest({**PLAN.body, "n": 2})
    async with stub_engine() as server, connected(server) as upstream:
        server.answers(CHAT, Events([chunk("a", finish="stop"), chunk("b", index=1)]))
        chunks = await collected(upstream, both)
        assert [(each.index, each.failure is not None) for each in chunks] == [
            (0, False),
            (1, False),
            (1, True),
        ]


async def test_a_folded_reply_is_what_the_engine_would_have_sent() -> None:
    """llama.cpp's calls have no index there, its content is null beside them, and fields keep their names."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None},
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"tool_calls": [call]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    ]
    events = [
        {**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    async with stub_engine("llamacpp") as server, connected(server) as upstream:
        server.answers(CHAT, Events([*events, chunk(finish="tool_calls")]))
        [choice] = (await upstream.complete(PLAN)).body["choices"]
    whole = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [whole]}
    assert choice == {"index": 0, "message": message, "finish_reason": "tool_calls"}


@pytest.mark.parametrize("answer", [{}, {"tokens": "x"}, {"tokens": [None]}, {"prompt": 5}])
async def test_a_tokenizer_that_answers_oddly_is_no_crash(answer: dict[str, Any]) -> None:
    """Nothing is known then, and a reply that needs the tokens is an error."""
    async with stub_engine("vllm") as server, connected(server) as upstream:
        for path in ("/tokenize", "/detokenize"):
            server.answers(path, Json(answer))
        assert await upstream.render(PLAN.body) is None
        assert await upstream.count(PLAN.body) is None
        assert await upstream.token_ids("tiny", "</think>") is None
        assert await upstream.text_of("tiny", [1]) is None
        with pytest.raises(UpstreamUnreachable, match="tokenizer"):
            await upstream.resume(PLAN.body, [1, 2], "</think>", 9)


async def test_an_engine_that_is_away_is_an_error_in_plain_words() -> None:
    """A refused connection is a 502, silence a 504."""
    async with stub_engine() as server:
        address = server.base_url
    upstream = HTTPUpstream(address)
    await upstream.start()
    try:
        with pytest.raises(UpstreamUnreachable, match="can't be reached"):
            await upstream.complete(PLAN)
        assert not await upstream.healthy()
    finally:
        await upstream.close()
    async with (
        stub_engine() as server,
        connected(server, limits=UpstreamLimits(idle_timeout=0.05)) as upstream,
    ):
        server.answers(CHAT, Events([asyncio.Event()]))
        with pytest.raises(UpstreamUnreachable, match="took too long") as error:
            await collected(upstream)
        assert error.value.status == 504


async def test_a_closed_upstream_says_so() -> None:
    """After `close`, and before `start`, nothing is sent."""
    with pytest.raises(UpstreamUnreachable, match="not connected"):
        await HTTPUpstream("http://127.0.0.1:9/v1").complete(PLAN)


async def test_models_are_read_once_and_again_on_demand() -> None:
    """The list is remembered until a refresh."""
    async with stub_engine() as server, connected(server) as upstream:
        assert set(await upstream.models()) == {"tiny"}
        assert len(server.bodies("/v1/models")) == 1
        server.answers("/v1/models", Json({"data": [{"id": "new", "owned_by": "vllm", "max_model_len": 99}]}))
        assert (await upstream.models(refresh=True))["new"].context == 99
        assert upstream.engine.name == "vllm"


async def test_an_adapter_is_what_it_adapts() -> None:
    """vLLM lists a LoRA with its own path and no context; family and context are its parent's."""
    base = {"id": "qwen", "root": "Qwen/Qwen3-8B", "owned_by": "vllm", "max_model_len": 4096, "parent": None}
    lora = {"id": "taught", "root": "/lora", "owned_by": "vllm", "max_model_len": None, "parent": "qwen"}
    orphan = {**lora, "id": "orphan", "parent": "gone"}
    async with stub_engine() as server:
        server.answers("/v1/models", Json({"data": [base, lora, orphan]}))
        async with connected(server) as upstream:
            cards = await upstream.models()
    assert (cards["taught"].base, cards["taught"].context) == ("Qwen/Qwen3-8B", 4096)
    assert cards["taught"].raw == lora
    assert (cards["orphan"].base, cards["orphan"].context) == ("/lora", None)


@pytest.mark.parametrize(
    "listing", [{"data": "none"}, {"data": ["a", 5, {}, {"id": 5}, {"id": None}, {"id": ""}]}, {}]
)
async def test_a_strange_model_list_is_an_empty_one(listing: dict[str, Any]) -> None:
    """Entries that aren't models are skipped."""
    async with stub_engine() as server:
        server.answers("/v1/models", Json(listing))
        async with connected(server) as upstream:
            assert await upstream.models() == {}


@pytest.mark.parametrize("owned_by", [["x"], 5, None, {"a": 1}, "vllm", "llamacpp"])
async def test_garbage_in_a_model_list_is_survived(owned_by: object) -> None:
    """Fields of a wrong type say nothing; the names count."""
    entry = {"id": "tiny", "owned_by": owned_by, "root": 5, "max_model_len": "x", "meta": "y", "parent": []}
    async with stub_engine() as server:
        server.answers("/v1/models", Json({"data": [{"id": 5}, entry]}))
        async with connected(server) as upstream:
            [card] = (await upstream.models()).values()
    assert (card.name, card.base, card.context, card.raw) == ("tiny", None, None, entry)


async def test_a_reply_goes_on_from_rendered_text() -> None:
    """llama.cpp renders the chat; the completion's text comes back as a chat's content."""
    done = {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}
    async with stub_engine("llamacpp") as server, connected(server) as upstream:
        server.answers("/apply-template", Json({"prompt": "<user>hi<assistant>"}))
        server.answers(COMPLETIONS, Events([{"choices": [{"index": 0, "text": "7"}]}, done]))
        prompt = await upstream.render(PLAN.body)
        body = {**PLAN.body, "temperature": 0.5, "tools": None, "max_tokens": 99}
        plan = await upstream.resume(body, prompt, "<think>x</think>", 9)
        chunks = await collected(upstream, plan)
        assert [(each.content, each.finish_reason) for each in chunks] == [("7", None), ("", "stop")]
        [sent] = server.bodies(COMPLETIONS)
        assert sent["prompt"] == "<user>hi<assistant><think>x</think>"
        assert (sent["temperature"], sent["max_tokens"]) == (0.5, 9)
        assert "messages" not in sent


async def test_a_reply_goes_on_from_token_ids() -> None:
    """vLLM gives the rendered prompt's ids; the prefix is tokenized to stand after them."""
    async with stub_engine("vllm") as server, connected(server) as upstream:
        server.answers("/tokenize", Json({"tokens": [1, 2]}), Json({"tokens": [3]}))
        prompt = await upstream.render(PLAN.body)
        plan = await upstream.resume(PLAN.body, prompt, "</think>", 9)
        assert plan.body["prompt"] == [1, 2, 3]
        assert [body.get("prompt") for body in server.bodies("/tokenize")] == [None, "</think>"]


async def test_without_a_rendering_the_reply_goes_on_from_an_open_message() -> None:
    """The last message is the assistant's, and flags ask vLLM to continue it."""
    async with stub_engine("vllm") as server, connected(server) as upstream:
        server.answers("/tokenize", Json({"error": "no such route"}, 404))
        prompt = await upstream.render(PLAN.body)
        assert prompt is None
        plan = await upstream.resume(PLAN.body, prompt, "<think>x</think>", 9)
        assert plan.endpoint == "chat/completions"
        assert plan.body["messages"][-1] == {"role": "assistant", "content": "<think>x</think>"}
        assert plan.body["continue_final_message"] is True
        assert plan.body["add_generation_prompt"] is False
