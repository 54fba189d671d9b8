"""The real gateway in front of the real vLLM: limits by the engine and by the gateway, votes, aborts.

The name of the tiny model fits no family. The gateway therefore learns from the template that vLLM renders
that the prompt opens the thinking block, and that the model has no switch.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import pytest
from pydantic import HttpUrl

from gateway.app import create_app
from gateway.config import Settings
from policies.prompts import closing_text
from policies.thinking import Markup
from tests.fakes import until
from tests.serving import events_of, serving_in_thread
from tests.vllm.server import ROOMY, VllmServer

Json = dict[str, Any]

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "What is two plus five?"}]
ANSWER_CAP = 1024
"""The most tokens of an answer under a limit; the model, which is random, may not end it."""
ANSWER = "The answer is \\boxed{7}."
GREEDY = {"temperature": 0}
"""At temperature 0 the tiny model never closes its thinking, and always answers seven."""
PATIENCE = 60.0
"""Seconds that a busy machine may need to start or abort samples."""
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {
            "type": "object",
            "properties": {"answer": {"enum": [7]}},
            "required": ["answer"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway, the vLLM behind it, and who enforces the limits."""

    url: str
    server: VllmServer
    enforced: str

    def tokens(self, text: str) -> int:
        """Count the tokens of a text, without those that a template would add."""
        body = {"model": self.server.model, "prompt": text, "add_special_tokens": False}
        return int(self.server.http.post("/tokenize", json=body).json()["count"])

    def thinking_tokens(self, text: str) -> int:
        """Count the thinking tokens of a text with the leading blank that the gateway strips as markup."""
        return self.tokens(f" {text.lstrip()}") if text else 0

    def requests(self) -> int:
        """Count the chat requests to vLLM, with the refused ones."""
        lines = self.server.http.get("/metrics").text.splitlines()
        kind = 'http_requests_total{handler="/v1/chat/completions"'
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(kind)))

    def endless_thinking(self) -> dict[str, int]:
        """Return a logit_bias with which the thinking never ends by itself, at any temperature."""
        body = {"model": self.server.model, "prompt": "</think>", "add_special_tokens": False}
        [token] = self.server.http.post("/tokenize", json=body).json()["tokens"]
        return {str(token): -100}


@dataclass(frozen=True, slots=True)
class Reply:
    """The texts of one choice, with the usage and report of its request."""

    content: str
    reasoning: str
    finish_reason: str
    logprobs: list[Json]
    usage: Json
    scaling: Json

    @property
    def used(self) -> int:
        """Return the thinking tokens of the reply."""
        return int(self.scaling["budget"]["used"])


@pytest.fixture(scope="module")
def native(reasoning_server: VllmServer) -> Iterator[Gateway]:
    """Serve a gateway in front of a vLLM that enforces limits itself."""
    settings = Settings(upstream=HttpUrl(f"{reasoning_server.base_url}/v1"), answer_cap=ANSWER_CAP)
    with serving_in_thread(create_app(settings)) as url:
        yield Gateway(url, reasoning_server, "native")


@pytest.fixture(scope="module")
def forced(plain_server: VllmServer) -> Iterator[Gateway]:
    """Serve a gateway in front of a vLLM that refuses to enforce limits."""
    settings = Settings(upstream=HttpUrl(f"{plain_server.base_url}/v1"), answer_cap=ANSWER_CAP)
    with serving_in_thread(create_app(settings)) as url:
        yield Gateway(url, plain_server, "forced")


