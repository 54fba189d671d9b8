"""The real gateway in front of the real vLLM: limits kept by the engine and by the gateway, votes, aborts.

Nothing tells the gateway what the tiny model is: its name fits no family, so that the opened
thinking block and the missing switch are learned from the template that vLLM renders.
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
ANSWER = "The answer is \\boxed{7}."
GREEDY = {"temperature": 0}
"""The tiny model never closes its thinking at temperature 0, and always answers seven."""
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
    """A gateway, the vLLM behind it, and who keeps the limits there."""

    url: str
    server: VllmServer
    enforced: str

    def tokens(self, text: str) -> int:
        """How many tokens a text is, without any that a template would add."""
        body = {"model": self.server.model, "prompt": text, "add_special_tokens": False}
        return int(self.server.http.post("/tokenize", json=body).json()["count"])

    def thought(self, text: str) -> int:
        """How many tokens of thinking a text is: the blank space before it was taken for dressing, if any."""
        return self.tokens(f" {text.lstrip()}") if text else 0

    def requests(self) -> int:
        """How many chat requests vLLM has had, refused ones included."""
        lines = self.server.http.get("/metrics").text.splitlines()
        kind = 'http_requests_total{handler="/v1/chat/completions"'
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(kind)))

    def never_close(self) -> dict[str, int]:
        """A logit_bias with which the thinking never ends by itself, at any temperature."""
        body = {"model": self.server.model, "prompt": "</think>", "add_special_tokens": False}
        [token] = self.server.http.post("/tokenize", json=body).json()["tokens"]
        return {str(token): -100}


@dataclass(frozen=True, slots=True)
class Reply:
    """One choice's texts and what came with them, streamed or not."""

    content: str
    reasoning: str
    finish_reason: str
    logprobs: list[Json]
    usage: Json
    scaling: Json

    @property
    def used(self) -> int:
        """The thinking tokens of the answer that came back."""
        return int(self.scaling["budget"]["used"])


@pytest.fixture(scope="module")
def native(reasoning_server: VllmServer) -> Iterator[Gateway]:
    """Before a vLLM that keeps limits itself."""
    settings = Settings(upstream=HttpUrl(f"{reasoning_server.base_url}/v1"))
    with serving_in_thread(create_app(settings)) as url:
        yield Gateway(url, reasoning_server, "native")


@pytest.fixture(scope="module")
def forced(plain_server: VllmServer) -> Iterator[Gateway]:
    """Before a vLLM that refuses to keep limits."""
    settings = Settings(upstream=HttpUrl(f"{plain_server.base_url}/v1"))
    with serving_in_thread(create_app(settings)) as url:
        yield Gateway(url, plain_server, "forced")


@pytest.fixture(params=["native", "forced"])
def gateway(request: pytest.FixtureRequest) -> Gateway:
    """Each of the two in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Gateway)
    return found


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """Any HTTP client, with time enough for a busy machine."""
    async with httpx.AsyncClient(timeout=120) as client:
        yield client


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, as a user sets it up."""
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def replies(
    http: httpx.AsyncClient,
    gateway: Gateway,
    headers: Mapping[str, str] | None = None,
    *,
    stream: bool = False,
    **fields: Any,
) -> list[Reply]:
    """All choices of one chat request, each with the request's usage and report."""
    body: Json = {"model": gateway.server.model, "messages": QUESTION, **fields, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    response = await http.post(gateway.url + CHAT, json=body, headers=dict(headers or {}))
    assert response.status_code == 200, response.text
    if stream:
        return from_stream(events_of(response.text))
    whole = response.json()
    return [
        Reply(
            choice["message"]["content"],
            choice["message"].get("reasoning") or "",
            choice["finish_reason"],
            (choice.get("logprobs") or {}).get("content") or [],
            whole["usage"],
            whole.get("scaling") or {},
        )
        for choice in whole["choices"]
    ]


def from_stream(events: list[Json]) -> list[Reply]:
    """The choices that a stream's events add up to."""
    choices = [choice for event in events for choice in event["choices"]]
    usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
    scaling = next((event["scaling"] for event in reversed(events) if "scaling" in event), {})
    together = []
    for index in sorted({choice["index"] for choice in choices}):
        own = [choice for choice in choices if choice["index"] == index]
        entries = [entry for choice in own for entry in (choice.get("logprobs") or {}).get("content") or ()]
        texts = [
            "".join(choice["delta"].get(name) or "" for choice in own) for name in ("content", "reasoning")
        ]
        [finish] = [choice["finish_reason"] for choice in own if choice["finish_reason"]]
        together.append(Reply(*texts, finish, entries, usage, scaling))
    return together


async def reply(
    http: httpx.AsyncClient, gateway: Gateway, headers: Mapping[str, str] | None = None, **fields: Any
) -> Reply:
    """The only choice of one chat request."""
    [only] = await replies(http, gateway, headers, **fields)
    return only


def budget(value: object) -> dict[str, str]:
    """The header that asks for it."""
    return {"X-Reasoning-Budget": str(value)}


async def gone(gateway: Gateway) -> None:
    """Waits until vLLM's own gauges say that nothing runs or waits."""
    await until(lambda: gateway.server.running() == 0, "the end of all sequences")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [0, 8, 64])
