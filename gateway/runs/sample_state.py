"""The bookkeeping of one sample while it is drawn: what it has said, what it cost, what to do next. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

from gateway.runs.events import Delta, Enforced
from gateway.upstreams.base import Chunk, Prompt
from gateway.upstreams.merging import merge
from policies.limiter import Decision, Limiter
from policies.prompts import LEAD_IN, WAIT, closing_text
from policies.thinking import Markup, ThinkingText
from scorers.confidence import ConfidenceWindow, compact_tokens, logged_tokens
from scorers.types import Sample, Usage

__all__ = [
    "TEXT_FIELDS",
    "FinishedSample",
    "SampleState",
    "Terms",
    "TokenCounts",
    "Turn",
    "envelope_of",
    "estimate_tokens",
    "tokens_before",
]

TEXT_FIELDS = frozenset({"content", "reasoning", "reasoning_content"})
_CHOICE_OWN = frozenset({"index", "delta", "message", "finish_reason"})
_ENVELOPE_OWN = frozenset({"choices", "usage", "timings", "object"})
_LIMIT_TOLERANCE = 2  # engines may count the tag, or a line feed that the template writes after it
_CUT = Decision.CUT  # looked up once: that costs as much as judging a chunk
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_CHARACTERS_PER_TOKEN = 4  # only where the engine counts nothing; labelled as an estimate


def tokens_before(ids: Sequence[int], part: Sequence[int]) -> int:
    """How many ids come before `part`; all of them where it isn't there."""
    size = len(part)
    places = (place for place in range(len(ids) - size + 1) if list(ids[place : place + size]) == list(part))
    return next(places, len(ids))


def estimate_tokens(text: str) -> int:
    """Tokens of a text that no engine has counted: at least one."""
    return max(1, round(len(text) / _CHARACTERS_PER_TOKEN))


def envelope_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """An upstream reply's top-level fields other than the choices and the counts."""
    return {key: value for key, value in body.items() if key not in _ENVELOPE_OWN}


class Turn(Enum):
    """Why an upstream request is ended, to go on with another from what has been said so far."""

    CLOSE = "close"
    """Thinking has reached its limit: the end tag is written and the answer asked for."""
    THINK_ON = "think on"
    """Thinking has ended too early (s1): "Wait" stands in place of the end tag."""
    ANSWER = "answer"
    """The answer begins, and from here on it has to keep to a schema."""
    LEAD_IN = "lead in"
    """The model thought and then said nothing: the beginning of an answer is written for it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How one sample's thinking is limited and read.

    `limit` is in thinking tokens (None: not limited), `total` caps thinking and answer
    together. `native`: the engine has been asked to keep the limit itself. `waits` bounds
    how often an early end is put off. `staged`: the answer has to be a request of its own,
    because its schema would suppress the thinking. `window`: the confidence is watched over
    so many tokens (None: not at all), and of the logprobs themselves all is kept only where
    `logged`. `prefill` stands in the assistant's turn
    before the model begins; `prefix` is the same with what the template would have written.
    """

    markup: Markup = Markup()
    limit: int | None = None
    total: int | None = None
    native: bool = False
    waits: int = 0
    staged: bool = False
    prefill: str = ""
    prefix: str = ""
    window: int | None = None
    logged: bool = False


@dataclass(slots=True)
class TokenCounts:
    """Tokens of one sample so far, readable while it runs.

    `prompt` is the first upstream request's, `upstream_prompt` the sum over all of them.
    `lowest` is the lowest windowed confidence so far, `confidence` that of the whole, which
    short samples have as well; None where no logprobs are known.
    """

    completion: int = 0
    reasoning: int = 0
    prompt: int = 0
    upstream_prompt: int = 0
    estimated: bool = False
    lowest: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class FinishedSample:
    """A finished sample.

    `enforced` says who kept its limit: the engine ("native"), or the gateway ("forced");
    `envelope` holds the upstream reply's other top-level fields, `usage` the engine's own
    word where the sample was one request's only choice.
    """

    sample: Sample
    tally: TokenCounts
    enforced: Enforced = "none"
    envelope: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)


