"""OpenAI's chat completions: read a request body, write a reply or a stream of chunks."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.base import CORRECTION, check_chat_fields, encode, json_object, string, wrong
from gateway.dialects.scaling import progress_report, report, usage_and_report, usage_of
from gateway.dialects.sse import COMMENT, DONE, event
from gateway.dialects.thinking_fields import answer_logprobs, both_names, without_thinking
from gateway.dialects.verbatim import VerbatimStream, verbatim_body
from gateway.errors import GatewayError
from gateway.runs.events import Aside, Delta, Progress, RunResult
from gateway.runs.request import RunRequest
from scorers.types import Sample

__all__ = ["ChatExchange", "ChatStream", "chat_body", "parse_body"]

_DELTA = frozenset({"role", "content", "reasoning", "reasoning_content"})  # what the gateway writes itself
_CHOICE = frozenset({"index", "delta", "message", "finish_reason"})
_CHOICE_SIZE = 3  # fields of a chunk's choice that has no others


class ChatExchange:
    """One request to `/v1/chat/completions` (a `gateway.dialects.base.Exchange`)."""

    translated = False

    def __init__(self, payload: bytes) -> None:
        self.chat = parse_body(payload)

    def reply(self, request: RunRequest, result: RunResult, model: str) -> dict[str, Any]:
        """Return the unstreamed reply."""
        if result.reply is not None:
            return verbatim_body(request, result, result.reply)
        return chat_body(request, result, model)

    def writer(self, request: RunRequest, model: str) -> ChatStream | VerbatimStream:
        """Return a writer of the reply as a stream of chunks."""
        return VerbatimStream(request) if request.verbatim else ChatStream(request, model)


def parse_body(payload: bytes) -> dict[str, Any]:
    """Parse a request, and check the fields that the gateway itself relies on.

    The upstream judges everything else. Raises `BadRequest`.
    """
    body = json_object(payload)
    _check_messages(body.get("messages"))
    string(body.get("model", ""), "model")
    if not isinstance(body.get("stream") or False, bool):
        raise wrong("stream", "true or false")
    check_chat_fields(body)
    return body


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise wrong("messages", "a list of at least one message object")
    for index, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise wrong(f"messages[{index}].role", "a string")
        content = message.get("content")
        if not isinstance(content, str | list | None):
            raise wrong(f"messages[{index}].content", "a string or a list of parts")
        if isinstance(content, list) and not all(isinstance(part, dict) for part in content):
            raise wrong(f"messages[{index}].content", "a string or a list of part objects")


def chat_body(request: RunRequest, result: RunResult, model: str) -> dict[str, Any]:
    """Return the unstreamed reply."""
    choices = []
    for index, sample in enumerate(result.chosen):
        message = {"role": "assistant", **_message_fields(request, sample), **_message_text(request, sample)}
        choice = {
            **sample.extra.get("choice", {}),
            "index": index,
            "message": message,
            "logprobs": _visible_logprobs(request, sample),
            "finish_reason": sample.finish_reason,
        }
        if _hides_thinking(request, sample):
            choice.pop("token_ids", None)
        choices.append(choice)
    return {
        "id": _new_id(),
        "created": int(time.time()),
        "model": model,
        **result.envelope,
        "object": "chat.completion",
        "choices": choices,
        **usage_and_report(request, result),
    }


def _hides_thinking(request: RunRequest, sample: Sample) -> bool:
    return request.reply.exclude_reasoning and bool(sample.reasoning)


def _message_fields(request: RunRequest, sample: Sample) -> dict[str, Any]:
    """Return the engine's further fields of a message."""
    fields: dict[str, Any] = sample.extra.get("message", {})
    return without_thinking(fields) if request.reply.exclude_reasoning else fields


def _visible_logprobs(request: RunRequest, sample: Sample) -> Mapping[str, Any] | None:
    if _hides_thinking(request, sample):
        return answer_logprobs(sample.logprobs, sample.content)
    return sample.logprobs


def _message_text(request: RunRequest, sample: Sample) -> dict[str, Any]:
    text: dict[str, Any] = {"content": sample.content}
    if sample.tool_calls:
        text["tool_calls"] = [
            {key: value for key, value in call.items() if key != "index"} for call in sample.tool_calls
        ]
        text["content"] = sample.content or None
    if sample.reasoning and not request.reply.exclude_reasoning:
        text |= both_names(sample.reasoning)
    return text


