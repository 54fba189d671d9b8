"""A chat's messages as plain text, for scorers that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["last_question", "message_text", "transcript"]

_NO_TEXT = "[no text]"


def message_text(message: Mapping[str, Any]) -> str:
    """A message's text; parts that aren't text are named by their type."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part["text"]) if isinstance(part.get("text"), str) else f"[{part.get('type', 'part')}]"
        for part in parts
        if isinstance(part, Mapping)
    )


def last_question(messages: Sequence[Mapping[str, Any]]) -> str:
    """What was asked last: the text of the last message from the user."""
    return next((message_text(each) for each in reversed(messages) if each.get("role") == "user"), "")


def transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    """The whole conversation, each message under its role."""
    return "\n\n".join(f"{each.get('role', 'user')}: {message_text(each) or _NO_TEXT}" for each in messages)
