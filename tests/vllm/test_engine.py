"""vLLM behaves on the wire as the gateway expects. A new version of vLLM must pass these tests first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.vllm.server import ROOMY, VllmServer

Json = dict[str, Any]

QUESTION = [{"role": "user", "content": "What is two plus five?"}]
CLOSING = "\nI have thought long enough.\n</think>\n\n"
ANSWER = "The answer is \\boxed{7}."
FOREVER = {"temperature": 0, "max_tokens": 4000}
"""The tiny model never closes its thinking at temperature 0."""


def ask(server: VllmServer, path: str = "chat/completions", /, **fields: Any) -> Json:
    """Return one unstreamed reply; chat gets the question unless `fields` has other messages."""
    body: Json = {"model": server.model, **fields}
    if path == "chat/completions":
        body.setdefault("messages", QUESTION)
    reply: Json = server.http.post(f"/v1/{path}", json=body).json()
    return reply


@contextmanager
def streaming(
    server: VllmServer, path: str = "chat/completions", /, **fields: Any
) -> Iterator[Iterator[Json]]:
    """Yield the chunks of one streamed reply; hang up at the end of the block."""
    body = {"model": server.model, "stream": True, **fields}
    if path == "chat/completions":
        body.setdefault("messages", QUESTION)
    with server.http.stream("POST", f"/v1/{path}", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream"), response.read()
        events = (line.removeprefix("data: ") for line in response.iter_lines() if line)
        yield (json.loads(event) for event in events if event != "[DONE]")


def token_ids(server: VllmServer, text: str) -> list[int]:
    """Return the tokens of a text, without those that a template would add."""
    body = {"model": server.model, "prompt": text, "add_special_tokens": False}
    ids: list[int] = server.http.post("/tokenize", json=body).json()["tokens"]
    return ids


def text_of(choice: Json) -> str:
    """Return the whole text of an unstreamed chat choice, from both fields."""
    return (choice["message"].get("reasoning") or "") + (choice["message"]["content"] or "")


def test_a_parser_splits_thinking_and_answer(reasoning_server: VllmServer) -> None:
    """The fields are `reasoning` and `content`; neither has the tag."""
    message = ask(reasoning_server, seed=2)["choices"][0]["message"]
    assert message["reasoning"].startswith(" first we add")
    assert message["content"].startswith("The answer is \\boxed{")
    assert "think>" not in message["reasoning"] + message["content"]


def test_thinking_stays_in_the_content_without_a_parser(plain_server: VllmServer) -> None:
    """The opening tag is in the prompt, so the reply has only the closing one."""
    message = ask(plain_server, seed=2)["choices"][0]["message"]
    assert message.get("reasoning") is None
    assert "<think>" not in message["content"]
    assert message["content"].count("</think>") == 1


def test_a_stream_accounts_for_every_token(vllm_server: VllmServer) -> None:
    """`return_token_ids` and continuous usage agree at every chunk, the tag's own chunk included."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    fields = {"seed": 2, "return_token_ids": True, "stream_options": options}
    seen = 0
    with streaming(vllm_server, **fields) as chunks:
        for chunk in chunks:
            for choice in chunk["choices"]:
                seen += len(choice.get("token_ids") or ())
            assert chunk["usage"]["completion_tokens"] == seen
    assert seen > 10


