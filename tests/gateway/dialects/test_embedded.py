"""The official clients in front of the real embedded engine, from the request to its end."""

from collections.abc import AsyncIterator

import anthropic
import httpx
import openai
import pytest

from gateway.app import create_app
from gateway.config import Settings
from gateway.upstreams.client import HTTPUpstream
from gateway.upstreams.embedded.engine import EmbeddedEngine
from tests.serving import serving

pytestmark = pytest.mark.embedded

MODEL = "SmolLM2-135M-Instruct"
QUESTION = "What is 2 + 3? Answer with a number."
MESSAGES = [{"role": "user", "content": QUESTION}]
BUDGET = {"X-Reasoning-Budget": "24"}


@pytest.fixture
async def address(engine: EmbeddedEngine) -> AsyncIterator[str]:
    """A gateway in front of the embedded engine."""
    async with serving(create_app(Settings(), HTTPUpstream(engine.base_url, engine.api_key))) as address:
        yield address


async def test_responses_stream_and_whole(address: str) -> None:
    """A thinking budget holds with and without stream, and each reply ends with text and usage."""
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        whole = await client.responses.create(
            model=MODEL, input=QUESTION, max_output_tokens=96, extra_headers=BUDGET
        )
        stream = await client.responses.create(
            model=MODEL, input=QUESTION, max_output_tokens=96, extra_headers=BUDGET, stream=True
        )
        events = [event async for event in stream]
    for response in (whole, events[-1].response):
        assert response.output_text
        assert response.scaling["budget"]["limit"] == 24
        assert response.usage.output_tokens_details.reasoning_tokens <= 24
        assert response.usage.input_tokens > 0
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text


async def test_messages_stream_and_whole(address: str) -> None:
    """Anthropic's client gets the same with Anthropic's own field for the budget."""
    thinking = {"type": "enabled", "budget_tokens": 24}
    async with anthropic.AsyncAnthropic(base_url=address, api_key="none", max_retries=0) as client:
        whole = await client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=96, thinking=thinking)
        async with client.messages.stream(
            model=MODEL, messages=MESSAGES, max_tokens=96, thinking=thinking
        ) as stream:
            streamed = await stream.get_final_message()
    for message in (whole, streamed):
        assert message.content[-1].type == "text"
        assert message.usage.output_tokens_details.thinking_tokens <= 24
        assert message.usage.input_tokens > 0


async def test_counted_tokens_are_those_of_the_prompt(address: str) -> None:
    """`count_tokens` returns the number of prompt tokens that the engine then reports."""
    async with anthropic.AsyncAnthropic(base_url=address, api_key="none", max_retries=0) as client:
        counted = await client.messages.count_tokens(model=MODEL, messages=MESSAGES, system="Be brief.")
        message = await client.messages.create(
            model=MODEL, messages=MESSAGES, system="Be brief.", max_tokens=4
        )
    assert counted.input_tokens == message.usage.input_tokens


async def test_completions_pass_through(address: str) -> None:
    """A text completion is the engine's own, whole and streamed."""
    body = {"model": MODEL, "prompt": "One, two, three,", "max_tokens": 4, "temperature": 0}
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        whole = await client.completions.create(**body)
        chunks = [chunk async for chunk in await client.completions.create(**body, stream=True)]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    async with httpx.AsyncClient(base_url=address) as client:
        refusal = await client.post("/v1/completions", json=body, headers=BUDGET)
    assert refusal.status_code == 400
