"""Turn a conversation in pieces, as newer dialects send it, into chat messages.

Responses and Messages send thinking, text and tool calls of one turn as separate pieces.
Chat completions wants one message for each turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Transcript", "text_part"]

Parts = Sequence[dict[str, Any]]


def text_part(text: str) -> dict[str, Any]:
    """Return a text as one part of a chat message's content."""
    return {"type": "text", "text": text}


class Transcript:
    """Collects pieces in order; consecutive pieces of the assistant become one message."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def system(self, text: str) -> None:
        """Add system text. Consecutive texts become one, as many chat templates take one system message."""
        last = self._last("system")
        if not text:
            return
        if last is None:
            self.messages.append({"role": "system", "content": text})
        else:
            last["content"] += "\n\n" + text

    def user(self, parts: Parts) -> None:
        """Add a user message of chat content parts."""
        if parts:
            self.messages.append({"role": "user", "content": _content(parts)})

    def result(self, call_id: str, parts: Parts) -> None:
        """Add the result of a tool call."""
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": _content(parts)})

    def thinking(self, text: str) -> None:
        """Add earlier thinking, which the family's rules later keep or drop."""
        message = self._assistant()
        message["reasoning"] = "\n\n".join(filter(None, (message.get("reasoning"), text)))

    def answer(self, text: str) -> None:
        """Add text of the assistant."""
        message = self._assistant()
        message["content"] = "\n\n".join(filter(None, (message["content"], text)))

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """Add a tool call of the assistant; `arguments` is JSON text."""
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
    """Return a single text as a string, which every template takes, and other parts as they are."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return list(parts)
