"""Write a reply as a sequence of blocks (thinking, text, tool calls), for Responses and Messages.

Both dialects open, extend and close one block after the other. This module keeps the sequence;
a `BlockFormat` writes the dialect's own events.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gateway.dialects.base import CORRECTION
from gateway.dialects.scaling import progress_report, report
from gateway.errors import GatewayError, UpstreamError
from gateway.runs.events import Aside, Delta, Progress, RunResult
from gateway.runs.request import RunRequest
from scorers.types import Sample

__all__ = ["Block", "BlockFormat", "BlockStream", "blocks_of"]


@dataclass(slots=True)
class Block:
    """One block of a reply.

    `index` counts the reply's blocks from 0. `pieces` are its text so far, or a call's arguments
    as JSON text. Only calls have `call_id` and `name`. `complete` is false if a token limit cut
    the block.
    """

    kind: Literal["thinking", "text", "call"]
    index: int
    pieces: list[str] = field(default_factory=list)
    call_id: str = ""
    name: str = ""
    complete: bool = True

    @property
    def text(self) -> str:
        """The whole text of the block."""
        return "".join(self.pieces)


class BlockFormat(Protocol):
    """Writes a dialect's events for the blocks of one reply; every method returns whole events."""

    id: str
    """The id of the reply."""

    def begin(self, raw: Mapping[str, Any]) -> bytes:
        """Begin the reply; `raw` is the upstream's first event, or empty before there is one."""
        ...

    def open(self, block: Block) -> bytes:
        """Begin a block."""
        ...

    def extend(self, block: Block, text: str) -> bytes:
        """Add text to a block."""
        ...

    def close(self, block: Block) -> bytes:
        """End a block."""
        ...

    def progress(self, scaling: Mapping[str, Any]) -> bytes:
        """Report how a vote stands, in an event that the dialect's clients ignore."""
        ...

    def heartbeat(self) -> bytes:
        """Write a sign of life that the dialect's clients skip."""
        ...

    def end(self, result: RunResult, scaling: Mapping[str, Any]) -> bytes:
        """End the reply."""
        ...

    def fail(self, error: GatewayError) -> bytes:
        """End a reply that failed."""
        ...


class BlockStream:
    """Writes one request's events as a sequence of blocks (a `gateway.dialects.base.Writer`)."""

    def __init__(self, request: RunRequest, block_format: BlockFormat) -> None:
        self._request = request
        self._format = block_format
        self._started = False
        self._open: Block | None = None
        self._blocks = 0
        self._calls: dict[int, Block] = {}
        self._shown_live: int | None = None
        self._live_length = 0

    @property
    def id(self) -> str:
        """The reply's id."""
        return self._format.id

    def delta(self, delta: Delta) -> bytes:
        """Write new text of the one sample that is shown live.

        The reply begins with its first text, so that an earlier failure keeps its own status.
        """
        calls = (delta.choice.get("delta") or {}).get("tool_calls") or ()
        if not (delta.reasoning or delta.content or calls):
            return b""
        if self._request.votes:
            self._shown_live = delta.index
            self._live_length += len(delta.content)
        parts = [self._begin(delta.event), self._thinking(delta.reasoning), self._text(delta.content)]
        parts += [self._fragment(fragment) for fragment in calls]
        return b"".join(parts)

    def aside(self, aside: Aside) -> bytes:
        """Write nothing: the dialect has no place for such an event."""
        return b""

    def heartbeat(self) -> bytes:
        """Write a sign of life, also before the reply has begun."""
        return self._format.heartbeat()

    def progress(self, progress: Progress) -> bytes:
        """Write how the vote stands."""
        return self._begin({}) + self._format.progress(progress_report(self._request, progress))

    def finish(self, result: RunResult) -> bytes:
        """Write the winner unless it was shown live, then the end of the reply with `scaling` and usage."""
        parts = [self._begin({})]
        revised: dict[str, Any] = {}
        sample = result.chosen[0]
        if self._request.votes and sample.index != self._shown_live:
            if self._shown_live is not None:
                revised = {"revised": self._live_length + len(CORRECTION)}
                parts.append(self._text(CORRECTION))
                self._calls = {}
            parts += [self._thinking(sample.reasoning), self._text(sample.content)]
            parts += [self._fragment({**call, "index": i}) for i, call in enumerate(sample.tool_calls)]
        parts.append(self._close(complete=not sample.truncated))
        parts.append(self._format.end(result, report(self._request, result, **revised)))
        return b"".join(parts)

    def error(self, error: GatewayError) -> bytes:
        """End a stream that has begun and then failed."""
        return self._format.fail(error)

    def _begin(self, raw: Mapping[str, Any]) -> bytes:
        if self._started:
            return b""
        self._started = True
        return self._format.begin(raw)

    def _thinking(self, text: str) -> bytes:
        return b"" if self._request.reply.exclude_reasoning else self._grow("thinking", text)

    def _text(self, text: str) -> bytes:
        return self._grow("text", text)

    def _grow(self, kind: Literal["thinking", "text"], text: str) -> bytes:
        if not text:
            return b""
        start = b""
        if self._open is None or self._open.kind != kind:
            start = self._start(Block(kind, self._blocks))
        return start + self._add(text)

    def _fragment(self, fragment: Mapping[str, Any]) -> bytes:
        """Write a part of a tool call, as chat completions stream it."""
        index = fragment.get("index", 0)
        function = fragment.get("function") or {}
        start = b""
        block = self._calls.get(index)
        if block is None:
            call_id = fragment.get("id") or _call_id()
            block = Block("call", self._blocks, call_id=call_id, name=function.get("name") or "")
            self._calls[index] = block
            start = self._start(block)
        elif block is not self._open:
            raise UpstreamError(
                502,
                "The upstream returned to an earlier tool call, which this endpoint can't stream; "
                "send the request without stream.",
            )
        return start + self._add(function.get("arguments") or "")

    def _start(self, block: Block) -> bytes:
        end = self._close()
        self._open = block
        self._blocks += 1
        return end + self._format.open(block)

    def _add(self, text: str) -> bytes:
        assert self._open is not None
        if not text:
            return b""
        self._open.pieces.append(text)
        return self._format.extend(self._open, text)

    def _close(self, *, complete: bool = True) -> bytes:
        block, self._open = self._open, None
        if block is None:
            return b""
        block.complete = complete
        return self._format.close(block)


def blocks_of(request: RunRequest, sample: Sample) -> list[Block]:
    """Return a finished sample's blocks, for an unstreamed reply."""
    blocks: list[Block] = []
    if sample.reasoning and not request.reply.exclude_reasoning:
        blocks.append(Block("thinking", 0, [sample.reasoning]))
    if sample.content:
        blocks.append(Block("text", len(blocks), [sample.content]))
    for call in sample.tool_calls:
        function = call.get("function") or {}
        arguments, name = function.get("arguments") or "", function.get("name") or ""
        blocks.append(Block("call", len(blocks), [arguments], call.get("id") or _call_id(), name))
    if blocks:
        blocks[-1].complete = not sample.truncated
    return blocks


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex}"
