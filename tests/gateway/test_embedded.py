"""Real clients, the real gateway and the real embedded engine."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.conftest import EmbeddedGateway
from tests.serving import events_of

pytestmark = pytest.mark.embedded

PATH = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "What is 12 + 7? Put the answer in \\boxed{}."}]
STORY = [{"role": "user", "content": "Tell me a very long story about the sea."}]


@pytest.fixture
async def client(embedded: EmbeddedGateway) -> AsyncIterator[AsyncOpenAI]:
    """The official client, as a user configures it."""
    async with AsyncOpenAI(base_url=f"{embedded.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def plain(embedded: EmbeddedGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client."""
    async with httpx.AsyncClient(base_url=embedded.url, timeout=120) as client:
        yield client


async def reaches(embedded: EmbeddedGateway, least: int, most: int, seconds: float = 20) -> None:
    """Wait until the engine works on so many samples."""
    deadline = time.monotonic() + seconds
    while not least <= (running := await embedded.running()) <= most:
        assert time.monotonic() < deadline, f"{running} samples run upstream, not {least} to {most}"
        await asyncio.sleep(0.01)


async def test_the_official_client_chats(client: AsyncOpenAI, embedded: EmbeddedGateway) -> None:
    """A plain request gets a reply with usage."""
    reply = await client.chat.completions.create(
        model=embedded.model, messages=QUESTION, max_tokens=12, temperature=0
    )
    assert reply.choices[0].message.content
    assert reply.model == embedded.model
    assert reply.usage is not None
    assert 1 <= reply.usage.completion_tokens <= 12
    assert reply.usage.prompt_tokens > 10


async def test_streamed_and_whole_are_the_same(client: AsyncOpenAI, embedded: EmbeddedGateway) -> None:
    """With one seed, the stream's texts add up to the whole reply, token for token."""
    ask: dict[str, Any] = {"model": embedded.model, "messages": QUESTION, "max_tokens": 16, "temperature": 0}
    whole = await client.chat.completions.create(**ask)
    stream = await client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    text, usage, finish, chunks = "", None, None, 0
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            chunks += bool(choice.delta.content)
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert finish == whole.choices[0].finish_reason
    assert usage is not None
    assert whole.usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )
    assert chunks > 4


async def test_logprobs_stop_and_n_are_the_engines(client: AsyncOpenAI, embedded: EmbeddedGateway) -> None:
    """Fields that the gateway doesn't own take effect in the engine."""
    reply = await client.chat.completions.create(
        model=embedded.model, messages=QUESTION, max_tokens=8, logprobs=True, top_logprobs=2, n=2, seed=1
    )
    assert [choice.index for choice in reply.choices] == [0, 1]
    for choice in reply.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content
        assert len(choice.logprobs.content[0].top_logprobs) == 2
    assert reply.usage is not None
    assert 8 < reply.usage.completion_tokens <= 16
    stopped = await client.chat.completions.create(
        model=embedded.model,
        messages=[{"role": "user", "content": "Count: 1, 2, 3"}],
        stop=[","],
        max_tokens=40,
    )
    assert "," not in (stopped.choices[0].message.content or "")


@pytest.mark.parametrize("budget", ["off", "1", "16", "low"])
@pytest.mark.parametrize("stream", [False, True])
async def test_no_row_is_over_its_budget(
    plain: httpx.AsyncClient, embedded: EmbeddedGateway, budget: str, stream: bool
) -> None:
    """Thinking never passes the limit and the answer is never empty, whatever the model does."""
    body = {"model": embedded.model, "messages": QUESTION, "max_tokens": 48, "stream": stream}
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    headers = {"X-Reasoning-Budget": budget}
    responses = await asyncio.gather(
        *(plain.post(PATH, json={**body, "seed": seed}, headers=headers) for seed in range(3))
    )
    for response in responses:
        assert response.status_code == 200, response.text
        if stream:
            events = events_of(response.text)
            choices = [choice["delta"] for event in events for choice in event["choices"]]
            content = "".join(delta.get("content") or "" for delta in choices)
            thought = "".join(delta.get("reasoning") or "" for delta in choices)
            scaling, usage = events[-2]["scaling"], events[-1]["usage"]
        else:
            reply = response.json()
            content = reply["choices"][0]["message"]["content"]
            thought = reply["choices"][0]["message"].get("reasoning", "")
            scaling, usage = reply["scaling"], reply["usage"]
        limit = scaling["budget"]["limit"]
        assert response.headers["x-reasoning-budget-applied"] == str(limit)
        assert limit == {"off": 0, "1": 1, "16": 16, "low": 24}[budget]
        assert content.strip()
        assert usage["completion_tokens_details"]["reasoning_tokens"] <= limit
        assert usage["completion_tokens"] <= 48
        if limit != 1:  # a single token may be a line feed, which is dressing
            assert bool(thought) is (limit > 0)
        assert 20 < usage["prompt_tokens"] < 120


