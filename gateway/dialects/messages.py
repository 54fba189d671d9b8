"""Anthropic's Messages API: write a reply, or a stream of events, as content blocks.

Events and their order follow the API reference, "Streaming messages". `ping` events, which
clients skip, carry the progress of a vote.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.base import json_object
from gateway.dialects.blocks import Block, BlockStream, blocks_of, refusal_of
from gateway.dialects.messages_input import chat_request
from gateway.dialects.scaling import reported
from gateway.dialects.sse import named_event
from gateway.errors import GatewayError
from gateway.runs.events import RunResult
from gateway.runs.request import RunRequest
from scorers.types import Sample

__all__ = ["MessagesExchange", "error_body"]

_SIGNATURE = "unsigned"
"""A placeholder for the signature that the format demands of thinking; the gateway signs nothing."""
_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
Json = dict[str, Any]


class MessagesExchange:
    """One request to `/v1/messages` (a `gateway.dialects.base.Exchange`)."""

    translated = True

    def __init__(self, payload: bytes) -> None:
        self.chat = chat_request(json_object(payload))

    def reply(self, request: RunRequest, result: RunResult, model: str) -> Json:
        """Return the unstreamed message."""
        sample = result.chosen[0]
        return {
            **_message(str(result.envelope.get("model", model)), _new_id()),
            "content": [_block(block) for block in blocks_of(request, sample)],
            **_stop(sample),
            "usage": _usage(result),
            **reported(request, result),
        }

    def writer(self, request: RunRequest, model: str) -> BlockStream:
        """Return a writer of the message as a stream of events."""
        return BlockStream(request, _MessageFormat(model))


def error_body(status: int, openai_error: Mapping[str, Any]) -> Json:
    """Return OpenAI's `error` object in Anthropic's shape."""
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    error = {"type": kind, "message": openai_error.get("message")}
    error |= {key: openai_error[key] for key in ("param", "code") if openai_error.get(key) is not None}
    return {"type": "error", "error": error}


class _MessageFormat:
    """Events of the Messages API (a `gateway.dialects.blocks.BlockFormat`)."""

    def __init__(self, model: str) -> None:
        self._model = model
        self.id = _new_id()

    def begin(self, raw: Mapping[str, Any]) -> bytes:
        prompt = (raw.get("usage") or {}).get("prompt_tokens") or 0  # most engines report it only later
        message = {
            **_message(str(raw.get("model", self._model)), self.id),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": prompt, "output_tokens": 0},
        }
        return _event("message_start", message=message)

    def open(self, block: Block) -> bytes:
        if block.kind == "thinking":
            empty: Json = {"type": "thinking", "thinking": "", "signature": ""}
        elif block.kind == "text":
            empty = {"type": "text", "text": ""}
        else:
            empty = {"type": "tool_use", "id": block.call_id, "name": block.name, "input": {}}
        return _event("content_block_start", index=block.index, content_block=empty)

    def extend(self, block: Block, text: str) -> bytes:
        kind, key = {
            "thinking": ("thinking_delta", "thinking"),
            "text": ("text_delta", "text"),
            "call": ("input_json_delta", "partial_json"),
        }[block.kind]
        return _event("content_block_delta", index=block.index, delta={"type": kind, key: text})

    def close(self, block: Block) -> bytes:
        signature = b""
        if block.kind == "thinking":
            delta = {"type": "signature_delta", "signature": _SIGNATURE}
            signature = _event("content_block_delta", index=block.index, delta=delta)
        return signature + _event("content_block_stop", index=block.index)

    def progress(self, scaling: Mapping[str, Any]) -> bytes:
        return _event("ping", scaling=scaling)

    def heartbeat(self) -> bytes:
        return _event("ping")

    def end(self, result: RunResult, scaling: Mapping[str, Any]) -> bytes:
        delta = _stop(result.chosen[0])
        last = _event("message_delta", delta=delta, usage=_usage(result), **scaling)
        return last + _event("message_stop")

    def fail(self, error: GatewayError) -> bytes:
        body = error_body(error.status, error.body()["error"])
        return _event("error", error=body["error"])


def _message(model: str, message_id: str) -> Json:
    return {"id": message_id, "type": "message", "role": "assistant", "model": model}


def _new_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


def _block(block: Block) -> Json:
    if block.kind == "thinking":
        return {"type": "thinking", "thinking": block.text, "signature": _SIGNATURE}
    if block.kind == "text":
        return {"type": "text", "text": block.text}
    return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": _arguments(block.text)}


def _arguments(text: str) -> Json:
    """Return a call's arguments as the object that the format demands, whatever a small model wrote."""
    try:
        value = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {"invalid_json": text}
    return value if isinstance(value, dict) else {"value": value}


def _stop(sample: Sample) -> Json:
    """Return `stop_reason` and `stop_sequence`; only some engines name the sequence, as vLLM does."""
    sequence = sample.extra.get("choice", {}).get("stop_reason")
    reason = _STOP_REASONS.get(sample.finish_reason, "end_turn")
    if refusal_of(sample):
        return {"stop_reason": "refusal", "stop_sequence": None}
    if reason == "tool_use" and not sample.tool_calls:  # clients would wait for a call
        reason = "end_turn"
    if reason == "end_turn" and sample.tool_calls:
        reason = "tool_use"
    elif reason == "end_turn" and isinstance(sequence, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": sequence}
    return {"stop_reason": reason, "stop_sequence": None}


def _usage(result: RunResult) -> Json:
    """Return the usage. The whole prompt counts as input, because cached tokens are not told apart."""
    return {
        "input_tokens": result.prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": result.generated,
        "output_tokens_details": {"thinking_tokens": result.reasoning},
    }


def _event(kind: str, **fields: Any) -> bytes:
    return named_event(kind, orjson.dumps({"type": kind, **fields}))
