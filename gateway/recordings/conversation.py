"""A request's conversation as it is recorded: images by their hash, redacted text left out. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import mimetypes
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

__all__ = ["InlineImage", "recorded_messages", "recorded_question"]

_THINKING = ("reasoning", "reasoning_content")
_REPLY = ("content", "tool_calls")


@dataclass(frozen=True, slots=True)
class InlineImage:
    """An image that came inside a request."""

    sha256: str
    media_type: str
    payload: bytes

    @property
    def file_name(self) -> str:
        """The name under which the image is stored."""
        return f"{self.sha256}{mimetypes.guess_extension(self.media_type) or '.bin'}"


def recorded_messages(
    messages: Sequence[Mapping[str, Any]], redact: Collection[str] = ()
) -> tuple[list[dict[str, Any]], list[InlineImage]]:
    """Return the messages with a hash in place of each inline image, and the images.

    `redact` may hold "reasoning" and "text", which here leave out what earlier replies thought and said.
    An image that the client gave by its address keeps the address, and nobody fetches it.
    """
    dropped = {*(_THINKING if "reasoning" in redact else ()), *(_REPLY if "text" in redact else ())}
    images: list[InlineImage] = []
    recorded = []
    for message in messages:
        hidden = dropped if message.get("role") == "assistant" else ()
        fields = {name: value for name, value in message.items() if name not in hidden}
        if isinstance(content := fields.get("content"), list):
            fields["content"] = [_recorded_part(part, images) for part in content]
        recorded.append(fields)
    return recorded, images


def recorded_question(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the user's last message."""
    content = next((m.get("content") for m in reversed(messages) if m["role"] == "user"), None)
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content or ""


def _recorded_part(part: Any, images: list[InlineImage]) -> Any:
    """Return a content part as it is recorded; adds to `images` what stood in it."""
    if not isinstance(part, dict) or part.get("type") != "image_url":
        return part
    reference = part.get("image_url")
    url = reference.get("url") if isinstance(reference, dict) else reference
    if not isinstance(url, str):
        return part
    image = _inline_image(url)
    if image is None:
        return {"type": "image", "url": url}
    images.append(image)
    return {"type": "image", "sha256": image.sha256, "media_type": image.media_type}


def _inline_image(url: str) -> InlineImage | None:
    """Return the image that a data: URL holds; None for any other URL."""
    if url[:5].lower() != "data:":
        return None
    header, _, text = url[5:].partition(",")
    media_type = header.partition(";")[0].strip().lower() or "text/plain"
    payload = unquote_to_bytes(text)
    if header.rstrip().lower().endswith(";base64"):
        try:
            payload = base64.b64decode(payload)
        except binascii.Error:  # no image, but still what the client sent
            media_type = "application/octet-stream"
    return InlineImage(hashlib.sha256(payload).hexdigest(), media_type, payload)