async def test_a_runaway_thinker_is_stopped_at_its_limit(
    http: httpx.AsyncClient, gateway: Gateway, limit: int, stream: bool
) -> None:
    """Exactly: vLLM counts the line feed behind the template's tag, the gateway only what the model wrote."""
    got = await reply(http, gateway, budget(limit), **GREEDY, stream=stream)
    thought = max(limit - 1, 0) if gateway.enforced == "native" else limit
    assert got.content == ANSWER
    assert got.finish_reason == "stop"
    assert gateway.thought(got.reasoning) == thought
    assert got.used == got.usage["completion_tokens_details"]["reasoning_tokens"] == thought
    assert got.scaling["budget"]["limit"] == limit
    assert got.scaling["usage"]["estimated"] is False
    assert got.scaling["budget"]["enforced"] == gateway.enforced


async def test_a_limit_that_was_proven_is_left_to_the_engine(
    http: httpx.AsyncClient, native: Gateway
) -> None:
    """Seen once to keep a limit, vLLM gets one plain request, and its token ids are counted."""
    await reply(http, native, budget(8), **GREEDY)
    for limit in (0, 1, 8, 64):
        got = await reply(http, native, budget(limit), **GREEDY)
        assert got.content == ANSWER
        assert got.used == max(limit - 1, 0)
        assert got.scaling["budget"]["enforced"] == "native"
        assert got.scaling["usage"]["estimated"] is False


async def test_thinking_that_ends_before_its_limit_is_left_alone(
    http: httpx.AsyncClient, gateway: Gateway
) -> None:
    """One upstream request, whatever the seed, and as many thinking tokens as the text has."""
    for seed in range(4):
        got = await reply(http, gateway, budget(1000), seed=seed, stream=seed % 2 == 0)
        assert got.content.startswith("The answer is \\boxed{")
        assert got.used == gateway.thought(got.reasoning) > 0
        assert got.scaling["usage"]["upstream_prompt_tokens"] == got.usage["prompt_tokens"]


async def test_a_forced_answer_is_written_behind_the_whole_thought(
    http: httpx.AsyncClient, forced: Gateway
) -> None:
    """The second prompt is the first one, all that was thought, and the closing, token for token."""
    got = await reply(http, forced, budget(64), **GREEDY)
    written = got.reasoning + closing_text(Markup(), limit_reached=True)
    prompt = got.usage["prompt_tokens"]
    assert not got.reasoning.startswith(" ")
    assert got.scaling["usage"]["upstream_prompt_tokens"] == prompt + prompt + forced.tokens(f" {written}")
    # Whatever came in one chunk with the last token that fits was generated, too.
    assert got.usage["completion_tokens"] >= 64 + forced.tokens(ANSWER) + 1


async def test_the_refused_field_is_remembered(http: httpx.AsyncClient, plain_server: VllmServer) -> None:
    """A gateway's first limit costs one more request; from then on it keeps them itself."""
    settings = Settings(upstream=HttpUrl(f"{plain_server.base_url}/v1"))
    with serving_in_thread(create_app(settings)) as url:
        fresh = Gateway(url, plain_server, "forced")
        before = fresh.requests()
        for stream in (False, True, False):
            got = await reply(http, fresh, budget(8), **GREEDY, stream=stream)
            assert (got.content, got.used) == (ANSWER, 8)
        assert fresh.requests() - before == 4


@pytest.mark.parametrize("named", [None, "deepseek-r1"])
async def test_the_template_is_learned_or_named(
    http: httpx.AsyncClient, plain_server: VllmServer, named: str | None
) -> None:
    """With the family's name in the settings or without: the block that the template opened is read."""
    settings = Settings(upstream=HttpUrl(f"{plain_server.base_url}/v1"), family=named)
    with serving_in_thread(create_app(settings)) as url:
        got = await reply(http, Gateway(url, plain_server, "forced"), seed=2)
    assert got.reasoning.startswith("first we add")
    assert got.content.startswith("The answer is \\boxed{")
    assert got.scaling == {} or got.scaling["budget"]["limit"] is None


