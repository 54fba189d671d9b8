"""Splits a model's text into thinking and answer while it streams.

The result depends on the text alone, never on how it is cut into chunks. A tag may be split
anywhere. Text that might still become a tag is held back until that is certain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Markup", "Piece", "ThinkSplitter", "ThinkingText", "split_thinking"]

Kind = Literal["reasoning", "content", "markup"]
Piece = tuple[Kind, str]

_FENCE_OPEN = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_FENCE_CLOSE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*\r?$")
_FENCE_CHARS = "`~"


@dataclass(frozen=True, slots=True)
class Markup:
    """The tags by which a model marks its thinking.

    `open` and `close` are the tags. `opened` says that the chat template has already written the
    opening tag, so that the reply starts inside the block. `answer` holds the tags around the
    answer, for families that write them.
    """

    open: str = "<think>"
    close: str = "</think>"
    opened: bool = False
    answer: tuple[str, str] | None = None


_DEFAULT = Markup()


class ThinkSplitter:
    """Splits one reply while it streams.

    `feed` returns pieces (kind, text) in order; the kinds are "reasoning", "content" and "markup".
    Together the pieces are exactly the text that was fed: tags, and the blank space around them,
    come out as "markup". So nothing is lost or doubled.

    The rules:

    - The first closing tag ends a block, wherever it stands. An opening tag within a block is
      thinking text, as in the engines' own parsers. Later blocks count again.
    - In the answer a tag is text inside a code fence (CommonMark) or directly after a backtick.
      A closing tag without a block is text too.
    - Without a closing tag the rest is thinking.
    """

    __slots__ = (
        "_buffer",
        "_close",
        "_fence",
        "_line",
        "_open",
        "_previous",
        "_start",
        "_template_opened",
        "closed",
        "thinking",
    )

    def __init__(self, markup: Markup | None = None) -> None:
        markup = markup or Markup()
        self._open, self._close = markup.open, markup.close
        self._template_opened = markup.opened
        self.thinking = markup.opened
        """Whether the text is inside a thinking block now."""
        self.closed = False
        """Whether a closing tag has ended a block."""
        self._buffer = ""  # text whose kind is open: a possible tag, or blank space before one
        self._start = True  # only blank space so far in this block, or in this answer
        self._line = ""  # the current answer line, as far as fences matter
        self._previous = ""
        self._fence = ""  # the run of ` or ~ that opened the current code fence

    @property
    def assumed(self) -> bool:
        """Whether the text counts as thinking only because the template opens a block: no tag was seen."""
        return self.thinking and self._template_opened and not self.closed

    def feed(self, text: str) -> list[Piece]:
        """Take the next text; return the pieces that are certain by now, possibly none."""
        if text and not self._buffer and not self._start:  # the usual chunk: plain text inside a part
            if self.thinking:
                if self._close[0] not in text and not text[-1].isspace():
                    return [("reasoning", text)]
            elif self._open[0] not in text and "\n" not in text:
                self._advance(text)
                return [("content", text)]
        self._buffer += text
        pieces: list[Piece] = []
        while self._buffer and (self._step_thinking(pieces) if self.thinking else self._step_answer(pieces)):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """End the reply; return the text that was held back, which can't become a tag any more."""
        rest, self._buffer = self._buffer, ""
        if not rest:
            return []
        return [("reasoning" if self.thinking else "content", rest)]

    def _step_thinking(self, pieces: list[Piece]) -> bool:
        """Handle one stretch of thinking; return whether the buffer may hold more to handle."""
        if self._start:
            stripped = self._buffer.lstrip()
            blank = len(self._buffer) - len(stripped)
            if self._template_opened and self._open.startswith(stripped[: len(self._open)]):
                if len(stripped) < len(self._open):
                    return False  # the model may be about to repeat the template's opening tag
                self._template_opened = False
                return self._take(pieces, "markup", blank + len(self._open))
            if blank:
                return self._take(pieces, "markup", blank)
            self._start = False
        end = self._buffer.find(self._close)
        closing = end >= 0
        if not closing:
            end = len(self._buffer) - _partial_tag_length(self._buffer, self._close)
        text = self._buffer[:end].rstrip()  # blank space before the closing tag is markup
        self._take(pieces, "reasoning", len(text))
        if not closing:
            return False
        self._take(pieces, "markup", end - len(text) + len(self._close))
        self.thinking, self.closed, self._start = False, True, True
        self._line = self._previous = self._fence = ""
        return True

    def _step_answer(self, pieces: list[Piece]) -> bool:
        """Handle one stretch of answer; return whether the buffer may hold more to handle."""
        if self._start:
            stripped = self._buffer.lstrip()
            blank = len(self._buffer) - len(stripped)
            if blank and self.closed:
                return self._take(pieces, "markup", blank)
            if self._open.startswith(stripped[: len(self._open)]):
                if len(stripped) < len(self._open):
                    return False
                return self._open_block(pieces, blank)
            self._start = False
        at = self._buffer.find(self._open)
        if at < 0:
            certain = len(self._buffer) - _partial_tag_length(self._buffer, self._open)
            self._advance(self._buffer[:certain])
            self._take(pieces, "content", certain)
            return False
        self._advance(self._buffer[:at])
        if self._literal():
            self._advance(self._open)
            return self._take(pieces, "content", at + len(self._open))
        self._take(pieces, "content", at)
        return self._open_block(pieces, 0)

    def _open_block(self, pieces: list[Piece], blank: int) -> bool:
        self.thinking, self._start, self._template_opened = True, True, False
        return self._take(pieces, "markup", blank + len(self._open))

    def _take(self, pieces: list[Piece], kind: Kind, count: int) -> bool:
        """Move the buffer's first `count` characters into a piece; always return True."""
        if count:
            pieces.append((kind, self._buffer[:count]))
            self._buffer = self._buffer[count:]
        return True

    def _advance(self, text: str) -> None:
        """Follow the answer's lines and code fences."""
        if not text:
            return
        self._previous = text[-1]
        *lines, rest = text.split("\n")
        for line in lines:
            self._end_line(self._line + line)
            self._line = ""
        # Only a line that may begin or end a fence is needed in full.
        if not self._line[3:] or self._line.lstrip(" ")[:1] in _FENCE_CHARS:
            self._line += rest

    def _end_line(self, line: str) -> None:
        if not self._fence:
            if opening := _FENCE_OPEN.match(line):
                self._fence = opening[1]
        elif (closing := _FENCE_CLOSE.match(line)) and closing[1].startswith(self._fence):
            self._fence = ""

    def _literal(self) -> bool:
        return bool(self._fence) or self._previous == "`" or _FENCE_OPEN.match(self._line) is not None


