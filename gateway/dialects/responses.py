"""OpenAI's Responses API: write a reply, or a stream of events, as items of output.

Events and their order follow the API reference, "Streaming events". Thinking is `reasoning_text`;
if the client wants a summary, the whole thinking is its one `summary_text`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.base import json_object
from gateway.dialects.blocks import Block, BlockStream, blocks_of
from gateway.dialects.responses_input import chat_request
from gateway.dialects.scaling import reported, usage_of
from gateway.dialects.sse import COMMENT, named_event
from gateway.errors import GatewayError
from gateway.runs.events import RunResult
from gateway.runs.request import RunRequest

__all__ = ["ResponsesExchange"]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ECHOED = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "temperature",
    "top_p",
    "user",
)
Json = dict[str, Any]


class ResponsesExchange:
    """One request to `/v1/responses` (a `gateway.dialects.base.Exchange`)."""

    translated = True

    def __init__(self, payload: bytes) -> None:
        self._body = json_object(payload)
        self.chat = chat_request(self._body)

    def reply(self, request: RunRequest, result: RunResult, model: str) -> Json:
        """Return the unstreamed response."""
        block_format = _ResponseFormat(self._body, model)
        block_format.output = [block_format.item(block) for block in blocks_of(request, result.chosen[0])]
        return block_format.response(result, reported(request, result))

    def writer(self, request: RunRequest, model: str) -> BlockStream:
        """Return a writer of the response as a stream of events."""
        return BlockStream(request, _ResponseFormat(self._body, model))


class _ResponseFormat:
    """Events of the Responses API (a `gateway.dialects.blocks.BlockFormat`)."""

    def __init__(self, body: Mapping[str, Any], model: str) -> None:
        reasoning = body.get("reasoning") or {}
        summary = reasoning.get("summary") or reasoning.get("generate_summary")
        self._summarized = summary is not None
        self._ids: dict[int, str] = {}
        self._events = 0
        self.output: list[Json] = []
        self.id = f"resp_{uuid.uuid4().hex}"
        self._response: Json = {
            "id": self.id,
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": model,
            "previous_response_id": None,
            **{field: body.get(field) for field in _ECHOED},
            "metadata": body.get("metadata") or {},
            "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
            "reasoning": {"effort": reasoning.get("effort"), "summary": summary},
            "service_tier": "default",
            "store": False,
            "text": {"format": {"type": "text"}, **(body.get("text") or {})},
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "truncation": "disabled",
            "usage": None,
        }

    def begin(self, raw: Mapping[str, Any]) -> bytes:
        response = {**self._response, "output": []}
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def open(self, block: Block) -> bytes:
        item = {**self.item(block), "status": "in_progress"}
        if block.kind == "text" or (block.kind == "thinking" and not self._summarized):
            item["content"] = []
        item |= {"summary": []} if block.kind == "thinking" else {}
        added = self._event("response.output_item.added", output_index=block.index, item=item)
        if block.kind == "call":
            return added
        return added + self._item_event(block, self._part_event(block, "added"), part=self._part(block, ""))

    def extend(self, block: Block, text: str) -> bytes:
        more: Json = {"logprobs": []} if block.kind == "text" else {}
        return self._item_event(block, f"{self._text_event(block)}.delta", delta=text, **more)

    def close(self, block: Block) -> bytes:
        item = self.item(block)
        self.output.append(item)
        name = f"{self._text_event(block)}.done"
        if block.kind == "call":
            done = self._item_event(block, name, name=block.name, arguments=block.text)
        else:
            more: Json = {"logprobs": []} if block.kind == "text" else {}
            done = self._item_event(block, name, text=block.text, **more)
            done += self._item_event(block, self._part_event(block, "done"), part=self._part(block))
        return done + self._event("response.output_item.done", output_index=block.index, item=item)

    def progress(self, scaling: Mapping[str, Any]) -> bytes:
        """Repeat `response.in_progress`, an event that every client knows, with the vote in `scaling`."""
        return self._event("response.in_progress", response={**self._response, "output": []}, scaling=scaling)

    def heartbeat(self) -> bytes:
        return COMMENT

    def end(self, result: RunResult, scaling: Mapping[str, Any]) -> bytes:
        response = self.response(result, scaling)
        return self._event(f"response.{response['status']}", response=response)

    def fail(self, error: GatewayError) -> bytes:
        """Write `response.failed`, then `error`: flat as in the reference, and nested as clients read it.

        Clients expect `response.created` first, also where only signs of life went out until then.
        """
        created = b"" if self._events else self.begin({})
        error_fields = error.body()["error"]
        reason = {"code": "server_error", "message": error.message}
        response = {**self._response, "status": "failed", "error": reason, "output": self.output}
        failure = self._event("response.failed", response=response)
        flat = {key: error_fields.get(key) for key in ("code", "message", "param")}
        return created + failure + self._event("error", **flat, error=error_fields)

    def response(self, result: RunResult, scaling: Mapping[str, Any]) -> Json:
        """Return the whole response; `scaling` is the report as a field, or empty."""
        usage = usage_of(result)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        reason = _INCOMPLETE.get(result.chosen[0].finish_reason)
        return {
            **self._response,
            "model": result.envelope.get("model", self._response["model"]),
            "status": "completed" if reason is None else "incomplete",
            "completed_at": int(time.time()) if reason is None else None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": self.output,
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": result.reasoning},
                "total_tokens": usage["total_tokens"],
            },
            **scaling,
        }

    def item(self, block: Block) -> Json:
        """Return a block as an item of output, with its text so far."""
        status = "completed" if block.complete else "incomplete"
        item = {"id": self._id(block), "status": status}
        if block.kind == "call":
            call = {"call_id": block.call_id, "name": block.name, "arguments": block.text}
            return {**item, "type": "function_call", **call}
        part = self._part(block)
        if block.kind == "text":
            return {**item, "type": "message", "role": "assistant", "content": [part]}
        if self._summarized:
            return {**item, "type": "reasoning", "summary": [part]}
        return {**item, "type": "reasoning", "summary": [], "content": [part]}

    def _part(self, block: Block, text: str | None = None) -> Json:
        text = block.text if text is None else text
        if block.kind == "text":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"type": "summary_text" if self._summarized else "reasoning_text", "text": text}

    def _part_event(self, block: Block, change: str) -> str:
        if block.kind == "thinking" and self._summarized:
            return f"response.reasoning_summary_part.{change}"
        return f"response.content_part.{change}"

    def _text_event(self, block: Block) -> str:
        if block.kind == "call":
            return "response.function_call_arguments"
        if block.kind == "text":
            return "response.output_text"
        return "response.reasoning_summary_text" if self._summarized else "response.reasoning_text"

    def _item_event(self, block: Block, kind: str, **fields: Any) -> bytes:
        """Write an event of one item."""
        location: Json = {"item_id": self._id(block), "output_index": block.index}
        if block.kind == "thinking" and self._summarized:
            location["summary_index"] = 0
        elif block.kind != "call":
            location["content_index"] = 0
        return self._event(kind, **location, **fields)

    def _id(self, block: Block) -> str:
        prefix = {"thinking": "rs", "text": "msg", "call": "fc"}[block.kind]
        return self._ids.setdefault(block.index, f"{prefix}_{uuid.uuid4().hex}")

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._events = self._events, self._events + 1
        return named_event(kind, orjson.dumps({"type": kind, "sequence_number": number, **fields}))
