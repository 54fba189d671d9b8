"""A reply as a row of blocks (thinking, text, tool calls), as Responses and Messages write it.

Both dialects open, grow and close one block after the other; only their words differ. The
row is kept here, the words are a `BlockFormat`'s.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gateway.dialects.base import CORRECTION
from gateway.dialects.scaling import progress_report, report
from gateway.errors import GatewayError, UpstreamError
from gateway.runs.events import Delta, Progress, RunResult
from gateway.runs.request import RunRequest
from scorers.types import Sample

__all__ = ["Block", "BlockFormat", "BlockStream", "blocks_of"]


@dataclass(slots=True)
class Block:
    """One piece of a reply.

    `place` counts the reply's blocks from 0; `pieces` are its text so far (of a call: its
    arguments, as JSON text); `call_id` and `name` are a call's. `complete` turns false where
    a token limit cut the block.
    """

    kind: Literal["thinking", "text", "call"]
    place: int
    pieces: list[str] = field(default_factory=list)
    call_id: str = ""
    name: str = ""
    complete: bool = True

    @property
    def text(self) -> str:
        """All that the block holds."""
        return "".join(self.pieces)


class BlockFormat(Protocol):
    """A dialect's words for what happens to a reply's blocks; each answer is whole events."""

    id: str
    """The reply's own id."""

    def begin(self, raw: Mapping[str, Any]) -> bytes:
        """The reply begins; `raw` is the upstream's first event, empty where there is none yet."""
        ...

    def opened(self, block: Block) -> bytes:
        """A block begins."""
        ...

    def grew(self, block: Block, text: str) -> bytes:
        """A block has got this more."""
        ...

    def closed(self, block: Block) -> bytes:
        """A block is done."""
        ...

    def progress(self, scaling: Mapping[str, Any]) -> bytes:
        """How a vote stands; must be something that the dialect's clients pass over."""
        ...

    def end(self, result: RunResult, scaling: Mapping[str, Any]) -> bytes:
        """The reply's end."""
        ...

    def failed(self, error: GatewayError) -> bytes:
        """The reply's end, where something went wrong."""
        ...


class BlockStream:
    """Writes one request's events as a row of blocks (a `gateway.http.streaming.Writer`)."""

    def __init__(self, request: RunRequest, form: BlockFormat) -> None:
        self._request = request
        self._form = form
        self._begun = False
        self._open: Block | None = None
        self._blocks = 0
        self._calls: dict[int, Block] = {}
        self._shown_live: int | None = None
        self._live_length = 0

    @property
    def id(self) -> str:
        """The reply's id."""
        return self._form.id

    def delta(self, delta: Delta) -> bytes:
        """New text of the one sample that is shown as it comes.

        Nothing is begun before there is some, so that an early failure has its own status.
        """
        calls = (delta.choice.get("delta") or {}).get("tool_calls") or ()
        if not (delta.reasoning or delta.content or calls):
            return b""
        if self._request.votes:
            self._shown_live = delta.index
            self._live_length += len(delta.content)
        parts = [self._begin(delta.raw), self._thinking(delta.reasoning), self._text(delta.content)]
        parts += [self._fragment(fragment) for fragment in calls]
        return b"".join(parts)

    def progress(self, progress: Progress) -> bytes:
        """How the vote stands."""
        return self._begin({}) + self._form.progress(progress_report(self._request, progress))

    def finish(self, result: RunResult) -> bytes:
        """What is left: the vote's winner unless it was shown live, the end of the row, `scaling`, usage."""
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
        parts.append(self._form.end(result, report(self._request, result, **revised)))
        return b"".join(parts)

    def error(self, error: GatewayError) -> bytes:
        """What went wrong after the stream had begun."""
        return self._form.failed(error)

    def _begin(self, raw: Mapping[str, Any]) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._form.begin(raw)

    def _thinking(self, text: str) -> bytes:
        return b"" if self._request.reply.exclude_reasoning else self._grow("thinking", text)

    def _text(self, text: str) -> bytes:
        return self._grow("text", text)

    def _grow(self, kind: Literal["thinking", "text"], text: str) -> bytes:
        if not text:
            return b""
        opened = b""
        if self._open is None or self._open.kind != kind:
            opened = self._start(Block(kind, self._blocks))
        return opened + self._add(text)

    def _fragment(self, fragment: Mapping[str, Any]) -> bytes:
        """A part of a tool call as chat completions stream it."""
        index = fragment.get("index", 0)
        function = fragment.get("function") or {}
        opened = b""
        block = self._calls.get(index)
        if block is None:
            call_id = fragment.get("id") or _call_id()
            block = Block("call", self._blocks, call_id=call_id, name=function.get("name") or "")
            self._calls[index] = block
            opened = self._start(block)
        elif block is not self._open:
            raise UpstreamError(
                502,
                "The upstream went back to an earlier tool call, which this endpoint can't stream; "
                "ask without stream.",
            )
        return opened + self._add(function.get("arguments") or "")

    def _start(self, block: Block) -> bytes:
        ended = self._close()
        self._open = block
        self._blocks += 1
        return ended + self._form.opened(block)

    def _add(self, text: str) -> bytes:
        assert self._open is not None
        if not text:
            return b""
        self._open.pieces.append(text)
        return self._form.grew(self._open, text)

    def _close(self, *, complete: bool = True) -> bytes:
        block, self._open = self._open, None
        if block is None:
            return b""
        block.complete = complete
        return self._form.closed(block)


def blocks_of(request: RunRequest, sample: Sample) -> list[Block]:
    """A finished sample's blocks, for an unstreamed reply."""
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
