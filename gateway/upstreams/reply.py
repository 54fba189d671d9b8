"""One HTTP reply of an upstream, read within the limits on bytes and times."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Iterator, Mapping

import aiohttp

from gateway.errors import UpstreamUnreachable
from gateway.upstreams.base import UpstreamLimits
from gateway.upstreams.failures import broken_connection

__all__ = ["Reply", "ReplyLimits", "Silence"]

_PIECE = 256 * 2**10
"""Bytes of decompressed text to pass on at a time."""
_RATIO_COUNTS_FROM = 64 * 2**10
"""Bytes from which the compression ratio counts; short texts of blanks are no attack."""
_PROGRESS = 4 * 2**10
"""Bytes of a whole reply that count like a token."""
_MODES = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class ReplyLimits:
    """The limits on one reply: `UpstreamLimits` for its number of choices, streamed or whole.

    A whole reply shows no tokens while it is generated, so it has the longer one of both silences.
    """

    __slots__ = ("first", "first_name", "first_wait", "limits", "max_bytes", "max_bytes_name", "streamed")

    def __init__(
        self, limits: UpstreamLimits, *, choices: int = 1, logprobs: bool = False, streamed: bool = False
    ) -> None:
        self.limits = limits
        self.streamed = streamed
        first = limits.first_token_timeout
        if first is None or (not streamed and first < limits.idle_timeout):
            self.first, self.first_name = limits.idle_timeout, "idle_timeout"
        else:
            self.first, self.first_name = first, "first_token_timeout"
        self.first_wait = self.first
        if limits.total_timeout is not None and limits.total_timeout < self.first:
            self.first_wait = limits.total_timeout
        self.max_bytes_name = "max_logprobs_reply_bytes" if logprobs else "max_reply_bytes"
        self.max_bytes = choices * (limits.max_logprobs_reply_bytes if logprobs else limits.max_reply_bytes)


class Silence:
    """Ends the wait for an upstream that stays silent for too long.

    One timer serves a whole reply and looks at two flags a few times within the limit, so that a token costs
    no timer and no look at the clock: `token`, which is set for each, and `waiting`, set while the gateway
    waits for bytes. The time of a slow reader doesn't count. The end may come an eighth of the limit late.
    """

    __slots__ = (
        "_content",
        "_ends",
        "_idle",
        "_limit",
        "_name",
        "_since",
        "_time",
        "_timer",
        "_total",
        "_total_end",
        "token",
        "waiting",
    )

    def __init__(self, content: aiohttp.StreamReader, limits: ReplyLimits, started: float) -> None:
        loop = asyncio.get_running_loop()
        total = limits.limits.total_timeout
        self._content = content
        self._time = loop.time
        self._idle = limits.limits.idle_timeout
        self._limit, self._name = limits.first, limits.first_name
        self._total = total
        self._total_end = None if total is None else started + total
        self._since = started if limits.streamed else loop.time()  # the head of a whole reply is a token
        self._ends = False  # at the limit, whatever comes
        self.waiting = False
        self.token = False
        self._timer = loop.call_later(self._next_look(), self._look)

    def shorten(self, seconds: float) -> None:
        """Wait no longer than so many seconds from now on, whatever comes."""
        self._limit, self._ends = seconds, True
        self._since = self._time()
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def stop(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _next_look(self) -> float:
        now = self._time()
        end = self._since + self._limit
        if self._total_end is not None and self._total_end < end:
            end = self._total_end
        return max(min(end - now, self._limit / 8, self._idle / 8), 0.0)

    def _look(self) -> None:
        now = self._time()
        if self._total_end is not None and now >= self._total_end:
            self._give_up(f"took longer than total_timeout ({self._total:g} s)")
            return
        if self.token and not self._ends:
            self._limit, self._name = self._idle, "idle_timeout"
            self._since, self.token = now, False
        elif not self.waiting:
            self._since = now
        elif now >= self._since + self._limit:
            self._give_up(f"took too long: no token within {self._name} ({self._limit:g} s)")
            return
        self._timer = asyncio.get_running_loop().call_later(self._next_look(), self._look)

    def _give_up(self, problem: str) -> None:
        self._content.set_exception(UpstreamUnreachable(f"The upstream {problem}.", status=504))


class Reply:
    """One reply whose head has come; `silence` watches its times. `close` it at the end.

    Raises `UpstreamUnreachable` where it breaks off or passes a limit.
    """

    def __init__(self, response: aiohttp.ClientResponse, limits: ReplyLimits, started: float) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._limits = limits
        self._content = response.content
        self._bytes, self._max_bytes = 0, limits.max_bytes
        self._check_headers(response)
        self._decompressor = self._decompressor_of(response.headers.get("Content-Encoding", ""))
        self._pieces: deque[bytes] = deque()
        self.silence = Silence(response.content, limits, started)

    async def next(self) -> bytes:
        """Return the next bytes, decompressed; nothing at the end."""
        silence = self.silence
        while not self._pieces:
            silence.waiting = True
            try:
                block = await self._content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise broken_connection(error, self._limits.limits) from error
            silence.waiting = False
            if self._decompressor is None:
                self._bytes += len(block)
                if self._bytes > self._max_bytes:
                    raise self._too_long()
                return block
            if not block:
                self._decompressor.end()
                return b""
            for piece in self._decompressor.feed(block):
                self._bytes += len(piece)
                if self._bytes > self._max_bytes:
                    raise self._too_long()
                self._pieces.append(piece)
        return self._pieces.popleft()

    async def whole(self) -> bytes:
        """Return everything. A few bytes, or white space that keeps a connection open, are no progress."""
        blocks, size = [], 0
        while block := await self.next():
            blocks.append(block)
            size += 0 if block.isspace() else len(block)
            if size >= _PROGRESS:
                self.silence.token, size = True, 0
        return b"".join(blocks)

    def close(self) -> None:
        """Stop the timer."""
        self.silence.stop()

    def _too_long(self) -> UpstreamUnreachable:
        name = self._limits.max_bytes_name
        return UpstreamUnreachable(f"The upstream's reply is longer than {name} ({self._max_bytes}) allows.")

    def _check_headers(self, response: aiohttp.ClientResponse) -> None:
        bound = self._limits.limits.max_header_bytes
        if sum(len(name) + len(value) + 4 for name, value in response.raw_headers) > bound:
            raise UpstreamUnreachable(f"The upstream's headers are longer than max_header_bytes ({bound}).")

    def _decompressor_of(self, encoding: str) -> _Decompressor | None:
        word = encoding.strip().lower()
        if word in ("", "identity"):
            return None
        if word not in _MODES:
            raise UpstreamUnreachable(
                f"The upstream's reply is encoded as {encoding[:50]!r}; the gateway reads gzip and deflate."
            )
        return _Decompressor(word, self._limits.limits.max_compression_ratio)


class _Decompressor:
    """Decompresses one reply in small pieces, and refuses one that grows too much."""

    def __init__(self, encoding: str, max_ratio: int) -> None:
        self._encoding = encoding
        self._max_ratio = max_ratio
        self._zlib = zlib.decompressobj(_MODES[encoding])
        self._begun = False
        self._read = self._written = 0

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Take the next compressed bytes; yield what they hold."""
        self._read += len(block)
        more = bool(block)
        while more:
            if self._zlib.eof:  # gzip may hold several members
                self._zlib = zlib.decompressobj(_MODES[self._encoding])
            piece = self._decompress(block)
            self._written += len(piece)
            if self._written > max(self._max_ratio * self._read, _RATIO_COUNTS_FROM):
                raise UpstreamUnreachable(
                    "The upstream's compressed reply grows by more than max_compression_ratio "
                    f"({self._max_ratio})."
                )
            if piece:
                yield piece
            block = self._zlib.unconsumed_tail or self._zlib.unused_data
            more = bool(block) or (len(piece) == _PIECE and not self._zlib.eof)

    def end(self) -> None:
        """Check that nothing is missing."""
        if self._begun and not self._zlib.eof:
            raise UpstreamUnreachable(
                "The connection to the upstream broke off (compressed reply cut short)."
            )

    def _decompress(self, block: bytes) -> bytes:
        try:
            piece = self._zlib.decompress(block, _PIECE)
        except zlib.error as error:
            if self._begun or self._encoding != "deflate":
                raise UpstreamUnreachable("The upstream's compressed reply can't be decompressed.") from error
            self._zlib = zlib.decompressobj(-15)  # some servers leave zlib's head out
            self._begun = True
            return self._decompress(block)
        self._begun = True
        return piece
