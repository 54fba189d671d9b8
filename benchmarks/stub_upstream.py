"""An engine without a model: canned OpenAI replies, as fast as one Python process can write them.

There are three models. PLAIN answers in about 1 KB. THINKING puts a `<think>` block of 48 tokens before
16 tokens of answer, and LONG one of 972 tokens before the same answer. Streams are written as vLLM's server
writes them: every token is its own SSE event, its own HTTP chunk and its own write. Between two events of one
stream all other streams get their turn, as in an engine's steps. There is no pause between the steps, so a
reader that falls behind finds several events in one read.

By default it is an unknown engine: everything except `/v1/models` and `/v1/chat/completions` is a 404.
With `vllm` it behaves like a vLLM with `--reasoning-config` and without a reasoning parser. It then ends the
thinking after `thinking_token_budget` tokens, reports usage with every event, and returns token ids on
request.

    python -m benchmarks.stub_upstream PORT [vllm]
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, cast, get_args

import orjson
import uvloop

__all__ = ["ANSWER", "LONG", "PLAIN", "THINKING", "THOUGHT", "Connection", "events", "pieces", "serve"]

PLAIN = "Qwen/Qwen2.5-7B-Instruct"
THINKING = "Qwen/Qwen3-8B"
LONG = "Qwen/Qwen3-32B"
MODELS = (PLAIN, THINKING, LONG)

THOUGHT = (
    "Okay, the user asks for the sum of the first ten odd numbers. Those are one, three, five, and so on, "
    "up to nineteen. The sum of the first n odd numbers is n squared, so for ten of them it is one hundred."
)
ANSWER = "The sum of the first ten odd numbers is ten squared, which is 100."
PARAGRAPH = (
    "A gateway stands between clients and engines. It sees each request before any compute is spent on it, "
    "so it is the natural place to decide how much compute that request deserves. "
)
CREATED = 1_750_000_000
TAGS = {"<think>": 151667, "</think>": 151668}  # Qwen3's ids
Counts = Literal["none", "last", "each"]
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def tokens_of(text: str, count: int) -> list[str]:
    """Split a text into exactly `count` pieces of nearly equal length, as a tokenizer might."""
    edges = [round(i * len(text) / count) for i in range(count + 1)]
    return [text[a:b] for a, b in pairwise(edges)]


def pieces(model: str, limit: int | None = None) -> list[str]:
    """Return the tokens of a model's only reply; `limit` cuts the thinking, its tags not counted."""
    if model != PLAIN:
        rounds = 1 if model == THINKING else 22
        thought = ["\n", *tokens_of(" ".join([THOUGHT] * rounds), 44 * rounds), "\n"][:limit]
        return ["<think>", *thought, "</think>", "\n\n", *tokens_of(ANSWER, 15)]
    return tokens_of(PARAGRAPH * 4, 150)


def usage(tokens: int) -> dict[str, Any]:
    return {"prompt_tokens": 64, "total_tokens": 64 + tokens, "completion_tokens": tokens}


def response(status: str, body: Any) -> bytes:
    """Return a complete HTTP response with a JSON body."""
    payload = orjson.dumps(body)
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def completion(model: str, tokens: list[str], *, ids: bool = False) -> bytes:
    """Return an unstreamed reply; `ids` adds token ids, as vLLM's `return_token_ids` does."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(tokens),
        "refusal": None,
        "annotations": None,
        "tool_calls": [],
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    if ids:
        choice["token_ids"] = [TAGS.get(token, 1000 + index) for index, token in enumerate(tokens)]
    body = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [choice],
        "usage": usage(len(tokens)),
        "system_fingerprint": None,
    }
    return response("200 OK", body)


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(model: str, choices: list[dict[str, Any]], **rest: Any) -> bytes:
    body = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "choices": choices,
        **rest,
    }
    return b"data: " + orjson.dumps(body) + b"\n\n"


def choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def events(model: str, tokens: list[str], counts: Counts) -> list[bytes]:
    """Return every event of a streamed reply; `counts` selects the events that report usage."""
    deltas = [{"role": "assistant", "content": ""}, *({"content": token} for token in tokens)]
    stream = []
    for index, delta in enumerate(deltas):
        extra = {"usage": usage(index)} if counts == "each" else {}
        stream.append(event(model, [choice(delta)], **extra))
    stream.append(event(model, [choice({}, finish="stop")]))
    if counts != "none":
        stream.append(event(model, [], usage=usage(len(tokens))))
    return [*stream, b"data: [DONE]\n\n"]


def stream(model: str, tokens: list[str], counts: Counts) -> list[bytes]:
    """Return every write of a streamed reply, the head first."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    return [head, *map(http_chunk, events(model, tokens, counts)), http_chunk(b"")]


def listing(**more: Any) -> bytes:
    """Return the reply to `/v1/models`."""
    return response(
        "200 OK",
        {"object": "list", "data": [{"id": m, "object": "model", **more} for m in MODELS]},
    )


LISTED = {False: listing(), True: listing(owned_by="vllm", max_model_len=32768)}
MISSING = response("404 Not Found", {"detail": "Not Found"})
UNSTREAMED = {
    (model, ids): completion(model, pieces(model), ids=ids) for model in MODELS for ids in (False, True)
}
STREAMED = {
    (model, counts): stream(model, pieces(model), counts) for model in MODELS for counts in get_args(Counts)
}


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests are answered in order, one at a time."""

    def __init__(self, vllm: bool = False) -> None:
        self.vllm = vllm
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.writes: Iterator[bytes] = iter(())
        self.streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.answer_waiting()

    def answer_waiting(self) -> None:
        while not self.streaming:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            length = CONTENT_LENGTH.search(self.buffer, 0, end)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < total:
                return
            target = bytes(self.buffer[: self.buffer.find(b"\r\n")]).split(b" ")[1]
            body = bytes(self.buffer[end + 4 : total])
            del self.buffer[:total]
            self.answer(target, body)

    def answer(self, target: bytes, body: bytes) -> None:
        if target == b"/v1/models":
            self.transport.write(LISTED[self.vllm])
        elif target == b"/v1/chat/completions":
            self.complete(orjson.loads(body))
        elif target == b"/tokenize" and self.vllm:
            tag = TAGS.get(orjson.loads(body).get("prompt", ""), 1000)
            self.transport.write(response("200 OK", {"count": 1, "max_model_len": 32768, "tokens": [tag]}))
        else:
            self.transport.write(MISSING)

    def complete(self, request: dict[str, Any]) -> None:
        model = request["model"]
        limit = request.get("thinking_token_budget") if self.vllm else None
        tokens = None if limit is None or limit > len(pieces(model)) else pieces(model, limit)
        if request.get("stream"):
            options = request.get("stream_options") or {}
            counts: Counts = "last" if options.get("include_usage") else "none"
            if self.vllm and options.get("continuous_usage_stats"):
                counts = "each"
            self.writes = iter(stream(model, tokens, counts) if tokens else STREAMED[model, counts])
            self.streaming = True
            self.step()
        else:
            ids = self.vllm and bool(request.get("return_token_ids"))
            self.transport.write(completion(model, tokens, ids=ids) if tokens else UNSTREAMED[model, ids])

    def step(self) -> None:
        """Write the stream's next event, then let all other streams take their turn."""
        data = next(self.writes, None)
        if data is None or self.transport.is_closing():
            self.streaming = False
            self.answer_waiting()
            return
        self.transport.write(data)
        self.loop.call_soon(self.step)


async def serve(port: int, vllm: bool = False) -> None:
    """Answer on the loopback interface until cancelled."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(vllm), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), vllm="vllm" in sys.argv[2:]))