def test_vllm_does_not_count_the_thinking_behind_a_prefilled_tag(reasoning_server: VllmServer) -> None:
    """If the template writes `<think>`, vLLM reports 0 reasoning tokens, so the gateway counts itself."""
    usage = ask(reasoning_server, seed=2)["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 0}


@pytest.mark.parametrize("limit", [0, 1, 2, 8, 64])
def test_a_native_limit_is_never_exceeded(reasoning_server: VllmServer, limit: int) -> None:
    """The newline behind the template's `<think>` counts: limit - 1 tokens of thinking, then the tag."""
    reply = ask(reasoning_server, **FOREVER, thinking_token_budget=limit, return_token_ids=True)
    [close] = token_ids(reasoning_server, "</think>")
    ids = reply["choices"][0]["token_ids"]
    assert ids.index(close) == max(limit - 1, 0)
    assert reply["choices"][0]["message"]["content"] == ANSWER


def test_a_native_limit_leaves_an_answer_alone(reasoning_server: VllmServer) -> None:
    """vLLM does not close thinking again that ended by itself before its limit."""
    for seed in range(8):
        reply = ask(reasoning_server, seed=seed, thinking_token_budget=45)
        assert "think>" not in text_of(reply["choices"][0])


def test_a_native_limit_without_a_reasoning_config_is_refused(plain_server: VllmServer) -> None:
    """The error is a 400 that names the field only in its message."""
    error = ask(plain_server, thinking_token_budget=8)["error"]
    assert error["code"] == 400
    assert error["param"] is None
    assert "thinking_token_budget" in error["message"]


def test_unknown_fields_are_ignored(vllm_server: VllmServer) -> None:
    """A reply without an error therefore does not prove that vLLM understood a field."""
    assert ask(vllm_server, seed=2, no_such_field=1)["choices"]


def test_a_forced_close_continues_from_the_tokens_of_the_stream(vllm_server: VllmServer) -> None:
    """The new prompt is the first chunk's prompt ids + the generated ids + the ids of the closing."""
    prompt: list[int] = []
    with streaming(vllm_server, **FOREVER, return_token_ids=True) as chunks:
        for chunk in chunks:
            prompt += chunk.get("prompt_token_ids") or []
            prompt += chunk["choices"][0].get("token_ids") or []
            if len(prompt) > 40:
                break
    prompt += token_ids(vllm_server, CLOSING)
    reply = ask(vllm_server, "completions", prompt=prompt, temperature=0, max_tokens=100)
    assert reply["choices"][0]["text"] == ANSWER
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["prompt_tokens"] == len(prompt)


def test_tokenize_renders_the_chat_prompt(vllm_server: VllmServer) -> None:
    """The ids are those of a reply, so that a request without a stream can continue too."""
    body = {"model": vllm_server.model, "messages": QUESTION, "add_generation_prompt": True}
    rendered = vllm_server.http.post("/tokenize", json=body).json()["tokens"]
    reply = ask(vllm_server, max_tokens=1, return_token_ids=True)
    assert reply["prompt_token_ids"] == rendered


def test_a_chat_prefix_cannot_hold_closed_thinking(vllm_server: VllmServer) -> None:
    """The template drops it and vLLM refuses, so the gateway uses completions."""
    prefix = {"role": "assistant", "content": "<think>\n first we</think>\n\nThe"}
    error = ask(
        vllm_server,
        messages=[*QUESTION, prefix],
        add_generation_prompt=False,
        continue_final_message=True,
    )["error"]
    assert error["code"] == 400


def test_a_completion_of_closed_thinking_is_raw_text(vllm_server: VllmServer) -> None:
    """/v1/completions never splits, with or without a parser."""
    body = {"model": vllm_server.model, "messages": QUESTION}
    prompt = vllm_server.http.post("/tokenize", json=body).json()["tokens"]
    text = ask(vllm_server, "completions", prompt=prompt, seed=2, max_tokens=500)["choices"][0]["text"]
    assert text.count("</think>") == 1


def test_an_answer_after_closed_thinking_arrives_as_reasoning(reasoning_server: VllmServer) -> None:
    """Without a stream the parser ignores the prompt and so takes the rest of an answer for reasoning."""
    message = ask(
        reasoning_server,
        messages=[*QUESTION, {"role": "assistant", "content": "The"}],
        add_generation_prompt=False,
        continue_final_message=True,
        temperature=0,
    )["choices"][0]["message"]
    assert message["content"] is None
    assert message["reasoning"] == " answer is \\boxed{7}."


def test_the_choices_of_one_request_match_single_seeds(vllm_server: VllmServer) -> None:
    """Choice i of n uses seed + i."""
    together = ask(vllm_server, n=3, seed=5)["choices"]
    alone = [ask(vllm_server, seed=5 + i)["choices"][0] for i in range(3)]
    assert [text_of(choice) for choice in together] == [text_of(choice) for choice in alone]
    assert len({text_of(choice) for choice in together}) == 3


def test_streamed_choices_interleave_and_sum_up(vllm_server: VllmServer) -> None:
    """Each chunk has one choice with its own count; the last usage has all generated tokens."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts: dict[int, int] = {}
    order: list[int] = []
    with streaming(vllm_server, n=3, seed=5, stream_options=options) as chunks:
        for chunk in chunks:
            assert len(chunk["choices"]) <= 1
            for choice in chunk["choices"]:
                counts[choice["index"]] = chunk["usage"]["completion_tokens"]
                order.append(choice["index"])
            usage = chunk["usage"]
    assert usage["completion_tokens"] == sum(counts.values())
    assert order != sorted(order)


def test_greedy_choices_are_refused(vllm_server: VllmServer) -> None:
    """All of them would be the same."""
    assert ask(vllm_server, n=2, temperature=0)["error"]["code"] == 400


def test_logprobs_cover_every_token(vllm_server: VllmServer) -> None:
    """They cover thinking, tag, answer and the end token, with top_logprobs up to 20."""
    reply = ask(vllm_server, seed=2, logprobs=True, top_logprobs=20)
    entries = reply["choices"][0]["logprobs"]["content"]
    assert len(entries) == reply["usage"]["completion_tokens"]
    assert all(len(entry["top_logprobs"]) == 20 for entry in entries)
    assert "</think>" in [entry["token"] for entry in entries]


def test_a_schema_waits_for_the_end_of_thinking(reasoning_server: VllmServer) -> None:
    """With a parser the grammar applies only to the answer, even after a native limit."""
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": [7]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    reply = ask(
        reasoning_server,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        thinking_token_budget=8,
        temperature=0,
        max_tokens=200,
    )
    message = reply["choices"][0]["message"]
    assert message["reasoning"] == " first we add two to five then"
    assert json.loads(message["content"]) == {"answer": 7}


@pytest.mark.parametrize("count", [1, 4])
def test_hanging_up_aborts_every_choice(vllm_server: VllmServer, count: int) -> None:
    """All choices have started, none of them ends by itself, and none remains."""
    completed = vllm_server.completed()
    fields = {"n": count, "max_tokens": ROOMY - 1000, "seed": 1}
    no_closing_tag = {str(token_ids(vllm_server, "</think>")[0]): -100}
    with streaming(vllm_server, **fields, logit_bias=no_closing_tag) as chunks:
        started: set[int] = set()
        while len(started) < count:
            started |= {
                choice["index"] for choice in next(chunks)["choices"] if choice["delta"].get("role") is None
            }
        assert vllm_server.running() == count
    vllm_server.wait_until_idle()
    assert vllm_server.completed() == completed