@pytest.fixture(params=["native", "forced"])
def gateway(request: pytest.FixtureRequest) -> Gateway:
    """Return each of the two in turn."""
    gateway = request.getfixturevalue(request.param)
    assert isinstance(gateway, Gateway)
    return gateway


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """Open a plain HTTP client with timeouts for a busy machine."""
    async with httpx.AsyncClient(timeout=120) as client:
        yield client


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """Open the official client as a user does."""
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def complete_all(
    http: httpx.AsyncClient,
    gateway: Gateway,
    headers: Mapping[str, str] | None = None,
    *,
    stream: bool = False,
    **fields: Any,
) -> list[Reply]:
    """Return all choices of one chat request, each with the usage and report of the request."""
    body: Json = {"model": gateway.server.model, "messages": QUESTION, **fields, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    response = await http.post(gateway.url + CHAT, json=body, headers=dict(headers or {}))
    assert response.status_code == 200, response.text
    if stream:
        return from_stream(events_of(response.text))
    payload = response.json()
    return [
        Reply(
            choice["message"]["content"],
            choice["message"].get("reasoning") or "",
            choice["finish_reason"],
            (choice.get("logprobs") or {}).get("content") or [],
            payload["usage"],
            payload.get("scaling") or {},
        )
        for choice in payload["choices"]
    ]


def from_stream(events: list[Json]) -> list[Reply]:
    """Assemble the choices from the events of a stream."""
    choices = [choice for event in events for choice in event["choices"]]
    usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
    scaling = next((event["scaling"] for event in reversed(events) if "scaling" in event), {})
    assembled = []
    for index in sorted({choice["index"] for choice in choices}):
        own = [choice for choice in choices if choice["index"] == index]
        entries = [entry for choice in own for entry in (choice.get("logprobs") or {}).get("content") or ()]
        texts = [
            "".join(choice["delta"].get(name) or "" for choice in own) for name in ("content", "reasoning")
        ]
        [finish] = [choice["finish_reason"] for choice in own if choice["finish_reason"]]
        assembled.append(Reply(*texts, finish, entries, usage, scaling))
    return assembled


async def complete(
    http: httpx.AsyncClient, gateway: Gateway, headers: Mapping[str, str] | None = None, **fields: Any
) -> Reply:
    """Return the only choice of one chat request."""
    [only] = await complete_all(http, gateway, headers, **fields)
    return only


def budget(value: object) -> dict[str, str]:
    """Return the header for a reasoning budget."""
    return {"X-Reasoning-Budget": str(value)}


async def wait_until_idle(gateway: Gateway) -> None:
    """Wait until vLLM's own gauges report no running and no queued sequences."""
    await until(lambda: gateway.server.running() == 0, "the end of all sequences", PATIENCE)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [0, 8, 64])
async def test_endless_thinking_stops_at_its_limit(
    http: httpx.AsyncClient, gateway: Gateway, limit: int, stream: bool
) -> None:
    """It stops exactly there. vLLM counts the template's line feed too; the gateway counts only output."""
    reply = await complete(http, gateway, budget(limit), **GREEDY, stream=stream)
    expected = max(limit - 1, 0) if gateway.enforced == "native" else limit
    assert reply.content == ANSWER
    assert reply.finish_reason == "stop"
    assert gateway.thinking_tokens(reply.reasoning) == expected
    assert reply.used == reply.usage["completion_tokens_details"]["reasoning_tokens"] == expected
    assert reply.scaling["budget"]["limit"] == limit
    assert reply.scaling["usage"]["estimated"] is False
    assert reply.scaling["budget"]["enforced"] == gateway.enforced


async def test_the_gateway_leaves_a_proven_limit_to_the_engine(
    http: httpx.AsyncClient, native: Gateway
) -> None:
    """Once vLLM has enforced a limit, it gets one plain request, and the gateway counts its token ids."""
    await complete(http, native, budget(8), **GREEDY)
    for limit in (0, 1, 8, 64):
        reply = await complete(http, native, budget(limit), **GREEDY)
        assert reply.content == ANSWER
        assert reply.used == max(limit - 1, 0)
        assert reply.scaling["budget"]["enforced"] == "native"
        assert reply.scaling["usage"]["estimated"] is False


