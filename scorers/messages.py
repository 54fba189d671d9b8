"""Writes a chat's messages as plain text, for scorers that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["last_question", "message_text", "transcript"]

_NO_TEXT = "[no text]"


def message_text(message: Mapping[str, Any]) -> str:
    """Return a message's text; a part of another kind becomes its type in brackets."""
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
    """Return the text of the user's last message."""
    return next(
        (message_text(message) for message in reversed(messages) if message.get("role") == "user"), ""
    )


def transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the whole conversation, each message behind its role."""
    return "\n\n".join(
        f"{message.get('role', 'user')}: {message_text(message) or _NO_TEXT}" for message in messages
    )
