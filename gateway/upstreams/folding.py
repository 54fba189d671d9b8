"""A streamed reply put together again."""

from __future__ import annotations

from typing import Any

from gateway.upstreams.base import Chunk
from gateway.upstreams.merging import merge

__all__ = ["Folding"]

_TEXT = frozenset({"content", "reasoning", "reasoning_content"})
_OWN = frozenset({"index", "delta", "finish_reason"})


class Folding:
    """Takes a streamed chat reply's chunks; gives the body that the request would have got unstreamed.

    Usage may come in events without a choice, one for all choices or (llama.cpp) one for each,
    or with a choice's own chunks; the prompt is counted once.
    """

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] = {}
        self._prompt = 0
        self._whole = 0  # tokens generated, as events without a choice say
        self._own: dict[int, int] = {}  # and as the choices' own chunks do

    def add(self, chunk: Chunk) -> None:
        """Takes the next chunk."""
        self._head |= {k: v for k, v in chunk.raw.items() if k not in ("choices", "usage", "object")}
        if chunk.index is not None:
            self._add_choice(chunk.index, chunk)
        if chunk.usage and chunk.raw.get("usage"):
            self._prompt = max(self._prompt, chunk.usage.get("prompt_tokens") or 0)
            said = chunk.usage.get("completion_tokens") or 0
            if chunk.index is None:
                self._whole += said
            else:
                self._own[chunk.index] = said
            self._usage |= chunk.usage

    def body(self) -> dict[str, Any]:
        """The whole reply."""
        choices = [{"index": index, **self._choices[index]} for index in sorted(self._choices)]
        body = {**self._head, "object": "chat.completion", "choices": choices}
        if self._usage:
            generated = self._whole or sum(self._own.values())
            counts = {"prompt_tokens": self._prompt, "completion_tokens": generated}
            body["usage"] = {**self._usage, **counts, "total_tokens": self._prompt + generated}
        return body

    def _add_choice(self, index: int, chunk: Chunk) -> None:
        empty: dict[str, Any] = {"message": {"role": "assistant", "content": ""}, "finish_reason": None}
        choice = self._choices.setdefault(index, empty)
        message = choice["message"]
        message["content"] += chunk.content
        if chunk.reasoning:
            message["reasoning"] = message.get("reasoning", "") + chunk.reasoning
        for key, value in (chunk.choice.get("delta") or {}).items():
            if key not in _TEXT:
                message[key] = merge(message.get(key), value, key)
        for key, value in chunk.choice.items():
            if key not in _OWN:
                choice[key] = merge(choice.get(key), value, key)
        if chunk.finish_reason is not None:
            choice["finish_reason"] = chunk.finish_reason
