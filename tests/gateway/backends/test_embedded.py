"""The embedded engine as a backend: what it does otherwise than any other upstream."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.backends.base import Plan
from gateway.backends.embedded import EmbeddedBackend
from gateway.backends.local import EmbeddedEngine, EmbeddedOptions

pytestmark = pytest.mark.embedded

BODY = {"messages": [{"role": "user", "content": "Write a long story."}], "temperature": 1, "seed": 3}


@pytest.fixture
async def backend() -> AsyncIterator[EmbeddedBackend]:
    """A backend with an engine of its own, of two slots."""
    pytest.importorskip("xllamacpp")
    backend = EmbeddedBackend(EmbeddedEngine(EmbeddedOptions(slots=2, context=1024)))
    await backend.start()
    await backend.models()
    yield backend
    await backend.close()


async def running(backend: EmbeddedBackend) -> int:
    """How many generations run in the engine."""
    async with backend._open(f"{backend._root}/slots", None, method="GET") as response:
        return sum(slot["is_processing"] for slot in await response.json())


async def test_a_whole_reply_is_what_an_engine_would_have_sent(backend: EmbeddedBackend) -> None:
    """Choices, finish reasons, logprobs and usage come as in an unstreamed reply, all choices counted."""
    plan = Plan({**BODY, "n": 2, "max_tokens": 6, "ignore_eos": True, "logprobs": True, "top_logprobs": 1})
    body = (await backend.complete(plan)).body
    assert body["object"] == "chat.completion"
    assert body["model"] == "SmolLM2-135M-Instruct"
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    for choice in body["choices"]:
        assert choice["finish_reason"] == "length"
        assert choice["message"]["role"] == "assistant"
        tokens = [entry["token"] for entry in choice["logprobs"]["content"]]
        assert "".join(tokens) == choice["message"]["content"]
    assert body["usage"]["completion_tokens"] == 12
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 12


async def test_giving_up_a_whole_reply_ends_its_generation(backend: EmbeddedBackend) -> None:
    """Cancelling frees the slot, though llama.cpp itself goes on for an unstreamed client that is gone."""
    plan = Plan({**BODY, "max_tokens": 900, "ignore_eos": True})
    task = asyncio.create_task(backend.complete(plan))
    async with asyncio.timeout(30):
        while not await running(backend):
            assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        while await running(backend):
            pass


async def test_many_streams_in_a_row_never_break_off(backend: EmbeddedBackend) -> None:
    """Each request gets through, also right behind a streamed one on the same client."""
    for _ in range(40):
        chunks = [chunk async for chunk in backend.stream(Plan({**BODY, "max_tokens": 2}))]
        assert chunks[-1].usage is not None
