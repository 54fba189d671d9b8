"""Limits on an engine like vLLM, scripted on the wire: many tokens at once, split thinking, schemas."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.config import Settings
from gateway.upstreams.adapters import EngineAdapter, LlamaCppAdapter, VLLMAdapter
from gateway.upstreams.client import HTTPUpstream
from tests.stub_engine import Events, Json, StubEngine, chunk, stub_engine

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CLOSE = 9
"""The end tag's token id; `/tokenize` answers everything with it."""
END = chunk(finish="stop")
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


@asynccontextmanager
async def asking(family: str = "deepseek-r1") -> AsyncIterator[tuple[StubEngine, Any]]:
    """A scripted vLLM, and a function that asks a gateway in front of it; gives the reply's JSON."""
    async with stub_engine(owned_by="vllm") as server:
        served = {"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}
        server.answers("/v1/models", Json({"data": [served]}))
        server.answers("/tokenize", Json({"tokens": [CLOSE]}))
        server.answers(COMPLETIONS, Events([completion("Seven."), completion("", "stop")]))
        upstream = HTTPUpstream(server.base_url)
        await upstream.start()
        transport = httpx.ASGITransport(create_app(Settings(family=family), upstream))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:

            async def ask(budget: object, **fields: Any) -> Any:
                body = {"model": "tiny", "messages": [{"role": "user", "content": "q"}], **fields}
                response = await client.post(CHAT, json=body, headers={"X-Reasoning-Budget": str(budget)})
                assert response.status_code == 200, response.text
                return response.json()

            yield server, ask
        await upstream.close()


def completion(text: str, finish: str | None = None) -> dict[str, Any]:
    """One event of a streamed text completion."""
    return {"id": "up-2", "choices": [{"index": 0, "text": text, "finish_reason": finish}]}


def says(text: str, ids: list[int], so_far: int, **event: Any) -> dict[str, Any]:
    """One event of a streamed chat reply with its token ids and vLLM's running count."""
    told = chunk(text, usage={"prompt_tokens": 5, "completion_tokens": so_far}, **event)
    told["choices"][0]["token_ids"] = ids
    return told


async def test_tokens_beyond_the_limit_are_cut_off() -> None:
    """Five tokens at once where two fit: the engine's own tokenizer says what their text is."""
    async with asking() as (server, ask):
        server.answers("/detokenize", Json({"prompt": " two three"}))
        server.answers(
            CHAT, Events([says("one", [1], 1), says(" two three four five six", [2, 3, 4, 5, 6], 6), END])
        )
        reply = await ask(3)
        assert server.bodies("/detokenize") == [{"model": "tiny", "tokens": [2, 3]}]
        assert server.bodies(CHAT)[-1]["return_token_ids"] is True
    message = reply["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("one two three", "Seven.")
    assert reply["scaling"]["budget"]["used"] == 3
    assert reply["usage"]["completion_tokens"] >= 6  # what was cut off was generated all the same


async def test_the_end_tag_is_found_among_many_tokens() -> None:
    """A chunk that holds the end of the thinking and half of the answer counts up to the tag."""
    async with asking() as (server, ask):
        whole = says(" two</think>The answer is 7.", [2, CLOSE, 3, 4, 5, 6, 7], 8)
        server.answers(CHAT, Events([says("one", [1], 1), whole, chunk(finish="stop")]))
        reply = await ask(3)
        assert not server.bodies(COMPLETIONS)
    assert reply["choices"][0]["message"]["content"] == "The answer is 7."
    assert reply["scaling"]["budget"]["used"] == 2
    assert "token_ids" not in str(reply)


async def test_without_ids_the_length_of_the_text_decides() -> None:
    """Half of a chunk's tokens fit, so half of its text is kept."""
    async with asking() as (server, ask):
        event = chunk("abcdefgh", usage={"prompt_tokens": 5, "completion_tokens": 4})
        server.answers(CHAT, Events([event, END]))
        reply = await ask(2)
    assert reply["choices"][0]["message"]["reasoning"] == "abcd"
    assert reply["scaling"]["budget"]["used"] == 2


async def test_off_is_no_token_of_thinking_where_nothing_switches_it_off() -> None:
    """A model that is only asked not to think has its block closed before its first token."""
    async with asking("generic") as (server, ask):
        split = chunk(usage={"prompt_tokens": 5, "completion_tokens": 1})
        split["choices"][0]["delta"] = {"reasoning": "one"}
        for begins in (split, says("<think>\none two", [1, 2, 3], 3), says("<think>", [1], 1)):
            server.answers(CHAT, Events([begins, says(" three", [4], 4)]))
            reply = await ask("off")
            prompt = server.bodies("/tokenize")[-1]["prompt"]
            assert reply["choices"][0]["message"]["content"] == "Seven."
            assert "reasoning" not in reply["choices"][0]["message"]
            assert reply["scaling"]["budget"]["used"] == 0
            assert prompt.startswith("<think>\n")
            assert prompt.endswith("\n</think>\n\n")
            assert "one" not in prompt


async def test_an_engine_that_splits_is_known_from_then_on() -> None:
    """Thinking that ends before its first token leaves no trace in a stream but the answer."""
    async with asking() as (server, ask):
        thinking = chunk(usage={"prompt_tokens": 5, "completion_tokens": 1})
        thinking["choices"][0]["delta"] = {"reasoning": "one"}
        server.answers(
            CHAT,
            Events([thinking, says("Seven.", [3], 3), chunk(finish="stop")]),
            Events([says("Eight.", [3], 2), chunk(finish="stop")]),
        )
        first, second = await ask(50), await ask(50)
    assert first["choices"][0]["message"]["content"] == "Seven."
    message = second["choices"][0]["message"]
    assert (message["content"], message.get("reasoning")) == ("Eight.", None)


async def test_a_proven_engine_that_falls_silent_is_led_to_an_answer() -> None:
    """Its one plain reply has no answer, so the request goes out again, watched; all tokens are counted."""
    async with asking() as (server, ask):
        thinking = chunk(usage={"prompt_tokens": 5, "completion_tokens": 2})
        thinking["choices"][0]["delta"] = {"reasoning": "one two"}
        ends = Events([thinking, says("Yes.", [3], 4), chunk(finish="stop")])
        silent = {"role": "assistant", "content": None, "reasoning": "hm"}
        usage = {"prompt_tokens": 5, "completion_tokens": 3}
        choices = [{"index": 0, "message": silent, "finish_reason": "stop", "token_ids": [1, CLOSE, 2]}]
        server.answers(CHAT, ends, Json({"choices": choices, "usage": usage, "prompt_token_ids": [1]}), ends)
        await ask(2)
        reply = await ask(2)
    assert reply["choices"][0]["message"]["content"] == "Yes."
    assert reply["usage"]["completion_tokens"] == 3 + 4
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == 1 + 2


async def test_a_proven_engines_plain_reply_shows_no_ids() -> None:
    """What the gateway had asked for itself is taken out again; thinking that is "" is no thinking."""
    async with asking() as (server, ask):
        ends = Events([says("one two", [1, 2], 2), says("</think>Yes.", [CLOSE, 3], 4), chunk(finish="stop")])
        message = {"role": "assistant", "content": "No.", "reasoning": ""}
        choices = [{"index": 0, "message": message, "finish_reason": "stop", "token_ids": [CLOSE, 2]}]
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        plain = Json({"choices": choices, "usage": usage, "prompt_token_ids": [1]})
        server.answers(CHAT, ends, plain, ends)
        await ask(2)
        reply = await ask(2)
        assert "stream" not in server.bodies(CHAT)[-1]
        waiting = await ask("max", stream=False)
        assert server.bodies(CHAT)[-1]["stream"] is True  # an early end can only be put off in a stream
    assert reply["choices"][0]["message"]["content"] == "No."
    assert reply["scaling"]["budget"]["used"] == 0
    assert "token_ids" not in str(reply)
    assert waiting["choices"]


def test_a_schema_goes_along_in_each_engines_words() -> None:
    """vLLM's completions read `response_format`, llama.cpp's only `json_schema`."""
    body = {"model": "m", "messages": [], "response_format": SCHEMA}
    assert VLLMAdapter().completion(body, "p", None)["response_format"] == SCHEMA
    asked = LlamaCppAdapter().completion(body, "p", None)
    assert asked["json_schema"] == {"type": "object"}
    assert "response_format" not in asked
    anything = LlamaCppAdapter().completion({**body, "response_format": {"type": "json_object"}}, "p", None)
    assert anything["json_schema"] == {"type": "object"}
    plain = LlamaCppAdapter().completion({**body, "response_format": {"type": "text"}}, "p", None)
    assert "json_schema" not in plain


@pytest.mark.parametrize("adapter", [EngineAdapter(), VLLMAdapter(), LlamaCppAdapter()])
def test_a_resumed_request_without_a_cap_has_none(adapter: EngineAdapter) -> None:
    """Completions need an explicit null, because without the field engines stop at 16 tokens."""
    body = {"model": "m", "messages": []}
    assert adapter.completion(body, "p", None)["max_tokens"] is None
    assert not {"max_tokens", "max_completion_tokens"} & adapter.chat_prefix(body, "so far", None).keys()
    assert adapter.chat_prefix(body, "so far", 5)["max_tokens"] == 5


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_resumed_chat_keeps_the_clients_field_for_its_cap(field: str) -> None:
    """What is left of the cap goes into the field that the client chose, and into no other."""
    body = {"model": "m", "messages": [], field: 300}
    resumed = EngineAdapter().chat_prefix(body, "so far", 120)
    caps = {name: resumed[name] for name in resumed if name.startswith("max_")}
    assert caps == {field: 120}
    assert EngineAdapter().completion(body, "p", 120)["max_tokens"] == 120
    assert "max_completion_tokens" not in EngineAdapter().completion(body, "p", 120)


async def test_an_answer_is_as_long_as_the_model_makes_it() -> None:
    """Neither the request nor the one that resumes it has a cap of the gateway's."""
    async with asking() as (server, ask):
        server.answers(CHAT, Events([says("one two three", [1, 2, 3], 3), END]))
        await ask(2)
        assert "max_tokens" not in server.bodies(CHAT)[-1]
        assert server.bodies(COMPLETIONS)[-1]["max_tokens"] is None
