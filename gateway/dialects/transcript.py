"""A conversation in pieces, as newer dialects have it -> chat messages.

Responses and Messages give thinking, text and tool calls of one turn as separate pieces;
chat completions wants one message a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Transcript", "text_part"]

Parts = Sequence[dict[str, Any]]


def text_part(text: str) -> dict[str, Any]:
    """A piece of text in a chat message's list of parts."""
    return {"type": "text", "text": text}


class Transcript:
    """Collects pieces in order; what the assistant says in a row becomes one message."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def system(self, text: str) -> None:
        """System text; what comes in a row is joined, as many chat templates take one system message."""
        last = self._last("system")
        if not text:
            return
        if last is None:
            self.messages.append({"role": "system", "content": text})
        else:
            last["content"] += "\n\n" + text

    def user(self, parts: Parts) -> None:
        """What the user says: chat content parts."""
        if parts:
            self.messages.append({"role": "user", "content": _content(parts)})

    def result(self, call_id: str, parts: Parts) -> None:
        """What a tool gave back."""
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": _content(parts)})

    def thinking(self, text: str) -> None:
        """Earlier thinking, which the family's rules then keep or drop."""
        message = self._assistant()
        message["reasoning"] = "\n\n".join(filter(None, (message.get("reasoning"), text)))

    def said(self, text: str) -> None:
        """What the assistant answered."""
        message = self._assistant()
        message["content"] = "\n\n".join(filter(None, (message["content"], text)))

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """A tool call of the assistant's; `arguments` is JSON text."""
        function = {"name": name, "arguments": arguments}
        calls = self._assistant().setdefault("tool_calls", [])
        calls.append({"id": call_id, "type": "function", "function": function})

    def _assistant(self) -> dict[str, Any]:
        last = self._last("assistant")
        if last is None:
            last = {"role": "assistant", "content": ""}
            self.messages.append(last)
        return last

    def _last(self, role: str) -> dict[str, Any] | None:
        return self.messages[-1] if self.messages and self.messages[-1]["role"] == role else None


def _content(parts: Parts) -> Any:
    """A single text as a plain string, which every template takes; else the parts."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return list(parts)
