"""Server-sent events, as OpenAI-compatible engines write them (WHATWG HTML, section 9.2)."""

from __future__ import annotations

__all__ = ["EventParser"]


class EventParser:
    """Cuts a byte stream into the payloads of its `data:` fields; comments and other fields are skipped."""

    __slots__ = ("_buffer", "_data")

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []

    def feed(self, block: bytes) -> list[bytes]:
        """Takes the next bytes, cut anywhere; returns the payloads that are complete."""
        if not self._buffer and not self._data and block.startswith(b"data: ") and block.endswith(b"\n\n"):
            payloads = block[6:-2].split(b"\n\ndata: ")  # the usual block: whole events of one line each
            if block.count(b"\n") == 2 * len(payloads) and b"\r" not in block:
                return payloads
        buffer = self._buffer + block if self._buffer else block
        *lines, self._buffer = buffer.split(b"\n")
        payloads = []
        for line in lines:
            field = line.removesuffix(b"\r")
            if field.startswith(b"data:"):
                self._data.append(field[6:] if field[5:6] == b" " else field[5:])
            elif not field and self._data:
                payloads.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data.clear()
        return payloads
