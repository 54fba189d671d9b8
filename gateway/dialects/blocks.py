"""Write a reply as a sequence of blocks (thinking, text, tool calls), for Responses and Messages.

Both dialects open, extend and close one block after the other. This module keeps the sequence;
a `BlockFormat` writes the dialect's own events. Engines may write several tool calls in turns. Then the
first call that is not complete streams, and the blocks behind it wait.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import orjson

from gateway.dialects.base import CORRECTION
from gateway.dialects.scaling import progress_report, reported
from gateway.dialects.sse import COMMENT
from gateway.errors import GatewayError, UpstreamError
from gateway.runs.events import Aside, Delta, Progress, RunResult
from gateway.runs.request import RunRequest
from scorers.types import Sample

__all__ = ["Block", "BlockFormat", "BlockStream", "blocks_of", "refusal_of"]


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
        """End the reply; `scaling` is the report as a field, or empty."""
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
        self._queue: list[Block] = []  # blocks that are not closed; the first one is open
        self._blocks = 0
        self._calls: dict[int, Block] = {}
        self._unopened: Block | None = None  # a call without arguments, whose name may still grow
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
        refusal = (delta.choice.get("delta") or {}).get("refusal") or ""
        if not (delta.reasoning or delta.content or refusal or calls):
            return b""
        if self._request.votes:
            self._shown_live = delta.index
            self._live_length += len(delta.content + refusal)
        parts = [self._begin(delta.event), self._thinking(delta.reasoning)]
        parts.append(self._text(delta.content + refusal))
        parts += [self._fragment(fragment) for fragment in calls]
        return b"".join(parts)

    def aside(self, aside: Aside) -> bytes:
        """Write nothing: the dialect has no place for such an event."""
        return b""

    def heartbeat(self) -> bytes:
        """Write a sign of life; a comment before the start of the reply, which clients expect first."""
        return self._format.heartbeat() if self._started else COMMENT

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
            parts += [self._thinking(sample.reasoning), self._text(sample.content + refusal_of(sample))]
            parts += [self._fragment({**call, "index": i}) for i, call in enumerate(sample.tool_calls)]
        parts.append(self._close_all(complete=not sample.truncated))
        parts.append(self._format.end(result, reported(self._request, result, **revised)))
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
        start = self._open_call()
        if not self._queue or self._queue[-1].kind != kind:
            return start + self._append(Block(kind, self._blocks), text)
        return start + self._extend(self._queue[-1], text)

    def _fragment(self, fragment: Mapping[str, Any]) -> bytes:
        """Write a part of a tool call, as chat completions stream it."""
        index = fragment.get("index", 0)
        function = fragment.get("function") or {}
        name, arguments = function.get("name") or "", function.get("arguments") or ""
        block = self._calls.get(index)
        start = b""
        if block is None:
            start = self._open_call()
            block = Block("call", self._blocks, call_id=fragment.get("id") or _call_id())
            self._calls[index] = self._unopened = block
        if block is self._unopened:
            block.name += name
            start += self._open_call() if arguments else b""
        return start + self._extend(block, arguments)

    def _open_call(self) -> bytes:
        """Begin the call that waits for the rest of its name."""
        block, self._unopened = self._unopened, None
        return b"" if block is None else self._append(block, "")

    def _append(self, block: Block, text: str) -> bytes:
        """Begin a block behind all others."""
        self._blocks += 1
        self._queue.append(block)
        start = self._format.open(block) if len(self._queue) == 1 else self._advance()
        return start + self._extend(block, text)

    def _extend(self, block: Block, text: str) -> bytes:
        """Add text to a block; it is written when the block is the first."""
        if not text:
            return b""
        first = self._queue[0]
        if block.index < first.index:
            if not text.strip():
                return b""
            raise UpstreamError(502, "The upstream added to a tool call that was complete.")
        if block is not first:
            block.pieces.append(text)
            return b""
        written = self._extend_first(block, text)
        return written if len(self._queue) == 1 else written + self._advance()

    def _advance(self) -> bytes:
        """Close the first block if it is complete and another one waits; open that one."""
        parts = []
        while len(self._queue) > 1 and _is_complete(self._queue[0]):
            parts += [self._format.close(self._queue.pop(0)), self._open_first()]
        return b"".join(parts)

    def _open_first(self) -> bytes:
        """Open the first block and write the text that it has already."""
        block = self._queue[0]
        text, block.pieces = block.text, []
        return self._format.open(block) + self._extend_first(block, text)

    def _extend_first(self, block: Block, text: str) -> bytes:
        if not text:
            return b""
        block.pieces.append(text)
        return self._format.extend(block, text)

    def _close_all(self, *, complete: bool) -> bytes:
        parts = [self._open_call()]
        while self._queue:
            block = self._queue.pop(0)
            block.complete = complete or bool(self._queue)
            parts.append(self._format.close(block))
            if self._queue:
                parts.append(self._open_first())
        return b"".join(parts)


def _is_complete(block: Block) -> bool:
    """Tell whether nothing can follow in a block, now that another one has begun."""
    if block.kind != "call":
        return True
    if not block.text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(orjson.loads(block.text), dict)
    except orjson.JSONDecodeError:
        return False


def blocks_of(request: RunRequest, sample: Sample) -> list[Block]:
    """Return a finished sample's blocks, for an unstreamed reply."""
    blocks: list[Block] = []
    if sample.reasoning and not request.reply.exclude_reasoning:
        blocks.append(Block("thinking", 0, [sample.reasoning]))
    if text := sample.content + refusal_of(sample):
        blocks.append(Block("text", len(blocks), [text]))
    for call in sample.tool_calls:
        function = call.get("function") or {}
        arguments, name = function.get("arguments") or "", function.get("name") or ""
        blocks.append(Block("call", len(blocks), [arguments], call.get("id") or _call_id(), name))
    if blocks:
        blocks[-1].complete = not sample.truncated
    return blocks


def refusal_of(sample: Sample) -> str:
    """Return the words in which the model refused to answer (OpenAI's `refusal`), usually none."""
    refusal = (sample.extra.get("message") or {}).get("refusal")
    return refusal if isinstance(refusal, str) else ""


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex}"
