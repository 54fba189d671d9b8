"""Limits that the gateway keeps on the real embedded engine, and what else goes through a forced close."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from policies.prompts import closing_text
from policies.thinking import Markup
from tests.conftest import EmbeddedGateway
from tests.serving import events_of

pytestmark = pytest.mark.embedded

PATH = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "What is 12 + 7? Put the answer in \\boxed{}."}]


@pytest.fixture
async def http(embedded: EmbeddedGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client with time enough for a busy machine."""
    async with httpx.AsyncClient(base_url=embedded.url, timeout=120) as client:
        yield client


async def ask(http: httpx.AsyncClient, embedded: EmbeddedGateway, budget: object, **fields: Any) -> Any:
    """The JSON of one unstreamed reply."""
    body = {"model": embedded.model, "messages": QUESTION, "max_tokens": 64, "seed": 1, **fields}
    response = await http.post(PATH, json=body, headers={"X-Reasoning-Budget": str(budget)})
    assert response.status_code == 200, response.text
    return response.json()


async def tokens(embedded: EmbeddedGateway, text: str) -> int:
    """How many tokens a text is to the engine."""
    headers = {"Authorization": f"Bearer {embedded.engine.api_key}"}
    async with httpx.AsyncClient(base_url=embedded.engine.base_url.removesuffix("/v1")) as client:
        response = await client.post("/tokenize", json={"content": text}, headers=headers)
    return len(response.json()["tokens"])


async def test_the_answer_is_written_behind_the_whole_thought(
    http: httpx.AsyncClient, embedded: EmbeddedGateway
) -> None:
    """The second prompt is the first with every token of the thinking and the closing behind it."""
    reply = await ask(http, embedded, 8, ignore_eos=True, temperature=0)
    scaling, thought = reply["scaling"], reply["choices"][0]["message"]["reasoning"]
    assert scaling["budget"]["used"] == 8
    assert scaling["budget"]["enforced"] == "forced"
    added = await tokens(embedded, thought + closing_text(Markup(), limit_reached=True))
    twice = 2 * reply["usage"]["prompt_tokens"] + added
    assert (
        abs(scaling["usage"]["upstream_prompt_tokens"] - twice) <= 3
    )  # the seams may be tokenized otherwise
    assert reply["choices"][0]["message"]["content"].strip()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_leaves_the_thinking_free(
    http: httpx.AsyncClient, embedded: EmbeddedGateway, stream: bool
) -> None:
    """Prose first, then nothing but valid JSON."""
    schema = {"type": "object", "properties": {"answer": {"enum": [19, 20]}}, "required": ["answer"]}
    schema["additionalProperties"] = False
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = {"model": embedded.model, "messages": QUESTION, "seed": 1, "response_format": form}
    response = await http.post(PATH, json={**body, "stream": stream}, headers={"X-Reasoning-Budget": "12"})
    if stream:
        deltas = [choice["delta"] for event in events_of(response.text) for choice in event["choices"]]
        content = "".join(delta.get("content") or "" for delta in deltas)
        thought = "".join(delta.get("reasoning") or "" for delta in deltas)
    else:
        message = response.json()["choices"][0]["message"]
        content, thought = message["content"], message["reasoning"]
    assert json.loads(content)["answer"] in (19, 20)
    assert thought.strip()


async def test_logprobs_go_on_across_the_close(http: httpx.AsyncClient, embedded: EmbeddedGateway) -> None:
    """Entries for thinking and answer, in chat's shape."""
    reply = await ask(http, embedded, 8, logprobs=True, top_logprobs=2, ignore_eos=True, max_tokens=40)
    entries = reply["choices"][0]["logprobs"]["content"]
    text = "".join(entry["token"] for entry in entries)
    message = reply["choices"][0]["message"]
    assert message["reasoning"] in text
    assert message["content"].strip() in text
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)


async def test_each_choice_and_each_sample_keeps_its_own_limit(
    http: httpx.AsyncClient, embedded: EmbeddedGateway
) -> None:
    """As choices, and as the samples of a vote."""
    reply = await ask(http, embedded, 6, n=3)
    assert [bool(choice["message"]["content"].strip()) for choice in reply["choices"]] == [True] * 3
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] <= 18
    reply = await ask(http, embedded, 6, scaling={"samples": 4, "stop": "none", "trace": True})
    assert len(reply["scaling"]["trace"]) == 4
    assert all(sample["reasoning_tokens"] <= 6 for sample in reply["scaling"]["trace"])


@pytest.mark.parametrize("budget", ["max", "auto", "high", "medium", "minimal"])
async def test_every_level_ends_in_an_answer(
    http: httpx.AsyncClient, embedded: EmbeddedGateway, budget: str
) -> None:
    """Within the client's own cap, whatever the level allows beyond it."""
    reply = await ask(http, embedded, budget)
    assert reply["choices"][0]["message"]["content"].strip()
    assert reply["scaling"]["budget"]["used"] <= reply["scaling"]["budget"]["limit"] < 64


async def test_earlier_thinking_is_dropped(http: httpx.AsyncClient, embedded: EmbeddedGateway) -> None:
    """In tags or in a field, the next turn's prompt is as long as without it."""
    turns = [
        {"role": "assistant", "content": "19"},
        {"role": "assistant", "content": "<think>\n12 and 7 more</think>\n\n19"},
        {"role": "assistant", "content": "19", "reasoning_content": "12 and 7 more"},
        {"role": "assistant", "content": "19", "reasoning": "12 and 7 more"},
    ]
    prompts = set()
    for turn in turns:
        reply = await ask(http, embedded, 4, messages=[*QUESTION, turn, *QUESTION], max_tokens=8)
        prompts.add(reply["usage"]["prompt_tokens"])
    assert len(prompts) == 1


async def test_a_suffix_asks_for_level_and_samples(
    http: httpx.AsyncClient, embedded: EmbeddedGateway
) -> None:
    """By the model's name alone."""
    body = {"model": f"{embedded.model}:minimal@2", "messages": QUESTION, "max_tokens": 24}
    reply = (await http.post(PATH, json=body)).json()
    assert reply["model"] == embedded.model
    assert reply["scaling"]["budget"]["by"] == "model"
    assert reply["scaling"]["samples"]["asked"] == 2
