"""The text of one sample, as it reads and as it stands in the assistant's turn. Pure."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from gateway.upstreams.base import Chunk
from policies.prompts import LEAD_IN, WAIT, closing_text
from policies.thinking import Markup, ThinkingText, split_thinking

__all__ = ["FILED_AS_REASONING", "LISTED_CONTENT", "Continuation", "WrittenText"]

LISTED_CONTENT = "the upstream sent the content as a list of parts: their texts are the content"
"""The note where an engine's content was no text of its own."""

FILED_AS_REASONING = (
    "the upstream filed the answer as reasoning, although thinking is switched off: it is the content"
)
"""The note where the whole answer came in the field of the thinking."""


class Continuation(Enum):
    """Why an upstream request ends, so that another one continues from the text so far."""

    CLOSE = "close"
    """Thinking has reached its limit: the gateway writes the end tag and asks for the answer."""
    WAIT = "wait"
    """Thinking has ended too early (s1): "Wait" stands in place of the end tag."""
    ANSWER = "answer"
    """The answer begins, and from here on it has to follow a schema."""
    LEAD_IN = "lead in"
    """The model thought and then said nothing: the gateway writes the beginning of an answer."""


class WrittenText:
    """The text of one sample, as it reads and as it stands in the assistant's turn.

    `engine_splits`: in this upstream request the engine has separated thinking from answer itself.
    `held_back` is answer text that the next upstream request will write again. `filed`: the engine has filed
    all answer text so far as reasoning. `returned`: the last chunk has made answer of text that had
    counted as thinking.

    `splits`: the engine usually separates them, so text without a tag is shown as answer from the start.
    `thinking_off`: thinking is switched off, so reasoning without any content is the answer.
    """

    __slots__ = (
        "_gateway_opens",
        "_markup",
        "_splits",
        "_thinking_off",
        "_turn",
        "engine_splits",
        "filed",
        "held_back",
        "reading",
        "returned",
    )

    def __init__(self, markup: Markup, prefill: str, *, splits: bool, thinking_off: bool) -> None:
        self._markup = markup
        self._turn = [prefill]
        self._splits = splits and markup.opened
        self._thinking_off = thinking_off
        self.reading = ThinkingText(replace(markup, opened=False) if splits else markup)
        self.held_back = ""
        self.engine_splits = False
        self.filed = False
        self.returned = False
        self._gateway_opens = prefill != ""

    @property
    def assumed(self) -> bool:
        """Whether only the template makes thinking of the text: neither model nor gateway wrote a tag."""
        return self.reading.splitter.assumed and not self._gateway_opens

    @property
    def reasoning(self) -> str:
        """All thinking so far."""
        return "".join(self.reading.reasoning_parts)

    @property
    def content(self) -> str:
        """All answer text so far."""
        return "".join(self.reading.content_parts)

    def add(self, chunk: Chunk) -> tuple[str, str]:
        """Take a chunk of thinking, answer or both; return what is new as (thinking, answer)."""
        reasoning = content = ""
        if thought := chunk.reasoning:
            if self._thinking_off and (self.filed or not self.reading.content_parts):
                return self._add_filed(chunk)
            if not self.engine_splits:
                thought = thought.removeprefix(self._markup.open)  # some parsers leave the tag in
                if self.assumed and self.reading.reasoning_parts:  # the engine has called it an answer
                    content = self.reading.return_block()
                    self.returned = True
                self.restore_open_tag()
                self.reading.splitter.thinking = False  # the engine has taken the tags out
                self.engine_splits = True
            self._turn.append(thought)
            reasoning, _ = self.reading.add_split(thought, "")
        if chunk.content:
            if self.filed:
                self._file_as_thinking()
            self._turn.append(chunk.content)
            more, answer = self.reading.feed(chunk.content)
            reasoning, content = reasoning + more, content + answer
        return reasoning, content

    def _add_filed(self, chunk: Chunk) -> tuple[str, str]:
        """Take an answer in the field of the thinking."""
        text = chunk.reasoning
        self.reading.splitter.thinking = False
        self.filed = self.engine_splits = True
        self._turn.append(text)
        self.reading.content_parts.append(text)
        if not chunk.content:
            return "", text
        _, content = self.add(replace(chunk, reasoning=""))
        return "", text + content

    def _file_as_thinking(self) -> None:
        """Make thinking of the filed text after all: the engine has written an answer too."""
        self.reading.reasoning_parts += self.reading.content_parts
        self.reading.content_parts.clear()
        self.filed = self._thinking_off = False

    def end(self, *, well: bool) -> tuple[str, str, bool]:
        """End the reply; return the text that was still held back, and whether a block has become answer.

        `well`: the reply came to its own end, or nothing may move without a tag. Then thinking that no tag
        has ended is the answer, and all of it is returned as answer text, as the engine gave it.
        """
        reading = self.reading
        reasoning, content = reading.finish()
        if well and reading.splitter.thinking and not self.engine_splits:
            return "", content + reading.return_block(), True
        return reasoning, content, False

    def split_late(self) -> bool:
        """Split the text at a lone end tag, where the engine usually does; return whether there was one."""
        text = self.content
        end = text.find(self._markup.close)
        if not self._splits or self.engine_splits or end < 0 or text[:end].count("`") % 2:
            return False
        reasoning, content = split_thinking(text, self._markup)
        self.reading.reasoning_parts, self.reading.content_parts = [reasoning], [content]
        return True

    def restore_open_tag(self) -> None:
        """Put the opening tag, which the engine or the gateway has taken out, where it stood."""
        if not self._markup.opened and not self.engine_splits and not self.reading.splitter.thinking:
            self._turn.append(self._markup.open + "\n")

    def resume(self, continuation: Continuation, *, open_tag: bool, limit_reached: bool) -> str:
        """Get ready for the next upstream request; return the assistant's turn up to there.

        `open_tag`: the turn begins with the opening tag, which the template would have written.
        """
        markup = self._markup
        unread = "".join(text for _, text in self.reading.splitter.finish())  # blank space, or part of a tag
        turn = "".join(self._turn).removesuffix(unread).removesuffix(self.held_back)
        if open_tag:
            turn = f"{markup.open}\n{turn}"
        reasoning, content = self.reasoning, self.content.removesuffix(self.held_back)
        waits = continuation is Continuation.WAIT
        if continuation is Continuation.CLOSE:
            turn += closing_text(markup, limit_reached=limit_reached)
        elif waits:
            turn = turn.rsplit(markup.close, 1)[0].rstrip() + WAIT
            reasoning += WAIT
        elif continuation is Continuation.LEAD_IN:
            turn = f"{turn.rstrip()}\n\n{LEAD_IN}"
        self.reading = ThinkingText(replace(markup, opened=waits))
        self.reading.add_split(reasoning, content)
        self.reading.splitter.closed = not waits  # blank space before the answer is not part of it
        self._turn = [turn]
        self.held_back = ""
        self.engine_splits = False
        self._gateway_opens = True
        return turn