class SampleState:
    """One choice of a streamed reply as it grows, over all upstream requests that it takes.

    `first`: of the choices that share a request, this one counts the prompt. `splits`: the
    engine is known to tell thinking from answer itself, so that content is never thinking.
    `close`: the end tag's token ids, where the chunks come with theirs.
    """

    def __init__(
        self,
        index: int,
        terms: Terms,
        tally: TokenCounts,
        *,
        first: bool = True,
        splits: bool = False,
        close: Sequence[int] = (),
    ) -> None:
        self.index = index
        self._first = first
        self._close = close
        self.tally = tally
        self.text = ThinkingText(replace(terms.markup, opened=False) if splits else terms.markup)
        self.raw: Mapping[str, Any] = {}
        self.forced = False
        self._terms = terms
        self._limited = terms.limit is not None
        self._bends = terms.waits > 0 or terms.staged  # the thinking's own end may call for another request
        # An engine that keeps the limit itself closes the block right after the last token.
        self._limiter = Limiter(terms.limit, terms.waits, slack=1 if terms.native else 0)
        self._message: dict[str, Any] = {"role": "assistant"}
        self._choice: dict[str, Any] = {}
        self._written = [terms.prefill]  # all that stands in the assistant's turn
        self._held_back = ""  # answer text that the next request will write again
        self._answering = False
        self._led_in = False
        self._cut = False  # text beyond the limit has been cut off
        self._finish_reason: str | None = None
        self._engine_splits = False
        self._counted = 0  # tokens of this upstream request, as last told
        self._before = 0  # tokens of earlier upstream requests
        self._prompt = 0  # prompt of this upstream request, as last told
        self._usage: Mapping[str, Any] = {}
        self._confidence = None if terms.window is None else ConfidenceWindow(terms.window)

    @property
    def overrun(self) -> bool:
        """Whether the gateway had to end the thinking although the engine had been asked to."""
        limit = self._terms.limit
        passed = self._cut or (limit is not None and self._limiter.used > limit)
        return self._terms.native and self.forced and passed

    @property
    def finished(self) -> bool:
        """Whether the engine has ended this choice."""
        return self._finish_reason is not None

    @property
    def kept_natively(self) -> bool:
        """Whether the engine was seen to end the thinking itself when the limit was reached."""
        limit = self._terms.limit
        reached = limit is not None and 0 < limit <= self._limiter.used + _LIMIT_TOLERANCE
        return self._terms.native and reached and not self.forced and bool(self.text.content)

    def room(self, chunk: Chunk) -> tuple[int, int] | None:
        """Where a chunk holds more thinking than the limit allows: how many of its how many tokens fit.

        Engines put many tokens into one chunk when a reader lags behind.
        """
        limit = self._terms.limit
        if limit is None or self._answering or chunk.tokens is None:
            return None
        tokens, left = chunk.tokens - self._counted, limit - self._limiter.used
        if tokens <= left:
            return None
        text = self.text.splitter
        if not (chunk.reasoning or text.thinking or self._terms.markup.open in chunk.content):
            return None
        thought = self._thought(chunk, tokens)
        return (max(left, 0), tokens) if thought > left else None

    def feed(self, chunk: Chunk) -> tuple[Delta | None, Turn | None]:
        """Takes one chunk: what is new in it, and whether to go on otherwise."""
        self.raw = chunk.raw
        if chunk.finish_reason is not None:
            self._finish_reason = chunk.finish_reason
        other = self._keep(chunk.choice)
        self._cut = self._cut or chunk.dropped > 0
        text = chunk.reasoning + chunk.content
        if chunk.dropped and not text:  # not even one token of thinking was allowed
            self._count(chunk, "")
            self._open()
            return None, Turn.CLOSE
        if not text:
            if chunk.tokens is not None:  # a token without text, such as the end of the reply
                self._count(chunk, "")
            return (Delta(self.index, "", "", chunk.raw, chunk.choice) if other else None), None
        by_engine = bool(chunk.reasoning and not chunk.content)
        splitter = self.text.splitter
        was_thinking = by_engine or splitter.thinking
        reasoning, content = self._split(chunk)
        thinking = by_engine or splitter.thinking
        tokens = self._count(chunk, text)
        thought = 0
        if (reasoning or (was_thinking and thinking)) and not self._answering:
            thought = self._thought(chunk, tokens)
            self.tally.reasoning += thought
        turn = None
        if self._limited and not self._answering:
            turn = self._judge(thought, thinking, content)
            if turn is not None and turn is not Turn.CLOSE:
                self._held_back, content = content, ""
        if reasoning or content or other:
            return Delta(self.index, reasoning, content, chunk.raw, chunk.choice if other else _NOTHING), turn
        return None, turn

    def use(self, usage: Mapping[str, Any], *, alone: bool) -> None:
        """The engine's own usage; `alone`: this is the request's only choice, so the counts are its own."""
        prompt = usage.get("prompt_tokens") or 0
        if not self.tally.prompt:  # an earlier request, cut before it said so, had a shorter one
            self.tally.prompt = max(0, prompt - self._before)
        if self._first:
            self.tally.upstream_prompt += prompt - self._prompt
            self._prompt = prompt
        completion = usage.get("completion_tokens")
        if completion is None or not alone:
            return
        if self.tally.estimated and self._counted:  # keep the estimate's proportions
            told = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
            if not self.forced and self.tally.reasoning:
                self.tally.reasoning = told or round(self.tally.reasoning * completion / self._counted)
            self.tally.estimated = bool(self.tally.reasoning and not told)
        self._counted = completion
        self.tally.completion = self._before + completion
        self._usage = usage if not self._before else {}

    def unfinished(self) -> Turn | None:
        """What is missing at the reply's end, where a limit is kept: more thinking, its end, or an answer."""
        if self._terms.limit is None or self._message.get("tool_calls"):
            return None
        blank = not self.text.content.strip()
        if not self._answering and (self.text.splitter.thinking or (self._engine_splits and blank)):
            return Turn.THINK_ON if self._limiter.close() is Decision.WAIT else Turn.CLOSE
        silent = blank and self._finish_reason == "stop" and (self.forced or self.text.reasoning)
        if silent and not self._led_in and not self._terms.staged:
            self._led_in = True
            return Turn.LEAD_IN
        return None

    def resume(self, turn: Turn, prompt: Prompt | None) -> str:
        """Gets ready for the next upstream request; returns what the assistant has said up to there."""
        markup = self._terms.markup
        held = "".join(text for _, text in self.text.splitter.finish())  # blank space, or a piece of a tag
        written = "".join(self._written).removesuffix(held).removesuffix(self._held_back)
        if prompt is None and markup.opened and not self._before and not self._terms.prefill:
            written = f"{markup.open}\n{written}"
        answered = self.text.content.removesuffix(self._held_back)
        thought = self.text.reasoning
        self._held_back = ""
        thinking_on = turn is Turn.THINK_ON
        if turn is Turn.CLOSE:
            limit_reached = 0 < (self._limiter.limit or 0) <= self._limiter.used
            written += closing_text(markup, limit_reached=limit_reached)
            self.forced = True
        elif thinking_on:
            written = written.rsplit(markup.close, 1)[0].rstrip() + WAIT
            thought += WAIT
        elif turn is Turn.LEAD_IN:
            written = f"{written.rstrip()}\n\n{LEAD_IN}"
        self._answering = not thinking_on
        self.text = ThinkingText(replace(markup, opened=thinking_on))
        self.text.add_split(thought, answered)
        self.text.splitter.closed = not thinking_on  # blank space before the answer is dressing
        self._written = [written]
        self._engine_splits = False
        self._finish_reason = None
        self._before, self._counted, self._prompt = self.tally.completion, 0, 0
        return written

    def end(self) -> Delta | None:
        """What had been held back, now that no more text comes."""
        reasoning, content = ("", self.text.finish_answer()) if self._answering else self.text.finish()
        return Delta(self.index, reasoning, content, self.raw, {}) if reasoning or content else None

    def drawn(self) -> FinishedSample:
        """The finished sample."""
        tally = self.tally
        message, choice = dict(self._message), dict(self._choice)
        sample = Sample(
            self.index,
            self.text.content,
            self.text.reasoning,
            self._finish_reason or "stop",
            Usage(tally.prompt, tally.completion, tally.reasoning, tally.estimated),
            tuple(message.pop("tool_calls", None) or ()),
            choice.pop("logprobs", None),
            {"message": message, "choice": choice},
        )
        enforced: Enforced = "none"
        if self._terms.limit is not None:
            enforced = "native" if self._terms.native and not self.overrun else "forced"
        return FinishedSample(sample, tally, enforced, envelope_of(self.raw), self._usage)

    def _judge(self, thought: int, thinking: bool, content: str) -> Turn | None:
        """Whether the limit, an early end, or a schema's answer calls for another upstream request."""
        if self._limiter.feed(thought, thinking) is _CUT:
            return Turn.CLOSE
        if thinking or not self._bends:
            return None
        closed = self.text.splitter.closed or (self._engine_splits and bool(content))
        if closed and self._limiter.waits and self._limiter.close() is Decision.WAIT:
            return Turn.THINK_ON
        return Turn.ANSWER if content and self._terms.staged else None

    def _thought(self, chunk: Chunk, tokens: int) -> int:
        """How many of a thinking chunk's tokens come before its end tag."""
        if chunk.dropped:
            return tokens - chunk.dropped
        if chunk.ids and self._close:
            return tokens_before(chunk.ids, self._close)
        end = len(chunk.reasoning) or chunk.content.find(self._terms.markup.close)
        text = len(chunk.reasoning + chunk.content)
        return tokens if end < 0 or end == text else -(-tokens * end // text)  # a part of a token is one

    def _split(self, chunk: Chunk) -> tuple[str, str]:
        if self._answering:  # whatever comes now is answer, in whichever field
            return "", self.text.feed_answer(chunk.reasoning + chunk.content)
        reasoning = content = ""
        if thought := chunk.reasoning:
            if not self._engine_splits:
                thought = thought.removeprefix(self._terms.markup.open)  # some parsers leave the tag in
                self._open()
                self.text.splitter.thinking = False  # the engine has taken the tags out
                self._engine_splits = True
            self._written.append(thought)
            reasoning, _ = self.text.add_split(thought, "")
        if chunk.content:
            self._written.append(chunk.content)
            more, content = self.text.feed(chunk.content)
            reasoning += more
        return reasoning, content

    def _open(self) -> None:
        """Puts the opening tag, which the engine or the gateway has taken out, where it stood."""
        if not self._terms.markup.opened and not self._engine_splits and not self.text.splitter.thinking:
            self._written.append(self._terms.markup.open + "\n")

    def _keep(self, choice: Mapping[str, Any]) -> bool:
        """Remembers the fields that aren't text (tool calls, logprobs, vendors'); whether there were any."""
        found = False
        for key, value in choice.items():
            if value is None or key in _CHOICE_OWN:
                continue
            if key == "logprobs" and self._confidence is not None:
                self._choice[key] = merge(self._choice.get(key), self._watch(value), key)
            else:
                self._choice[key] = merge(self._choice.get(key), value, key)
            found = True
        for key, value in (choice.get("delta") or {}).items():
            if key in TEXT_FIELDS or value is None:
                continue
            self._message[key] = merge(self._message.get(key), value, key)
            found = True
        return found

    def _watch(self, logprobs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Feeds the confidence; what is to be kept of the logprobs, which in full take 10 KB a token."""
        content = logged_tokens(logprobs)
        if self._confidence is not None:
            self.tally.lowest = self._confidence.feed(content)
            self.tally.confidence = self._confidence.lowest_or_mean
        return logprobs if self._terms.logged else {"content": compact_tokens(content)}

    def _count(self, chunk: Chunk, text: str) -> int:
        """The tokens in this chunk: the engine's count, else an estimate of at least one."""
        if chunk.tokens is not None:
            tokens, self._counted = max(0, chunk.tokens - self._counted), chunk.tokens
        else:
            tokens = estimate_tokens(text)
            self._counted += tokens
            self.tally.estimated = True
        self.tally.completion = self._before + self._counted
        return tokens
