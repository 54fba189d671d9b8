"""OpenAI's Responses API: an result or a stream of events written as items of output.

Events and their order follow the API reference, "Streaming events"; the thinking goes out
as `reasoning_text` or, where the client asks for a summary, whole as its one `summary_text`.
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
from gateway.dialects.scaling import report, usage_of
from gateway.errors import GatewayError
from gateway.runs.events import RunResult
from gateway.runs.request import RunRequest
from gateway.upstreams.sse import named_event

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

    def __init__(self, payload: bytes) -> None:
        self._asked = json_object(payload)
        self.chat = chat_request(self._asked)

    def reply(self, request: RunRequest, result: RunResult, model: str) -> Json:
        """The unstreamed response."""
        form = _Form(self._asked, model)
        form.output = [form.item(block) for block in blocks_of(request, result.chosen[0])]
        return form.ended(result, report(request, result))

    def writer(self, request: RunRequest, model: str) -> BlockStream:
        """The response as a stream of events."""
        return BlockStream(request, _Form(self._asked, model))


class _Form:
    """The words of the Responses API (a `gateway.dialects.blocks.BlockFormat`)."""

    def __init__(self, asked: Mapping[str, Any], model: str) -> None:
        reasoning = asked.get("reasoning") or {}
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
            **{field: asked.get(field) for field in _ECHOED},
            "metadata": asked.get("metadata") or {},
            "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
            "reasoning": {"effort": reasoning.get("effort"), "summary": summary},
            "service_tier": "default",
            "store": False,
            "text": {"format": {"type": "text"}, **(asked.get("text") or {})},
            "tool_choice": asked.get("tool_choice") or "auto",
            "tools": asked.get("tools") or [],
            "truncation": "disabled",
            "usage": None,
        }

    def begin(self, raw: Mapping[str, Any]) -> bytes:
        response = {**self._response, "output": []}
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def opened(self, block: Block) -> bytes:
        item = {**self.item(block), "status": "in_progress"}
        if block.kind == "text" or (block.kind == "thinking" and not self._summarized):
            item["content"] = []
        item |= {"summary": []} if block.kind == "thinking" else {}
        added = self._event("response.output_item.added", output_index=block.place, item=item)
        if block.kind == "call":
            return added
        return added + self._of(block, self._part_event(block, "added"), part=self._part(block, ""))

    def grew(self, block: Block, text: str) -> bytes:
        more: Json = {"logprobs": []} if block.kind == "text" else {}
        return self._of(block, f"{self._text_event(block)}.delta", delta=text, **more)

    def closed(self, block: Block) -> bytes:
        item = self.item(block)
        self.output.append(item)
        name = f"{self._text_event(block)}.done"
        if block.kind == "call":
            done = self._of(block, name, name=block.name, arguments=block.text)
        else:
            more: Json = {"logprobs": []} if block.kind == "text" else {}
            done = self._of(block, name, text=block.text, **more)
            done += self._of(block, self._part_event(block, "done"), part=self._part(block))
        return done + self._event("response.output_item.done", output_index=block.place, item=item)

    def progress(self, scaling: Mapping[str, Any]) -> bytes:
        """Once more "in progress", an event that every client knows, with the vote beside it."""
        return self._event("response.in_progress", response={**self._response, "output": []}, scaling=scaling)

    def end(self, result: RunResult, scaling: Mapping[str, Any]) -> bytes:
        response = self.ended(result, scaling)
        return self._event(f"response.{response['status']}", response=response)

    def failed(self, error: GatewayError) -> bytes:
        """`response.failed`, then `error`, flat as in the reference and nested as clients read it."""
        told = error.body()["error"]
        reason = {"code": "server_error", "message": error.message}
        response = {**self._response, "status": "failed", "error": reason, "output": self.output}
        ended = self._event("response.failed", response=response)
        flat = {key: told.get(key) for key in ("code", "message", "param")}
        return ended + self._event("error", **flat, error=told)

    def ended(self, result: RunResult, scaling: Mapping[str, Any]) -> Json:
        """The whole response."""
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
            "scaling": scaling,
        }

    def item(self, block: Block) -> Json:
        """A block as an item of output, with all that it holds so far."""
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

    def _part_event(self, block: Block, what: str) -> str:
        if block.kind == "thinking" and self._summarized:
            return f"response.reasoning_summary_part.{what}"
        return f"response.content_part.{what}"

    def _text_event(self, block: Block) -> str:
        if block.kind == "call":
            return "response.function_call_arguments"
        if block.kind == "text":
            return "response.output_text"
        return "response.reasoning_summary_text" if self._summarized else "response.reasoning_text"

    def _of(self, block: Block, kind: str, **fields: Any) -> bytes:
        """An event of one item's."""
        where: Json = {"item_id": self._id(block), "output_index": block.place}
        if block.kind == "thinking" and self._summarized:
            where["summary_index"] = 0
        elif block.kind != "call":
            where["content_index"] = 0
        return self._event(kind, **where, **fields)

    def _id(self, block: Block) -> str:
        prefix = {"thinking": "rs", "text": "msg", "call": "fc"}[block.kind]
        return self._ids.setdefault(block.place, f"{prefix}_{uuid.uuid4().hex}")

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._events = self._events, self._events + 1
        return named_event(kind, orjson.dumps({"type": kind, "sequence_number": number, **fields}))
