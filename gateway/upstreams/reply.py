"""One HTTP reply of an upstream, read within the limits on bytes and times."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp

from gateway.errors import UpstreamUnreachable
from gateway.upstreams.base import UpstreamLimits
from gateway.upstreams.failures import broken_connection

__all__ = ["Reply", "ReplyLimits", "Silence", "SilenceClock"]

_PIECE = 256 * 2**10
"""Bytes of decompressed text to pass on at a time."""
_RATIO_COUNTS_FROM = 64 * 2**10
"""Bytes from which the compression ratio counts; short texts of blanks are no attack."""
_PROGRESS = 4 * 2**10
"""Bytes of a whole reply that count like a token."""
_LONGEST_TICK = 1.0
"""Seconds between two looks at the replies under way."""
_MODES = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class ReplyLimits:
    """The limits on one reply: `UpstreamLimits` for its number of choices, streamed or whole.

    A whole reply shows no tokens while it is generated, so it has the longer one of both silences.
    """

    __slots__ = ("first", "first_name", "limits", "max_bytes", "max_bytes_name", "streamed")

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
        self.max_bytes_name = "max_logprobs_reply_bytes" if logprobs else "max_reply_bytes"
        self.max_bytes = choices * (limits.max_logprobs_reply_bytes if logprobs else limits.max_reply_bytes)


class SilenceClock:
    """Looks at all replies of one upstream by one timer, which runs while there are any."""

    def __init__(self, limits: UpstreamLimits) -> None:
        times = (limits.first_token_timeout, limits.idle_timeout, limits.total_timeout)
        self._interval = min(_LONGEST_TICK, *(seconds / 8 for seconds in times if seconds is not None))
        self._active: set[Silence] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, limits: ReplyLimits) -> Silence:
        """Begin to watch one request, which the current task sends; `stop` ends it."""
        loop = asyncio.get_running_loop()
        silence = Silence(limits, loop.time(), self._active)
        self._active.add(silence)
        if self._timer is None:
            self._timer = loop.call_later(self._interval, self._tick, loop)
        return silence

    def close(self) -> None:
        """Stop the timer."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for silence in tuple(self._active):
            silence.look(now)
        self._timer = loop.call_later(self._interval, self._tick, loop) if self._active else None


class Silence:
    """Ends the wait for an upstream that stays silent for too long, from the request on.

    A clock looks at two flags now and then, so that a token costs neither a timer nor a look at the time.
    `token` is set for each token, `waiting` while the gateway waits for bytes: the time of a slow reader
    doesn't count. The end may come a tick of the clock late.

    Until `listen`, giving up cancels the task that made this; `error` then says why.
    """

    __slots__ = (
        "_active",
        "_cancelling",
        "_content",
        "_ends",
        "_idle",
        "_limit",
        "_name",
        "_since",
        "_task",
        "_total",
        "_total_end",
        "error",
        "token",
        "waiting",
    )

    def __init__(self, limits: ReplyLimits, now: float, active: set[Silence]) -> None:
        self._active = active
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self._content: aiohttp.StreamReader | None = None
        self._idle = limits.limits.idle_timeout
        self._limit, self._name = limits.first, limits.first_name
        self._since = now
        self._total = limits.limits.total_timeout
        self._total_end = None if self._total is None else now + self._total
        self._ends = False  # at the limit, whatever comes
        self.error: UpstreamUnreachable | None = None
        self.token = False
        self.waiting = True

    def listen(self, content: aiohttp.StreamReader, *, restart: bool) -> None:
        """Go on with the body; `restart`: the head counts like a token."""
        self._content = content
        self._task = None
        self.waiting = False
        if restart:
            self._since = asyncio.get_running_loop().time()

    def owns(self, cancelled: asyncio.Task[Any] | None) -> bool:
        """Tell whether it was this that cancelled its task, and take the cancellation back if so."""
        return self.error is not None and cancelled is not None and cancelled.uncancel() <= self._cancelling

    def shorten(self, seconds: float) -> None:
        """Wait no longer than so many seconds from now on, whatever comes."""
        self._limit, self._ends = seconds, True
        self._since = asyncio.get_running_loop().time()

    def stop(self) -> None:
        """Watch no longer."""
        self._active.discard(self)

    def look(self, now: float) -> None:
        """Give up if the silence has become too long."""
        if self._total_end is not None and now >= self._total_end:
            self._give_up(f"took longer than total_timeout ({self._total:g} s)")
        elif self.token and not self._ends:
            self._limit, self._name = self._idle, "idle_timeout"
            self._since, self.token = now, False
        elif not self.waiting:
            self._since = now
        elif now >= self._since + self._limit:
            self._give_up(f"took too long: no token within {self._name} ({self._limit:g} s)")

    def _give_up(self, problem: str) -> None:
        self.stop()
        self.error = UpstreamUnreachable(f"The upstream {problem}.", status=504)
        if self._content is not None:
            self._content.set_exception(self.error)
        elif self._task is not None:
            self._task.cancel()


class Reply:
    """One reply whose head has come; `silence` watches its times.

    Raises `UpstreamUnreachable` where it breaks off or passes a limit.
    """

    def __init__(self, response: aiohttp.ClientResponse, limits: ReplyLimits, silence: Silence) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._limits = limits
        self._content = response.content
        self._bytes, self._max_bytes = 0, limits.max_bytes
        self._check_headers(response)
        self._decompressor = self._decompressor_of(response.headers.get("Content-Encoding", ""))
        self._pieces: deque[bytes] = deque()
        self.silence = silence
        silence.listen(response.content, restart=not limits.streamed)

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
