"""A model server without a model: canned OpenAI replies as fast as one Python process can write them.

Two models: PLAIN answers in about 1 KB, THINKING puts a `<think>` block of 48 tokens before
16 tokens of answer. A streamed reply is written the way vLLM's server writes one: every
token is its own SSE event, its own HTTP chunk and its own write, and between two events of
one stream all other streams get their turn, as in an engine's steps. There is no pause
between the steps, so a reader that falls behind finds several events in one read.

Anything but `/v1/models` and `/v1/chat/completions` is a 404, as on an engine without vLLM's
extra routes.

    python -m benchmarks.stub_upstream PORT
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

import orjson
import uvloop

__all__ = ["PLAIN", "THINKING", "serve"]

PLAIN = "Qwen/Qwen2.5-7B-Instruct"
THINKING = "Qwen/Qwen3-8B"

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
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def tokens_of(text: str, count: int) -> list[str]:
    """Cut a text into exactly `count` pieces of nearly equal length, as a tokenizer might."""
    edges = [round(i * len(text) / count) for i in range(count + 1)]
    return [text[a:b] for a, b in pairwise(edges)]


def pieces(model: str) -> list[str]:
    """The tokens of a model's one reply, in order."""
    if model == THINKING:
        thinking = ["<think>", "\n", *tokens_of(THOUGHT, 44), "\n", "</think>"]
        return [*thinking, "\n\n", *tokens_of(ANSWER, 15)]
    return tokens_of(PARAGRAPH * 4, 150)


def usage(model: str) -> dict[str, Any]:
    completion = len(pieces(model))
    return {"prompt_tokens": 64, "total_tokens": 64 + completion, "completion_tokens": completion}


def response(status: str, body: Any) -> bytes:
    """One whole HTTP response with a JSON body."""
    payload = orjson.dumps(body)
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


def completion(model: str) -> bytes:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(pieces(model)),
        "refusal": None,
        "annotations": None,
        "tool_calls": [],
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    body = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [choice],
        "usage": usage(model),
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
    return http_chunk(b"data: " + orjson.dumps(body) + b"\n\n")


def choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def stream(model: str, with_usage: bool) -> list[bytes]:
    """Every write of a streamed reply, the head first."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    opening = event(model, [choice({"role": "assistant", "content": ""})])
    tokens = [event(model, [choice({"content": piece})]) for piece in pieces(model)]
    closing = [event(model, [choice({}, finish="stop")])]
    if with_usage:
        closing.append(event(model, [], usage=usage(model)))
    return [head, opening, *tokens, *closing, http_chunk(b"data: [DONE]\n\n"), http_chunk(b"")]


MODELS = response(
    "200 OK", {"object": "list", "data": [{"id": m, "object": "model"} for m in (PLAIN, THINKING)]}
)
MISSING = response("404 Not Found", {"detail": "Not Found"})
WHOLE = {model: completion(model) for model in (PLAIN, THINKING)}
STREAMED = {(model, full): stream(model, full) for model in (PLAIN, THINKING) for full in (False, True)}


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests are answered in order, one at a time."""

    def __init__(self) -> None:
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
            self.transport.write(MODELS)
        elif target != b"/v1/chat/completions":
            self.transport.write(MISSING)
        else:
            asked = orjson.loads(body)
            model = asked["model"]
            if asked.get("stream"):
                with_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
                self.writes = iter(STREAMED[model, with_usage])
                self.streaming = True
                self.step()
            else:
                self.transport.write(WHOLE[model])

    def step(self) -> None:
        """Write the stream's next event and come back after everybody else's turn."""
        data = next(self.writes, None)
        if data is None or self.transport.is_closing():
            self.streaming = False
            self.answer_waiting()
            return
        self.transport.write(data)
        self.loop.call_soon(self.step)


async def serve(port: int) -> None:
    """Answer on the loopback interface until cancelled."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
