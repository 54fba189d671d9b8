"""Server-sent events, read from bytes that may be cut anywhere (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re

from gateway.errors import UpstreamUnreachable
from gateway.upstreams.base import UpstreamLimits

__all__ = ["ErrorPayload", "EventCutter", "EventParser"]

_BOM = b"\xef\xbb\xbf"
_CR = 13
_LINE_END = re.compile(rb"\r\n|\n|\r")
_EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
_DEFAULT_MAX = UpstreamLimits().max_event_bytes


class ErrorPayload(bytes):
    """The payload of an event that is named `error`."""


class EventParser:
    """Cuts a stream into the payloads of its events: the `data:` lines of each, joined by line feeds.

    Lines may end in LF, CRLF or CR. Comments and other fields are skipped, except for the name `error`, which
    makes the payload an `ErrorPayload`. The time is linear in the bytes. An event of more than `max_bytes`
    raises `UpstreamUnreachable`.
    """

    __slots__ = ("_between", "_data", "_max", "_name", "_parts", "_size", "_skips_line_feed", "_start")

    def __init__(self, max_bytes: int = _DEFAULT_MAX) -> None:
        self._max = max_bytes
        self._start: bytes | None = b""  # of the stream, until it is clear whether it is a byte order mark
        self._between = True  # no event is under way
        self._parts: list[bytes] = []  # of the line under way
        self._data: list[bytes] = []  # of the event under way
        self._size = 0  # of both together
        self._name = b""
        self._skips_line_feed = False  # the last byte was a CR

    def feed(self, block: bytes) -> list[bytes]:
        """Take the next bytes; return the payloads that are complete."""
        if self._between and block.startswith(b"data: ") and block.endswith(b"\n\n") and _CR not in block:
            size = len(block)  # the usual block: whole events of one line each
            if size <= self._max:
                self._start = None
                if block.find(b"\n") == size - 2:
                    return [block[6:-2]] if size > len(b"data: \n\n") else []
                payloads = block[6:-2].split(b"\n\ndata: ")
                if block.count(b"\n") == 2 * len(payloads) and b"" not in payloads:
                    return payloads
        return self._feed_lines(block)

    def end(self) -> list[bytes]:
        """End the stream; return the payload of an event that lacks only its blank line."""
        return self._feed_lines(b"\n\n")

    def _feed_lines(self, block: bytes) -> list[bytes]:
        if self._start is not None:
            block = self._without_mark(self._start + block)
        if self._skips_line_feed and block:
            block = block.removeprefix(b"\n")
            self._skips_line_feed = False
        if not block:
            return []
        if _CR in block:
            self._skips_line_feed = block.endswith(b"\r")
            lines = _LINE_END.split(block)
        else:
            lines = block.split(b"\n")
        payloads: list[bytes] = []
        last = lines.pop()
        for line in lines:
            self._count(len(line))
            if self._parts:
                line = b"".join((*self._parts, line))  # noqa: PLW2901
                self._parts.clear()
            self._take(line, payloads)
        if last:
            self._count(len(last))
            self._parts.append(last)
        self._between = not (self._parts or self._data or self._name or self._skips_line_feed)
        return payloads

    def _without_mark(self, start: bytes) -> bytes:
        """Return the stream's first bytes without a byte order mark; nothing while that isn't clear."""
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._start = start
            self._between = not start
            return b""
        self._start = None
        return start.removeprefix(_BOM)

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._max:
            raise UpstreamUnreachable(
                f"An event of the upstream's stream is longer than max_event_bytes ({self._max})."
            )

    def _take(self, line: bytes, payloads: list[bytes]) -> None:
        """Take one whole line; add the payload of the event that it ends."""
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            return
        if line:
            self._size -= len(line)  # skipped, so it takes no room in its event
            if line.startswith(b"event:"):
                self._name = line[6:].strip()
            return
        name = self._name.lower()
        failed = name == b"error"
        payload = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        # An event without data is none. So, or by pings, some servers keep a connection open.
        if (payload or failed) and name != b"ping":
            payloads.append(ErrorPayload(payload) if failed else payload)
        self._data.clear()
        self._name = b""
        self._size = 0


class EventCutter:
    """Cuts a stream where events end, so that it can be passed on byte for byte in whole events."""

    __slots__ = ("_held", "_max", "_size", "_tail")

    def __init__(self, max_bytes: int = _DEFAULT_MAX) -> None:
        self._max = max_bytes
        self._held: list[bytes] = []
        self._size = 0
        self._tail = b""  # the last bytes held, in which the end of an event may begin

    def feed(self, block: bytes) -> bytes:
        """Take the next bytes; return those up to the end of the last whole event."""
        if not self._held and block.endswith(b"\n\n"):
            return block
        window = self._tail + block
        end = max(
            (place + len(mark) for mark in _EVENT_ENDS if (place := window.rfind(mark)) >= 0), default=0
        )
        cut = end - len(self._tail)
        if cut <= 0:
            self._hold(block, window)
            return b""
        events = b"".join((*self._held, block[:cut]))
        self._held.clear()
        self._size = 0
        self._hold(block[cut:], block[cut:])
        return events

    def end(self) -> bytes:
        """End the stream; return what is left of it."""
        return b"".join(self._held)

    def _hold(self, block: bytes, window: bytes) -> None:
        self._size += len(block)
        if self._size > self._max:
            raise UpstreamUnreachable(
                f"An event of the upstream's stream is longer than max_event_bytes ({self._max})."
            )
        if block:
            self._held.append(block)
        self._tail = window[-2:]