async def test_a_vote_over_real_samples(client: AsyncOpenAI, embedded: EmbeddedGateway) -> None:
    """The report accounts for every sample, whatever the model answers."""
    reply = await client.chat.completions.create(
        model=embedded.model, messages=QUESTION, max_tokens=16, seed=3, extra_headers={"X-Samples": "4"}
    )
    assert reply.choices[0].message.content
    assert reply.model_extra is not None
    scaling = reply.model_extra["scaling"]
    samples = scaling["samples"]
    assert samples["launched"] == samples["finished"] + samples["aborted"]
    assert samples["failed"] == 0
    voted = sum(group["count"] for group in scaling["vote"]["groups"])
    assert voted == samples["finished"] - samples["unanswered"] - samples["truncated"]
    assert reply.usage is not None
    assert reply.usage.completion_tokens >= samples["finished"]


@pytest.mark.parametrize("stop", ["none", "first-2"])
async def test_a_streamed_vote(plain: httpx.AsyncClient, embedded: EmbeddedGateway, stop: str) -> None:
    """Each sample brings progress; then the winner's text follows, from one request or many."""
    response = await plain.post(
        PATH,
        json={"model": embedded.model, "messages": QUESTION, "max_tokens": 16, "stream": True},
        headers={"X-Samples": "3", "X-Stop": stop, "X-Reasoning-Budget": "8"},
    )
    events = events_of(response.text)
    progress = [event for event in events if "progress" in event.get("scaling", {})]
    assert len(progress) >= 2
    text = "".join(choice["delta"].get("content") or "" for e in events for choice in e["choices"])
    assert text.strip()
    assert events[-1]["scaling"]["samples"]["launched"] == 3


async def test_more_samples_than_the_engine_takes_at_once(
    plain: httpx.AsyncClient, embedded: EmbeddedGateway
) -> None:
    """The engine refuses an `n` beyond its slots, so the gateway draws the samples one by one."""
    response = await plain.post(
        PATH,
        json={"model": embedded.model, "messages": QUESTION, "max_tokens": 4},
        headers={"X-Samples": "10", "X-Stop": "none"},
    )
    assert response.status_code == 200, response.text
    assert response.json()["scaling"]["samples"]["finished"] == 10


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("headers", "samples"),
    [
        ({}, 1),
        ({"X-Reasoning-Budget": "900"}, 1),
        ({"X-Samples": "4", "X-Stop": "first-4"}, 4),
        ({"X-Samples": "4", "X-Stop": "none"}, 4),
    ],
)
async def test_a_disconnect_frees_the_engine(
    plain: httpx.AsyncClient, embedded: EmbeddedGateway, headers: dict[str, str], samples: int, stream: bool
) -> None:
    """By the engine's own count nothing runs after the client has left."""
    await reaches(embedded, 0, 0)
    body = {
        "model": embedded.model,
        "messages": STORY,
        "max_tokens": 1500,
        "stream": stream,
        "ignore_eos": True,
    }
    task = asyncio.create_task(plain.post(PATH, json=body, headers=headers))
    await reaches(embedded, samples, samples)
    task.cancel()
    await asyncio.wait({task})
    await reaches(embedded, 0, 0, seconds=5)


