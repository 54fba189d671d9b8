"""Server-sent events, as the dialects write them."""

from __future__ import annotations

__all__ = ["COMMENT", "DONE", "event", "named_event"]

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream of chat completions or completions."""


COMMENT = b": still working\n\n"
"""A comment, which every client skips (WHATWG HTML, section 9.2.6): a sign of life."""


def event(payload: bytes) -> bytes:
    """Return one event with a JSON payload, which holds no line feed."""
    return b"data: " + payload + b"\n\n"


def named_event(name: str, payload: bytes) -> bytes:
    """Return one event with a name, for clients that tell events apart by it."""
    return b"event: " + name.encode() + b"\ndata: " + payload + b"\n\n"
