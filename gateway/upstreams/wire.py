"""An engine's bytes -> typed chunks or a JSON object, or one error."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import orjson

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.adapters import EngineAdapter
from gateway.upstreams.base import Chunk, ModelTraits

__all__ = ["EventParser", "chat_reply", "connection_error", "json_object", "read_chunks", "refusal"]


class EventParser:
    """Cuts a stream of server-sent events into the payloads of its `data:` fields (WHATWG HTML, section 9.2).

    Comments and all other fields are skipped.
    """

    __slots__ = ("_buffer", "_data")

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []

    def feed(self, block: bytes) -> list[bytes]:
        """Take the next bytes, cut anywhere; return the payloads that are complete."""
        if not self._buffer and not self._data and block.startswith(b"data: ") and block.endswith(b"\n\n"):
            payloads = block[6:-2].split(b"\n\ndata: ")  # the usual block: whole events of one line each
            if block.count(b"\n") == 2 * len(payloads) and b"\r" not in block:
                return payloads
        buffer = self._buffer + block if self._buffer else block
        *lines, self._buffer = buffer.split(b"\n")
        payloads = []
        for line in lines:
            field = line.removesuffix(b"\r")
            if field.startswith(b"data:"):
                self._data.append(field[6:] if field[5:6] == b" " else field[5:])
            elif not field and self._data:
                payloads.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data.clear()
        return payloads


async def read_chunks(
    opening: AbstractAsyncContextManager[aiohttp.ClientResponse],
    adapter: EngineAdapter,
    traits: ModelTraits,
    *,
    hide_ids: bool,
) -> AsyncGenerator[Chunk, None]:
    """Open a streamed reply and read its chunks; raise `UpstreamError` where it fails or breaks off.

    `hide_ids`: only the gateway asked for token ids, so they are removed from the events.
    """
    parser = EventParser()
    counts_in = adapter.counts_in
    try:
        async with opening as response:
            if response.status >= 400:
                raise refusal(response.status, await response.read())
            async for block in response.content.iter_any():
                for payload in parser.feed(block):
                    if payload == b"[DONE]":
                        return
                    event = _event(payload)
                    chunks = _chunks(event, counts_in)
                    if hide_ids:
                        _remove_ids(event)
                    for chunk in chunks:
                        if chunk.reasoning:
                            traits.splits_thinking = True
                        yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise connection_error(error) from error
    raise UpstreamUnreachable("The upstream ended its stream before it was complete.")


def _event(payload: bytes) -> dict[str, Any]:
    event = json_object(payload)
    error = event.get("error")
    if error is not None:  # engines report a failure in mid-stream as an event
        details = error if isinstance(error, dict) else {"message": str(error)}
        code = details.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
        raise UpstreamError(status, str(details.get("message", "The upstream failed.")), details)
    return event


def _chunks(event: Mapping[str, Any], counts_in: str | None) -> Sequence[Chunk]:
    """Return one chunk for each choice; an event without choices gives one chunk without an index."""
    usage = event.get("usage")
    tokens = None
    if counts_in == "usage":
        tokens = usage.get("completion_tokens") if usage else None
    elif counts_in == "timings" and (timings := event.get("timings")):
        tokens = timings.get("predicted_n")
        if not usage:  # where a reply is cut, nothing else tells the prompt's length
            prompt = timings.get("cache_n", 0) + timings.get("prompt_n", 0)
            usage = {"prompt_tokens": prompt, "completion_tokens": tokens}
    choices = event.get("choices")
    if not choices:
        return (Chunk(None, usage=usage, event=event),)
    if len(choices) == 1:
        return (_chunk(choices[0], event, tokens, usage),)
    return [_chunk(choice, event, tokens, usage) for choice in choices]


def _chunk(choice: Mapping[str, Any], event: Mapping[str, Any], tokens: int | None, usage: Any) -> Chunk:
    delta = choice.get("delta")
    if delta is None:  # /v1/completions
        delta = {"content": choice.get("text")}
        choice = _chat_choice(choice, "delta")
    return Chunk(
        choice.get("index", 0),
        delta.get("content") or "",
        delta.get("reasoning_content") or delta.get("reasoning") or "",
        choice.get("finish_reason"),
        tokens,
        usage,
        event,
        choice,
        choice.get("token_ids") or (),
    )


def _remove_ids(event: dict[str, Any]) -> None:
    for part in (event, *(event.get("choices") or ())):
        part.pop("token_ids", None)
        part.pop("prompt_token_ids", None)


def chat_reply(reply: dict[str, Any]) -> dict[str, Any]:
    """Return a `/v1/completions` reply in the shape of a chat reply."""
    choices = [
        {
            **_chat_choice(choice, "message"),
            "message": {"role": "assistant", "content": choice.get("text", "")},
        }
        for choice in reply.get("choices", ())
    ]
    return {**reply, "object": "chat.completion", "choices": choices}


def _chat_choice(choice: Mapping[str, Any], part: str) -> dict[str, Any]:
    chat_choice = {key: value for key, value in choice.items() if key != "text"}
    chat_choice[part] = {}
    if choice.get("logprobs"):
        chat_choice["logprobs"] = _chat_logprobs(choice["logprobs"])
    return chat_choice


def _chat_logprobs(legacy: Mapping[str, Any]) -> Mapping[str, Any]:
    """Turn `/v1/completions`' parallel lists of logprobs into chat's list of objects (OpenAI's API)."""
    if "tokens" not in legacy:
        return legacy
    tops = legacy.get("top_logprobs") or [None] * len(legacy["tokens"])
    content = [
        {
            "token": token,
            "logprob": logprob,
            "bytes": list(token.encode()),
            "top_logprobs": [
                {"token": other, "logprob": value, "bytes": list(other.encode())}
                for other, value in (top or {}).items()
            ],
        }
        for token, logprob, top in zip(legacy["tokens"], legacy["token_logprobs"], tops, strict=True)
    ]
    return {"content": content}


def json_object(payload: bytes) -> dict[str, Any]:
    """Return the JSON object that an engine answered with. Raises `UpstreamUnreachable`."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise UpstreamUnreachable("The upstream's reply is not JSON.") from error
    if not isinstance(value, dict):
        raise UpstreamUnreachable("The upstream's reply is not a JSON object.")
    return value


def refusal(status: int, payload: bytes) -> UpstreamError:
    """Return the engine's error; its body may have OpenAI's shape, FastAPI's `detail`, or be plain text."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        value = {"message": payload[:500].decode("utf-8", "replace")}
    error = value.get("error", value) if isinstance(value, dict) else {"message": str(value)}
    if not isinstance(error, dict):
        error = {"message": str(error)}
    message = error.get("message") or error.get("detail") or f"The upstream answered {status}."
    if status in {401, 403}:  # the engine refused the gateway's own key, not the client's
        return UpstreamError(502, f"The upstream refused the gateway's key ({status}).")
    details = {key: error[key] for key in ("type", "param", "code") if error.get(key) is not None}
    return UpstreamError(status, str(message), details)


def connection_error(error: Exception) -> UpstreamUnreachable:
    """Return what a failed connection means for the client."""
    if isinstance(error, TimeoutError):
        return UpstreamUnreachable("The upstream took too long to answer.", status=504)
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamUnreachable("The upstream can't be reached; is it running?")
    return UpstreamUnreachable(f"The connection to the upstream broke off ({type(error).__name__}).")