class ChatStream:
    """Writes the events of one request as server-sent events."""

    def __init__(self, request: RunRequest, model: str) -> None:
        self._request = request
        self._votes = request.votes
        self._hides_reasoning = request.reply.exclude_reasoning
        self._head: dict[str, Any] = {
            "id": _new_id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._begun: set[int] = set()  # choices that have had a chunk
        self._answering: set[int] = set()  # choices whose answer has begun
        self._calls_shown = 0  # tool calls of the sample that is shown live
        self._shown_live: int | None = None
        self._live_length = 0
        self._has_text = False
        self._held_back = b""  # chunks without text, from before the first chunk with text

    @property
    def id(self) -> str:
        """Return the completion's id: the engine's own from its first chunk on."""
        return str(self._head["id"])

    def delta(self, delta: Delta) -> bytes:
        """Write new text of a sample that is shown as it comes; return nothing where none of it is shown."""
        if not self._begun and delta.event:
            self._head |= {key: delta.event[key] for key in ("id", "created", "model") if key in delta.event}
        index = delta.index
        if self._votes:
            self._shown_live, index = index, 0
        self._live_length += len(delta.content)
        choice = self._choice(index, delta)
        if choice is None:
            return b""
        chunk = self._chunk([choice], delta.event)
        if self._has_text:
            return chunk
        self._has_text = bool(delta.content or delta.reasoning) or not choice["delta"].keys() <= {"role"}
        if self._has_text:
            return self._release() + chunk
        self._held_back += chunk  # nothing to show yet, and the request may still fail with its own status
        return b""

    def aside(self, aside: Aside) -> bytes:
        """Write nothing: only a request that asks for nothing has them (see `VerbatimStream`)."""
        return b""

    def heartbeat(self) -> bytes:
        """Write a comment."""
        return COMMENT

    def progress(self, progress: Progress) -> bytes:
        """Write how the vote stands: a chunk without text, which OpenAI clients skip."""
        choice = {"index": 0, "delta": {}, "finish_reason": None}
        return self._chunk([choice], {}, scaling=progress_report(self._request, progress))

    def finish(self, result: RunResult) -> bytes:
        """Write what is left: winners not shown yet, the end of each choice, `scaling`, usage."""
        parts: list[bytes] = [self._release()]
        revised: dict[str, Any] = {}
        if self._votes:
            winners, revised = self._winners(result)
            parts += winners
        last = len(result.chosen) - 1
        for index, sample in enumerate(result.chosen):
            choice = {
                **self._ending(sample),
                "index": index if self._votes else sample.index,
                "delta": {},
                "finish_reason": sample.finish_reason,
            }
            more = {"scaling": report(self._request, result, **revised)} if index == last else {}
            parts.append(self._chunk([choice], result.envelope, **more))
        if self._request.reply.include_usage:
            parts.append(self._chunk([], result.envelope, usage=usage_of(result)))
        return b"".join([*parts, DONE])

    def error(self, error: GatewayError) -> bytes:
        """Write the failure of a stream that had begun; no `[DONE]` follows."""
        return event(encode(error.body()))

    def _choice(self, index: int, delta: Delta) -> dict[str, Any] | None:
        """Return the choice of a delta's chunk; None where there is nothing to show."""
        fields = self._text(delta.reasoning, delta.content)
        choice: dict[str, Any] = {"index": index, "delta": fields, "finish_reason": None}
        if delta.content and self._hides_reasoning:
            self._answering.add(index)
        if delta.choice:
            self._add_fields(index, delta, choice)
        if index not in self._begun:
            choice["delta"] = {"role": "assistant", **fields}
        elif not fields and (len(choice) == _CHOICE_SIZE or delta.reasoning):  # or it belongs to hidden text
            return None
        self._begun.add(index)
        return choice

    def _add_fields(self, index: int, delta: Delta, choice: dict[str, Any]) -> None:
        """Add the engine's further fields, without those that would show hidden thinking."""
        upstream = delta.choice.get("delta") or {}
        hides, omitted = self._hides_reasoning, _CHOICE
        if hides:
            upstream = without_thinking(upstream)
            if delta.reasoning or index not in self._answering:
                omitted |= {"logprobs", "token_ids"}
        choice["delta"] |= {k: v for k, v in upstream.items() if v is not None and k not in _DELTA}
        choice |= {k: v for k, v in delta.choice.items() if v is not None and k not in omitted}
        for call in upstream.get("tool_calls") or ():
            self._calls_shown = max(self._calls_shown, call.get("index", 0) + 1)

    def _release(self) -> bytes:
        chunks, self._held_back = self._held_back, b""
        return chunks

    def _ending(self, sample: Sample) -> dict[str, Any]:
        """Return a choice's own fields that came with its end, such as vLLM's `stop_reason`."""
        choice = sample.extra.get("choice", {})
        return {key: value for key, value in choice.items() if not isinstance(value, list | dict)}

    def _winners(self, result: RunResult) -> tuple[list[bytes], dict[str, Any]]:
        """Write the vote's chosen samples; of one that was shown live, only what corrects it."""
        parts: list[bytes] = []
        revised: dict[str, Any] = {}
        for index, sample in enumerate(result.chosen):
            if index == 0 and self._shown_live is not None:
                if sample.index == self._shown_live:
                    continue
                revised = {"revised": self._live_length + len(CORRECTION)}
                parts.append(self._whole(0, self._text("", CORRECTION)))
            parts.append(self._whole(index, {"role": "assistant", **self._text(sample.reasoning, "")}))
            fields = {**_message_fields(self._request, sample), **self._text("", sample.content)}
            if sample.tool_calls:
                first = self._calls_shown if index == 0 else 0  # clients join calls of the same index
                fields["tool_calls"] = [
                    {**call, "index": place} for place, call in enumerate(sample.tool_calls, first)
                ]
            parts.append(self._whole(index, fields, logprobs=_visible_logprobs(self._request, sample)))
        return parts, revised

    def _whole(self, index: int, delta: dict[str, Any], **fields: Any) -> bytes:
        return self._chunk([{"index": index, "delta": delta, "finish_reason": None, **fields}], {})

    def _text(self, reasoning: str, content: str) -> dict[str, Any]:
        text: dict[str, Any] = {}
        if reasoning and not self._hides_reasoning:
            text["reasoning_content"] = text["reasoning"] = reasoning
        if content:
            text["content"] = content
        return text

    def _chunk(self, choices: list[dict[str, Any]], raw: Mapping[str, Any], **more: Any) -> bytes:
        chunk = {**raw, **self._head, "choices": choices, **more}
        if "usage" not in more:
            chunk.pop("usage", None)
        chunk.pop("timings", None)
        return b"data: %b\n\n" % orjson.dumps(chunk)  # the gate lets pass only what can be written


def _new_id() -> str:
    return f"chatcmpl-{random.getrandbits(128):032x}"  # as good a name as uuid4's, without a system call