async def test_thinking_may_end_before_its_limit(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """With any seed there is one upstream request, and the report has the thinking tokens of the text."""
    for seed in range(4):
        reply = await complete(http, gateway, budget(1000), seed=seed, stream=seed % 2 == 0)
        assert reply.content.startswith("The answer is \\boxed{")
        assert reply.used == gateway.thinking_tokens(reply.reasoning) > 0
        assert reply.scaling["usage"]["upstream_prompt_tokens"] == reply.usage["prompt_tokens"]


async def test_a_forced_answer_follows_the_whole_thinking(http: httpx.AsyncClient, forced: Gateway) -> None:
    """The second prompt is the first one, the whole thinking and the closing, token for token."""
    reply = await complete(http, forced, budget(64), **GREEDY)
    thinking = reply.reasoning + closing_text(Markup(), limit_reached=True)
    prompt = reply.usage["prompt_tokens"]
    assert not reply.reasoning.startswith(" ")
    assert reply.scaling["usage"]["upstream_prompt_tokens"] == prompt + prompt + forced.tokens(f" {thinking}")
    # Tokens in the same chunk as the last token within the limit count as generated, too.
    assert reply.usage["completion_tokens"] >= 64 + forced.tokens(ANSWER) + 1


async def test_the_gateway_remembers_a_refused_field(
    http: httpx.AsyncClient, plain_server: VllmServer
) -> None:
    """The first limit costs one more request; afterwards the gateway enforces limits itself."""
    settings = Settings(upstream=HttpUrl(f"{plain_server.base_url}/v1"), answer_cap=ANSWER_CAP)
    with serving_in_thread(create_app(settings)) as url:
        fresh = Gateway(url, plain_server, "forced")
        before = fresh.requests()
        for stream in (False, True, False):
            reply = await complete(http, fresh, budget(8), **GREEDY, stream=stream)
            assert (reply.content, reply.used) == (ANSWER, 8)
        assert fresh.requests() - before == 4


@pytest.mark.parametrize("family", [None, "deepseek-r1"])
async def test_the_gateway_splits_with_or_without_a_configured_family(
    http: httpx.AsyncClient, plain_server: VllmServer, family: str | None
) -> None:
    """It reads the thinking block that the template opened, with or without the family in the settings."""
    settings = Settings(upstream=HttpUrl(f"{plain_server.base_url}/v1"), answer_cap=ANSWER_CAP, family=family)
    with serving_in_thread(create_app(settings)) as url:
        reply = await complete(http, Gateway(url, plain_server, "forced"), seed=2)
    assert reply.reasoning.startswith("first we add")
    assert reply.content.startswith("The answer is \\boxed{")
    assert reply.scaling == {} or reply.scaling["budget"]["limit"] is None


async def test_a_wrongly_configured_family_stays(http: httpx.AsyncClient, plain_server: VllmServer) -> None:
    """The operator's setting wins, so the thinking stays in the text."""
    settings = Settings(
        upstream=HttpUrl(f"{plain_server.base_url}/v1"), answer_cap=ANSWER_CAP, family="generic"
    )
    with serving_in_thread(create_app(settings)) as url:
        reply = await complete(http, Gateway(url, plain_server, "forced"), seed=2)
    assert "</think>" in reply.content


async def test_off_is_no_thinking_at_all(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """There is an answer but no thinking token, streamed and unstreamed, for one sample and a vote."""
    for fields in ({}, {"stream": True}, {"scaling": {"samples": 3, "stop": "none"}}, {"n": 2}):
        for reply in await complete_all(http, gateway, budget("off"), seed=1, **fields):
            assert reply.content.startswith("The answer is \\boxed{")
            assert (reply.reasoning, reply.used) == ("", 0)
            assert reply.usage["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_max_postpones_the_end(http: httpx.AsyncClient, gateway: Gateway, stream: bool) -> None:
    """The gateway replaces the end tag twice by "Wait,"; then the model may stop."""
    reply = await complete(http, gateway, budget("max"), seed=2, stream=stream)
    assert reply.reasoning.count("\nWait,") == 2
    assert "think>" not in reply.reasoning + reply.content
    assert reply.content.startswith("The answer is \\boxed{")
    assert 0 < reply.used <= reply.scaling["budget"]["limit"] <= ROOMY * 3 // 4


async def test_auto_samples_until_the_vote_is_clear(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """It runs at the default temperature, and the first group has the most votes."""
    for seed in range(2):
        reply = await complete(http, gateway, budget("auto"), seed=seed)
        samples = reply.scaling["samples"]
        assert reply.content.startswith("The answer is \\boxed{")
        assert samples["launched"] == samples["finished"] + samples["aborted"] >= 3
        assert reply.scaling["vote"]["stopped_by"]
        counts = [group["count"] for group in reply.scaling["vote"]["groups"]]
        assert counts == sorted(counts, reverse=True)
    await wait_until_idle(gateway)


async def test_choices_come_back_raw(client: openai.AsyncOpenAI, gateway: Gateway) -> None:
    """With the official client's `n`, each choice matches the reply with its own seed."""
    ask: Json = {"model": gateway.server.model, "messages": QUESTION}
    together = await client.chat.completions.create(**ask, n=3, seed=5)
    alone = [await client.chat.completions.create(**ask, seed=5 + i) for i in range(3)]
    assert [choice.message.content for choice in together.choices] == [
        single.choices[0].message.content for single in alone
    ]
    assert together.usage is not None
    assert together.usage.completion_tokens == sum(
        single.usage.completion_tokens for single in alone if single.usage
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_each_choice_keeps_its_own_limit(
    http: httpx.AsyncClient, gateway: Gateway, stream: bool
) -> None:
    """Each of three choices has at most eight thinking tokens."""
    for reply in await complete_all(http, gateway, budget(8), n=3, seed=1, stream=stream):
        assert reply.content.startswith("The answer is \\boxed{")
        assert gateway.thinking_tokens(reply.reasoning) <= 8


async def test_a_vote_without_stopping_is_one_request(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """vLLM reads the prompt once for all samples."""
    reply = await complete(http, gateway, {"X-Samples": "6", "X-Stop": "none"}, seed=3)
    assert reply.scaling["samples"]["finished"] == 6
    assert reply.scaling["usage"]["upstream_prompt_tokens"] == reply.usage["prompt_tokens"]
    assert sum(group["count"] for group in reply.scaling["vote"]["groups"]) == 6
    assert reply.usage["completion_tokens_details"]["reasoning_tokens"] > 6
    assert reply.used == gateway.thinking_tokens(reply.reasoning)


async def test_a_vote_that_may_stop_aborts_its_unfinished_samples(
    http: httpx.AsyncClient, gateway: Gateway
) -> None:
    """It sends single requests, and after the first answer vLLM is idle."""
    for headers in ({"X-Stop": "first-1"}, {"X-Stop": "first-1", **budget(500)}):
        reply = await complete(http, gateway, {"X-Samples": "8", **headers}, seed=4)
        samples = reply.scaling["samples"]
        assert samples["launched"] == samples["finished"] + samples["aborted"] == 8
        assert samples["aborted"] > 0
        await wait_until_idle(gateway)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_adaptive_vote_finds_the_majority(
    http: httpx.AsyncClient, gateway: Gateway, stream: bool
) -> None:
    """The report accounts for every sample, and the reply is the winner's text."""
    reply = await complete(http, gateway, {"X-Samples": "12", **budget(8)}, seed=6, stream=stream)
    samples, vote = reply.scaling["samples"], reply.scaling["vote"]
    assert samples["launched"] == samples["finished"] + samples["aborted"] <= 12
    assert samples["failed"] == samples["truncated"] == 0
    assert vote["groups"][0]["answer"] in reply.content
    await wait_until_idle(gateway)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [None, 8])
async def test_logprobs_have_the_format_of_chat(
    http: httpx.AsyncClient, gateway: Gateway, limit: int | None, stream: bool
) -> None:
    """Each token of thinking and answer has one entry, even across a forced close."""
    headers = {} if limit is None else budget(limit)
    reply = await complete(
        http, gateway, headers, **({"seed": 2} if limit is None else GREEDY),
        logprobs=True, top_logprobs=3, stream=stream,
    )  # fmt: skip
    generated = reply.usage["completion_tokens"]
    if limit is not None and gateway.enforced == "forced":
        assert len(reply.logprobs) == limit + 10  # the answer and its end token
        # A busy vLLM sends many tokens in one chunk; those beyond the limit are dropped, but count.
        assert generated >= len(reply.logprobs)
    else:
        assert len(reply.logprobs) == generated
    assert [entry["token"] for entry in reply.logprobs][-10:-8] == ["The", " answer"]
    for entry in reply.logprobs:
        assert entry["logprob"] <= 0
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len(entry["top_logprobs"]) == 3
        assert {"token", "logprob", "bytes"} <= entry["top_logprobs"][0].keys()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("headers", "samples"),
    [
        ({}, 1),
        (budget(ROOMY), 1),
        ({"X-Samples": "4", "X-Stop": "none"}, 4),
        ({"X-Samples": "4", "X-Stop": "first-4"}, 4),
        ({"X-Samples": "4", "X-Stop": "first-4", **budget(ROOMY)}, 4),
    ],
)
async def test_a_hang_up_frees_vllm(
    http: httpx.AsyncClient, gateway: Gateway, headers: dict[str, str], samples: int, stream: bool
) -> None:
    """By vLLM's own metrics, all samples have started, none ends by itself, and none remains."""
    await wait_until_idle(gateway)
    started, completed = gateway.server.started(), gateway.server.completed()
    body = {
        "model": gateway.server.model,
        "messages": QUESTION,
        "max_tokens": ROOMY - 1000,
        "logit_bias": gateway.endless_thinking(),
        "stream": stream,
    }
    task = asyncio.create_task(http.post(gateway.url + CHAT, json=body, headers=headers))
    await until(lambda: gateway.server.started() - started == samples, "the samples' start", PATIENCE)
    task.cancel()
    await asyncio.wait({task})
    await wait_until_idle(gateway)
    assert gateway.server.completed() == completed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [8, 900])
async def test_a_schema_leaves_the_thinking_free(
    http: httpx.AsyncClient, gateway: Gateway, limit: int, stream: bool
) -> None:
    """Only valid JSON follows the thinking, whether the limit or the model ended it."""
    reply = await complete(
        http,
        gateway,
        budget(limit),
        response_format=SCHEMA,
        stream=stream,
        **(GREEDY if limit == 8 else {"seed": 2}),
    )
    assert json.loads(reply.content) == {"answer": 7}
    assert 0 < reply.used <= limit
    assert gateway.thinking_tokens(reply.reasoning) <= limit


async def test_the_gateway_drops_earlier_thinking(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """The next prompt is as long as without the thinking, in tags or in either field."""
    turns: list[Json] = [
        {"role": "assistant", "content": ANSWER},
        {"role": "assistant", "content": f"<think>\nfirst we add</think>\n\n{ANSWER}"},
        {"role": "assistant", "content": ANSWER, "reasoning_content": "first we add"},
        {"role": "assistant", "content": ANSWER, "reasoning": "first we add"},
    ]
    prompts = set()
    for turn in turns:
        reply = await complete(http, gateway, budget(8), messages=[*QUESTION, turn, *QUESTION], **GREEDY)
        assert reply.content == ANSWER
        prompts.add(reply.usage["prompt_tokens"])
    assert len(prompts) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_may_exclude_the_thinking(
    http: httpx.AsyncClient, gateway: Gateway, stream: bool
) -> None:
    """The model still thinks within its limit, and the report counts it; an explicit request includes it."""
    for fields in ({"reasoning": {"exclude": True}}, {"include_reasoning": False}):
        reply = await complete(http, gateway, budget(8), **GREEDY, stream=stream, **fields)
        assert (reply.content, reply.reasoning) == (ANSWER, "")
        assert reply.used in (7, 8)
    reply = await complete(http, gateway, budget(8), **GREEDY, stream=stream, include_reasoning=True)
    assert reply.reasoning.lstrip().startswith("first we")


async def test_a_suffix_sets_level_and_samples(client: openai.AsyncOpenAI, gateway: Gateway) -> None:
    """A client that can send nothing else uses `tiny:low@4`."""
    reply = await client.chat.completions.create(model="tiny:low@4", messages=QUESTION, seed=1)  # type: ignore[arg-type]
    assert reply.model == gateway.server.model
    assert reply.model_extra is not None
    scaling = reply.model_extra["scaling"]
    assert scaling["budget"]["asked"] == "low"
    assert scaling["budget"]["limit"] == 1024
    assert 1 <= scaling["samples"]["launched"] <= 4
    assert scaling["samples"]["asked"] == 4


async def test_the_responses_endpoint(client: openai.AsyncOpenAI, gateway: Gateway) -> None:
    """The official client's `responses` has a reasoning item, then the text."""
    response = await client.responses.create(
        model=gateway.server.model,
        input="What is two plus five?",
        temperature=0,
        extra_headers=budget(8),
    )
    assert response.output_text == ANSWER
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens in (7, 8)


async def test_the_messages_endpoint(gateway: Gateway) -> None:
    """Anthropic's client gets a thinking block, then the text."""
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        message = await client.messages.create(
            model=gateway.server.model,
            max_tokens=1000,
            messages=[{"role": "user", "content": "What is two plus five?"}],
            extra_body={"thinking": {"type": "enabled", "budget_tokens": 8}, **GREEDY},
        )
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[-1].text == ANSWER