async def test_a_family_named_wrongly_is_not_corrected(
    http: httpx.AsyncClient, plain_server: VllmServer
) -> None:
    """The operator's word stands: the thought stays in the text, as it is not expected there."""
    settings = Settings(upstream=HttpUrl(f"{plain_server.base_url}/v1"), family="generic")
    with serving_in_thread(create_app(settings)) as url:
        got = await reply(http, Gateway(url, plain_server, "forced"), seed=2)
    assert "</think>" in got.content


async def test_off_is_no_thinking_at_all(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """No token of it, streamed and not, alone and in a vote; the answer is there."""
    for fields in ({}, {"stream": True}, {"scaling": {"samples": 3, "stop": "none"}}, {"n": 2}):
        for got in await replies(http, gateway, budget("off"), seed=1, **fields):
            assert got.content.startswith("The answer is \\boxed{")
            assert (got.reasoning, got.used) == ("", 0)
            assert got.usage["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_max_puts_the_end_off(http: httpx.AsyncClient, gateway: Gateway, stream: bool) -> None:
    """Twice "Wait," in place of the end tag, then the model may stop."""
    got = await reply(http, gateway, budget("max"), seed=2, stream=stream)
    assert got.reasoning.count("\nWait,") == 2
    assert "think>" not in got.reasoning + got.content
    assert got.content.startswith("The answer is \\boxed{")
    assert 0 < got.used <= got.scaling["budget"]["limit"] <= ROOMY * 3 // 4


async def test_auto_spends_until_it_is_sure(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """All samples at temperature 0 would be one; at 1 the leader has the most votes."""
    for seed in range(2):
        got = await reply(http, gateway, budget("auto"), seed=seed)
        samples = got.scaling["samples"]
        assert got.content.startswith("The answer is \\boxed{")
        assert samples["launched"] == samples["finished"] + samples["aborted"] >= 3
        assert got.scaling["vote"]["stopped_by"]
        counts = [group["count"] for group in got.scaling["vote"]["groups"]]
        assert counts == sorted(counts, reverse=True)
    await gone(gateway)


async def test_choices_come_back_raw(client: openai.AsyncOpenAI, gateway: Gateway) -> None:
    """The official client's `n`, seeds included: each choice is the one that a single seed gives."""
    ask: Json = {"model": gateway.server.model, "messages": QUESTION}
    together = await client.chat.completions.create(**ask, n=3, seed=5)
    alone = [await client.chat.completions.create(**ask, seed=5 + i) for i in range(3)]
    assert [choice.message.content for choice in together.choices] == [
        single.choices[0].message.content for single in alone
    ]
    assert together.usage is not None
    assert together.usage.completion_tokens == sum(
        each.usage.completion_tokens for each in alone if each.usage
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_each_choice_keeps_its_own_limit(
    http: httpx.AsyncClient, gateway: Gateway, stream: bool
) -> None:
    """Three choices with eight thinking tokens each."""
    for got in await replies(http, gateway, budget(8), n=3, seed=1, stream=stream):
        assert got.content.startswith("The answer is \\boxed{")
        assert gateway.thought(got.reasoning) <= 8


async def test_a_vote_without_stopping_is_one_request(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """vLLM reads the prompt once for all samples."""
    got = await reply(http, gateway, {"X-Samples": "6", "X-Stop": "none"}, seed=3)
    assert got.scaling["samples"]["finished"] == 6
    assert got.scaling["usage"]["upstream_prompt_tokens"] == got.usage["prompt_tokens"]
    assert sum(group["count"] for group in got.scaling["vote"]["groups"]) == 6
    assert got.usage["completion_tokens_details"]["reasoning_tokens"] > 6
    assert got.used == gateway.thought(got.reasoning)


async def test_a_vote_that_may_stop_aborts_its_stragglers(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """Single requests; once the first answer is in, vLLM has nothing left to do."""
    for headers in ({"X-Stop": "first-1"}, {"X-Stop": "first-1", **budget(500)}):
        got = await reply(http, gateway, {"X-Samples": "8", **headers}, seed=4)
        samples = got.scaling["samples"]
        assert samples["launched"] == samples["finished"] + samples["aborted"] == 8
        assert samples["aborted"] > 0
        await gone(gateway)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_adaptive_vote_finds_the_majority(
    http: httpx.AsyncClient, gateway: Gateway, stream: bool
) -> None:
    """Every sample is accounted for, and the winner's text is the reply."""
    got = await reply(http, gateway, {"X-Samples": "12", **budget(8)}, seed=6, stream=stream)
    samples, vote = got.scaling["samples"], got.scaling["vote"]
    assert samples["launched"] == samples["finished"] + samples["aborted"] <= 12
    assert samples["failed"] == samples["truncated"] == 0
    assert vote["groups"][0]["answer"] in got.content
    await gone(gateway)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [None, 8])
async def test_logprobs_come_back_in_chats_shape(
    http: httpx.AsyncClient, gateway: Gateway, limit: int | None, stream: bool
) -> None:
    """One entry for each token of thinking and answer, also across a forced close."""
    headers = {} if limit is None else budget(limit)
    got = await reply(
        http, gateway, headers, **({"seed": 2} if limit is None else GREEDY),
        logprobs=True, top_logprobs=3, stream=stream,
    )  # fmt: skip
    assert len(got.logprobs) == got.usage["completion_tokens"]
    assert [entry["token"] for entry in got.logprobs][-10:-8] == ["The", " answer"]
    for entry in got.logprobs:
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
    """By vLLM's own metrics: all samples had begun, none has come to its end, and none is left."""
    await gone(gateway)
    started, completed = gateway.server.started(), gateway.server.completed()
    body = {
        "model": gateway.server.model,
        "messages": QUESTION,
        "max_tokens": ROOMY - 1000,
        "logit_bias": gateway.never_close(),
        "stream": stream,
    }
    task = asyncio.create_task(http.post(gateway.url + CHAT, json=body, headers=headers))
    await until(lambda: gateway.server.started() - started == samples, "the samples' start")
    task.cancel()
    await asyncio.wait({task})
    await gone(gateway)
    assert gateway.server.completed() == completed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [8, 900])
async def test_a_schema_leaves_the_thinking_free(
    http: httpx.AsyncClient, gateway: Gateway, limit: int, stream: bool
) -> None:
    """Thought first, and then nothing but valid JSON; cut at the limit or ended before it."""
    got = await reply(
        http,
        gateway,
        budget(limit),
        response_format=SCHEMA,
        stream=stream,
        **(GREEDY if limit == 8 else {"seed": 2}),
    )
    assert json.loads(got.content) == {"answer": 7}
    assert 0 < got.used <= limit
    assert gateway.thought(got.reasoning) <= limit


async def test_earlier_thinking_is_dropped(http: httpx.AsyncClient, gateway: Gateway) -> None:
    """In tags or in either field, the next turn's prompt is as long as without it."""
    turns: list[Json] = [
        {"role": "assistant", "content": ANSWER},
        {"role": "assistant", "content": f"<think>\nfirst we add</think>\n\n{ANSWER}"},
        {"role": "assistant", "content": ANSWER, "reasoning_content": "first we add"},
        {"role": "assistant", "content": ANSWER, "reasoning": "first we add"},
    ]
    prompts = set()
    for turn in turns:
        got = await reply(http, gateway, budget(8), messages=[*QUESTION, turn, *QUESTION], **GREEDY)
        assert got.content == ANSWER
        prompts.add(got.usage["prompt_tokens"])
    assert len(prompts) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_may_be_left_out(http: httpx.AsyncClient, gateway: Gateway, stream: bool) -> None:
    """It is still done, limited and counted; asked for in words, it is there."""
    for fields in ({"reasoning": {"exclude": True}}, {"include_reasoning": False}):
        got = await reply(http, gateway, budget(8), **GREEDY, stream=stream, **fields)
        assert (got.content, got.reasoning) == (ANSWER, "")
        assert got.used in (7, 8)
    got = await reply(http, gateway, budget(8), **GREEDY, stream=stream, include_reasoning=True)
    assert got.reasoning.lstrip().startswith("first we")


async def test_a_suffix_asks_for_level_and_samples(client: openai.AsyncOpenAI, gateway: Gateway) -> None:
    """`tiny:low@4` by a client that can say nothing else."""
    reply = await client.chat.completions.create(model="tiny:low@4", messages=QUESTION, seed=1)  # type: ignore[arg-type]
    assert reply.model == gateway.server.model
    assert reply.model_extra is not None
    scaling = reply.model_extra["scaling"]
    assert scaling["budget"]["asked"] == "low"
    assert scaling["budget"]["limit"] == 1024
    assert 1 <= scaling["samples"]["launched"] <= 4
    assert scaling["samples"]["asked"] == 4


async def test_the_responses_endpoint(client: openai.AsyncOpenAI, gateway: Gateway) -> None:
    """The official client's `responses`: a reasoning item, then the text."""
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
    """Anthropic's client: a thinking block, then the text."""
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        message = await client.messages.create(
            model=gateway.server.model,
            max_tokens=1000,
            messages=[{"role": "user", "content": "What is two plus five?"}],
            extra_body={"thinking": {"type": "enabled", "budget_tokens": 8}, **GREEDY},
        )
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[-1].text == ANSWER
