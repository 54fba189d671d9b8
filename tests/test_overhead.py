"""The measuring instruments of benchmarks/overhead.py: the stub upstream, the load generator, the medians."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from benchmarks.loadgen import Load, measure, request_bytes
from benchmarks.overhead import Result, contents, summarize
from benchmarks.stub_upstream import ANSWER, LONG, PLAIN, THINKING, THOUGHT, Connection

CHAT = "/v1/chat/completions"


@pytest.fixture
async def stub() -> AsyncIterator[int]:
    """The port of a running stub upstream."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def vllm() -> AsyncIterator[int]:
    """The port of a stub that says it is vLLM."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(vllm=True), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def ask(model: str, path: str = CHAT, **rest: object) -> bytes:
    """One chat request on the wire."""
    return request_bytes(path, orjson.dumps({"model": model, "messages": [], **rest}), {})


@pytest.mark.parametrize("model", [PLAIN, THINKING])
async def test_streamed_and_whole_replies_say_the_same(stub: int, model: str) -> None:
    """A reply has one text, streamed or not, and only the thinking model's holds a think block."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{stub}") as session:
        texts = []
        for streamed in (False, True):
            async with session.post(CHAT, json={"model": model, "stream": streamed}) as reply:
                texts.append(contents(await reply.text(), streamed=streamed))
    assert texts[0] == texts[1]
    assert (texts[0][0] == f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}") == (model == THINKING)


async def test_a_stream_reports_usage_only_where_asked(stub: int) -> None:
    """One event for each token, and after them the counts if the client includes usage, as OpenAI does it."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{stub}") as session:
        body = {"model": THINKING, "stream": True}
        async with session.post(CHAT, json=body) as reply:
            bare = (await reply.text()).count("data: {")
        async with session.post(CHAT, json=body | {"stream_options": {"include_usage": True}}) as reply:
            *_, last = [line for line in (await reply.text()).splitlines() if line.startswith("data: {")]
    counts = orjson.loads(last[6:])["usage"]
    assert counts["completion_tokens"] == 48 + 16
    assert bare == 1 + counts["completion_tokens"] + 1  # the role before, the finish reason after


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_limit_is_kept_where_it_is_vllm(vllm: int, stub: int, streamed: bool) -> None:
    """The stub ends the thinking after that many tokens if it is vLLM, and else ignores the field."""
    body = {"model": THINKING, "stream": streamed, "thinking_token_budget": 1}
    texts = []
    async with aiohttp.ClientSession() as session:
        for port in (vllm, stub):
            async with session.post(f"http://127.0.0.1:{port}{CHAT}", json=body) as reply:
                texts.append(contents(await reply.text(), streamed=streamed)[0])
    assert texts == [f"<think>\n</think>\n\n{ANSWER}", f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"]


async def test_vllm_gives_token_ids(vllm: int) -> None:
    """One id a token where they are asked for, and the end tag's is the one that its tokenizer gives."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{vllm}") as session:
        async with session.post("/tokenize", json={"prompt": "</think>"}) as reply:
            (tag,) = (await reply.json())["tokens"]
        async with session.post(CHAT, json={"model": THINKING, "return_token_ids": True}) as reply:
            whole = await reply.json()
    ids = whole["choices"][0]["token_ids"]
    assert len(ids) == whole["usage"]["completion_tokens"]
    assert ids.index(tag) == 47


async def test_vllm_counts_with_every_event(vllm: int) -> None:
    """With continuous counts each token's event tells how many there are so far."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{vllm}") as session:
        body = {"model": THINKING, "stream": True, "stream_options": options}
        async with session.post(CHAT, json=body) as reply:
            lines = [line for line in (await reply.text()).splitlines() if line.startswith("data: {")]
    counts = [orjson.loads(line[6:]).get("usage", {}).get("completion_tokens") for line in lines]
    assert counts == [*range(65), None, 64]


async def test_other_routes_are_missing(stub: int) -> None:
    """What an engine without vLLM's extra routes doesn't know is a 404; the models are listed."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{stub}") as session:
        async with session.get("/version") as reply:
            assert reply.status == 404
        async with session.get("/v1/models") as reply:
            assert [model["id"] for model in (await reply.json())["data"]] == [PLAIN, THINKING, LONG]


@pytest.mark.parametrize("streamed", [False, True])
async def test_every_reply_is_counted_once(stub: int, streamed: bool) -> None:
    """Several connections load the server; each whole reply, chunked or not, counts as one without error."""
    load = await measure(stub, ask(THINKING, stream=streamed), 3, warmup=0, seconds=0.1)
    assert load.requests > 3
    assert load.errors == 0


async def test_refusals_are_errors(stub: int) -> None:
    """A reply with another status than 200 counts as an error: no benchmark may praise a broken server."""
    load = await measure(stub, ask(PLAIN, path="/v1/nothing"), 1, warmup=0, seconds=0.1)
    assert load.errors == load.requests > 0


def result(turn: int, server: str, rps: float, cpu_us: float = 300.0) -> Result:
    """One window of a server under test."""
    return Result(turn, server, "plain", 32, Load(100, 0, rps, p50=1.0, p99=2.0), cpu_us)


def test_ratios_are_taken_within_a_round() -> None:
    """The machine halves its speed in the last two rounds: the medians move, the ratio doesn't."""
    speeds = [1000.0, 500.0, 500.0]
    results = [result(turn, "bare", rps) for turn, rps in enumerate(speeds)]
    results += [result(turn, "gateway", 0.8 * rps) for turn, rps in enumerate(speeds)]
    bare, gateway = summarize(results)
    assert (bare["rps"], gateway["rps"]) == (500.0, 400.0)
    assert (bare["ratio"], gateway["ratio"]) == (1.0, 0.8)


def test_processor_time_is_compared_the_other_way_round() -> None:
    """A server that spends twice the yardstick's processor time on a request is half as good by it."""
    results = [result(0, "bare", 1000.0), result(0, "gateway", 900.0, cpu_us=600.0)]
    assert [row["cpu_ratio"] for row in summarize(results)] == [1.0, 0.5]


def test_without_the_yardstick_there_is_no_ratio() -> None:
    """A run that leaves the bare pass-through out still has its medians."""
    (row,) = summarize([result(0, "gateway", 400.0)])
    assert (row["rps"], row["ratio"]) == (400.0, None)