async def test_the_engines_error_reaches_the_client(client: AsyncOpenAI, embedded: EmbeddedGateway) -> None:
    """A prompt that is too long gets the engine's own 400, streamed or not."""
    long = [{"role": "user", "content": "sea " * 4000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="context size"):
            await client.chat.completions.create(model=embedded.model, messages=long, stream=stream)  # type: ignore[call-overload]


async def test_an_unknown_value_is_refused(client: AsyncOpenAI, embedded: EmbeddedGateway) -> None:
    """The official client raises its own error, which names the header."""
    with pytest.raises(openai.BadRequestError, match=r"X-Reasoning-Budget.*allowed.*minimal") as error:
        await client.chat.completions.create(
            model=embedded.model, messages=QUESTION, extra_headers={"X-Reasoning-Budget": "lots"}
        )
    assert error.value.param == "X-Reasoning-Budget"


async def test_many_clients_at_once(plain: httpx.AsyncClient, embedded: EmbeddedGateway) -> None:
    """More requests than slots all get their answers, streamed or not."""
    body = {"model": embedded.model, "messages": QUESTION, "max_tokens": 4}
    replies = await asyncio.gather(
        *(plain.post(PATH, json={**body, "stream": turn % 2 == 0}) for turn in range(24))
    )
    assert [reply.status_code for reply in replies] == [200] * 24
    await reaches(embedded, 0, 0)


async def test_what_operators_see(plain: httpx.AsyncClient, embedded: EmbeddedGateway) -> None:
    """Models, health and readiness answer, and no request stays in the metrics."""
    assert embedded.model in {model["id"] for model in (await plain.get("/v1/models")).json()["data"]}
    assert (await plain.get("/health")).status_code == 200
    assert (await plain.get("/ready")).status_code == 200
    assert "thinkgate_requests_running 0.0" in (await plain.get("/metrics")).text


@pytest.mark.parametrize("scorer", ["confidence", "judge"])
async def test_a_real_scorer_weighs_a_vote(
    plain: httpx.AsyncClient, embedded: EmbeddedGateway, scorer: str
) -> None:
    """It uses the engine's logprobs, which the client doesn't get, or asks the model as a judge."""
    ask = {"model": embedded.model, "messages": QUESTION, "max_tokens": 40, "seed": 1, "temperature": 0.7}
    headers = {"X-Samples": "4", "X-Scorer": scorer, "X-Stop": "none", "X-Vote": "best"}
    body = (await plain.post(PATH, json=ask, headers=headers)).raise_for_status().json()
    scaling = body["scaling"]
    assert scaling["vote"]["scorer"] == scorer
    assert body["choices"][0]["logprobs"] is None
    assert not any("logprobs" in note or "failed" in note for note in scaling["notes"])
    assert (scaling["usage"]["scorer_tokens"] > 0) is (scorer == "judge")


async def test_a_confident_vote_stops_after_its_warm_up(
    plain: httpx.AsyncClient, embedded: EmbeddedGateway
) -> None:
    """If the warm-up of four samples agrees, the vote draws no others; at this temperature it agrees."""
    ask = {"model": embedded.model, "messages": QUESTION, "max_tokens": 40, "temperature": 0.01}
    ask["scaling"] = {"samples": 8, "stop": "confident", "vote": "confidence"}
    scaling = (await plain.post(PATH, json=ask)).raise_for_status().json()["scaling"]
    assert scaling["vote"]["stopped_by"] == "confident"
    assert scaling["vote"]["share"] == 1
    assert (scaling["samples"]["launched"], scaling["samples"]["aborted"]) == (4, 0)
    assert scaling["notes"] == []


async def test_a_confident_vote_aborts_unsure_streams(
    plain: httpx.AsyncClient, embedded: EmbeddedGateway
) -> None:
    """Streamed logprobs abort samples after the warm-up, also upstream, and their tokens count."""
    ask = {"model": embedded.model, "messages": STORY, "max_tokens": 40, "temperature": 1.2}
    ask["scaling"] = {"samples": 8, "stop": "confident", "vote": "mbr", "trace": True}
    aborted = 0
    for seed in range(12):  # chance decides which streams are unsure: one in three tries aborts none
        body = (await plain.post(PATH, json=ask | {"seed": seed})).raise_for_status().json()
        trace, samples = body["scaling"]["trace"], body["scaling"]["samples"]
        assert all(sample["status"] in ("finished", "truncated", "unanswered") for sample in trace[:4])
        aborted = samples["aborted"]
        assert aborted == sum(sample["status"] == "aborted" for sample in trace)
        assert not any("logprobs" in note for note in body["scaling"]["notes"])
        if aborted:
            break
    trace_tokens = sum(sample.get("tokens", 0) for sample in trace)
    assert aborted
    assert trace_tokens < body["usage"]["completion_tokens"] < trace_tokens + 40 * aborted
    await reaches(embedded, 0, 0)
