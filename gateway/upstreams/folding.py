"""Joins the chunks of a streamed reply into an unstreamed one."""

from __future__ import annotations

from typing import Any

from gateway.errors import UpstreamError
from gateway.upstreams.base import Chunk
from gateway.upstreams.merging import merge

__all__ = ["Folding"]

_OWN = frozenset({"index", "delta", "finish_reason"})


class Folding:
    """Takes the chunks of a streamed chat reply, and returns the body of the same reply unstreamed.

    Usage may come in events without a choice (one for all choices or, from llama.cpp, one for each), or with
    a choice's own chunks. The prompt is counted once. `failures` and `listed` are those of `Completion`.
    """

    def __init__(self) -> None:
        self.failures: dict[int, UpstreamError] = {}
        self.listed: set[int] = set()
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] = {}
        self._prompt = 0
        self._generated = 0  # tokens, by the events without a choice
        self._by_choice: dict[int, int] = {}  # and by the choices' own chunks

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk."""
        self._head |= {k: v for k, v in chunk.event.items() if k not in ("choices", "usage", "object")}
        if chunk.index is not None:
            if chunk.failure is not None:
                self.failures[chunk.index] = chunk.failure
            if chunk.listed:
                self.listed.add(chunk.index)
            self._add_choice(chunk.index, chunk)
        if chunk.usage and chunk.event.get("usage"):
            self._prompt = max(self._prompt, chunk.usage.get("prompt_tokens") or 0)
            generated = chunk.usage.get("completion_tokens") or 0
            if chunk.index is None:
                self._generated += generated
            else:
                self._by_choice[chunk.index] = generated
            self._usage |= chunk.usage

    def body(self) -> dict[str, Any]:
        """Return the whole reply."""
        choices = [{"index": index, **_finished(self._choices[index])} for index in sorted(self._choices)]
        body = {**self._head, "object": "chat.completion", "choices": choices}
        if self._usage:
            generated = self._generated or sum(self._by_choice.values())
            counts = {"prompt_tokens": self._prompt, "completion_tokens": generated}
            body["usage"] = {**self._usage, **counts, "total_tokens": self._prompt + generated}
        return body

    def _add_choice(self, index: int, chunk: Chunk) -> None:
        empty: dict[str, Any] = {"message": {"role": "assistant", "content": None}, "finish_reason": None}
        choice = self._choices.setdefault(index, empty)
        message = choice["message"]
        delta = chunk.choice.get("delta") or {}
        if chunk.content and "content" not in delta:  # of a text completion
            delta = {**delta, "content": chunk.content}
        for key, value in delta.items():
            message[key] = merge(message.get(key), value, key)
        for key, value in chunk.choice.items():
            if key not in _OWN:
                choice[key] = merge(choice.get(key), value, key)
        if chunk.finish_reason is not None:
            choice["finish_reason"] = chunk.finish_reason


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a choice as an unstreamed reply has it: calls without an index, no null where no call is."""
    message = choice["message"]
    calls = message.get("tool_calls")
    if calls:
        message["tool_calls"] = [
            {key: value for key, value in call.items() if key != "index"} for call in calls
        ]
        message["content"] = message["content"] or None
    elif message["content"] is None:
        message["content"] = ""
    return choice