def _partial_tag_length(text: str, tag: str) -> int:
    """Return the length of the longest end of `text` that begins a tag without completing it."""
    for size in range(min(len(text), len(tag) - 1), 0, -1):
        if tag.startswith(text[-size:]):
            return size
    return 0


class ThinkingText:
    """One reply's thinking and answer as they grow.

    `feed` and `finish` return the new text as (thinking, answer). A blank line separates a second
    thinking block from the first, whether the reply is streamed or not.
    """

    __slots__ = (
        "_block",
        "_block_length",
        "_gap",
        "_markup",
        "_stray",
        "_wrapping",
        "content_parts",
        "reasoning_parts",
        "splitter",
    )

    def __init__(self, markup: Markup | None = None) -> None:
        self.splitter = ThinkSplitter(markup)
        self._wrapping = ThinkSplitter(Markup(*markup.answer)) if markup and markup.answer else None
        self._markup = markup
        self._stray: ThinkSplitter | None = None  # finds stray closing tags; few replies need it
        self.reasoning_parts: list[str] = []
        self.content_parts: list[str] = []
        self._gap = False
        self._block: list[str] = []  # the open block as it came, with its opening tag
        self._block_length = 0  # characters of thinking that it has added

    @property
    def reasoning(self) -> str:
        """Return all thinking so far."""
        return "".join(self.reasoning_parts)

    @property
    def content(self) -> str:
        """Return all answer text so far."""
        return "".join(self.content_parts)

    def feed(self, text: str) -> tuple[str, str]:
        """Take raw text; return the new (thinking, answer)."""
        pieces = self.splitter.feed(text)
        if len(pieces) == 1 and not self._gap:  # the usual chunk
            kind, piece = pieces[0]
            if kind == "reasoning":
                self.reasoning_parts.append(piece)
                self._block.append(piece)
                self._block_length += len(piece)
                return piece, ""
            if kind == "content" and self._wrapping is None:
                self.content_parts.append(piece)
                return "", piece
        return self._add(pieces)

    def feed_answer(self, text: str) -> str:
        """Take raw text that is answer whatever its tags say; return the new answer, without the tags."""
        inside = _without_markup(self.splitter.feed(text))
        return self._answer(_without_markup(self._strays().feed(inside)))

    def finish_answer(self) -> str:
        """End a reply whose last text was answer; return the text that was held back."""
        inside = _without_markup(self.splitter.finish())
        strays = self._strays()
        rest = _without_markup([*strays.feed(inside), *strays.finish()])
        return self._answer(rest) + self._unwrap_rest()

    def _strays(self) -> ThinkSplitter:
        if self._stray is None:
            markup = self._markup or Markup()
            self._stray = ThinkSplitter(Markup(markup.close, markup.open))
        return self._stray

    def add_split(self, reasoning: str, content: str) -> tuple[str, str]:
        """Take text that the engine has split already."""
        self.reasoning_parts.append(reasoning)
        self.content_parts.append(content)
        return reasoning, content

    def finish(self) -> tuple[str, str]:
        """End the reply; return the text that was held back."""
        reasoning, content = self._add(self.splitter.finish())
        return reasoning, content + self._unwrap_rest()

    def return_block(self) -> str:
        """Make the open block, which no tag has ended, part of the answer; return its text as it came."""
        text = "".join(self._block)
        if self._block_length:
            self.reasoning_parts = [self.reasoning[: -self._block_length]]
        self.content_parts.append(text)
        self._end_block()
        return text

    def _end_block(self) -> None:
        self._block.clear()
        self._block_length = 0

    def _unwrap_rest(self) -> str:
        rest = _without_markup(self._wrapping.finish()) if self._wrapping else ""
        self.content_parts.append(rest)
        return rest

    def _add(self, pieces: list[Piece]) -> tuple[str, str]:
        reasoning = content = ""
        close = (self._markup or _DEFAULT).close
        for kind, text in pieces:
            if kind == "content":
                content += text
                self._end_block()
            elif kind == "reasoning":
                thought = "\n\n" + text if self._gap else text
                reasoning += thought
                self._block.append(text)
                self._block_length += len(thought)
                self._gap = False
            else:
                self._gap = bool(reasoning or self.reasoning_parts)
                self._block.append(text)
                if text.endswith(close):
                    self._end_block()
        if reasoning:
            self.reasoning_parts.append(reasoning)
        return reasoning, self._answer(content)

    def _answer(self, content: str) -> str:
        """Add answer text and return it without the tags around the answer."""
        if content and self._wrapping is not None:
            content = _without_markup(self._wrapping.feed(content))
        if content:
            self.content_parts.append(content)
        return content


def _without_markup(pieces: list[Piece]) -> str:
    return "".join(piece for kind, piece in pieces if kind != "markup")


def split_thinking(text: str, markup: Markup | None = None) -> tuple[str, str]:
    """Return a whole reply's (thinking, answer)."""
    reply = ThinkingText(markup)
    reply.feed(text)
    reply.finish()
    return reply.reasoning, reply.content
