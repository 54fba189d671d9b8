"""One sample while it is written: its phase, its text, its tokens, and when to stop the request. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

from gateway.errors import UpstreamError
from gateway.runs.events import Delta, Enforced, FinishedSample, TokenCounts
from gateway.runs.sample_plan import SamplePlan
from gateway.runs.written_text import FILED_AS_REASONING, LISTED_CONTENT, Continuation, WrittenText
from gateway.upstreams.base import Chunk, Prompt
from gateway.upstreams.merging import merge
from policies.limiter import Limiter
from scorers.confidence import ConfidenceWindow, compact_tokens, logged_tokens
from scorers.types import Sample, Usage

__all__ = [
    "TEXT_FIELDS",
    "Overfull",
    "Phase",
    "SampleState",
    "ended_well",
    "envelope_of",
    "estimate_tokens",
    "tokens_before",
    "unfinished",
]

TEXT_FIELDS = frozenset({"content", "reasoning", "reasoning_content"})
_CHOICE_OWN = frozenset({"index", "delta", "message", "finish_reason"})
_CHOICE_USUAL = _CHOICE_OWN | {"logprobs"}  # in most chunks, and mostly null
_ENVELOPE_OWN = frozenset({"choices", "usage", "timings", "object"})
_LIMIT_TOLERANCE = 2  # engines may count the tag, or a line feed that the template writes after it
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_CHARACTERS_PER_TOKEN = 4  # only where the engine counts nothing; labelled as an estimate


class Phase(Enum):
    """How new text of a sample is read."""

    THINKING = "thinking"
    """The model may think. Its tags, or the engine, separate thinking from answer."""
    ANSWERING = "answering"
    """The gateway has ended the thinking: whatever comes is answer."""
    LED_IN = "led in"
    """The same, after a beginning of an answer that the gateway has written."""


_THINKING = Phase.THINKING


class Overfull(NamedTuple):
    """A chunk with more thinking than the limit allows: how many of its tokens fit, and how many it has."""

    fit: int
    tokens: int


def tokens_before(ids: Sequence[int], part: Sequence[int]) -> int:
    """Count the ids before `part`; all of them where it isn't there."""
    size = len(part)
    indices = (index for index in range(len(ids) - size + 1) if list(ids[index : index + size]) == list(part))
    return next(indices, len(ids))


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text that no engine has counted: at least one."""
    return max(1, round(len(text) / _CHARACTERS_PER_TOKEN))


def ended_well(finish_reason: str | None) -> bool:
    """Tell whether a reply came to its own end, rather than to a token limit."""
    return finish_reason is not None and finish_reason != "length"


def unfinished() -> UpstreamError:
    """Return the error of a reply that ended without a finish reason: nobody knows whether it is whole."""
    return UpstreamError(502, "The upstream ended its reply without a finish reason.")


def envelope_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an upstream reply's top-level fields other than the choices and the counts."""
    return {key: value for key, value in body.items() if key not in _ENVELOPE_OWN}


class TokenAccount:
    """The tokens of one sample, over all the upstream requests that it takes.

    `shares_request`: other choices share the upstream request, so that its usage is not this sample's.
    `counts_prompt`: of the choices that share a request, this one counts the prompt.
    """

    __slots__ = ("_counts_prompt", "_earlier", "_prompt", "_shares_request", "counted", "counts", "usage")

    def __init__(self, counts: TokenCounts, *, shares_request: bool, counts_prompt: bool) -> None:
        self.counts = counts
        self._shares_request = shares_request
        self._counts_prompt = counts_prompt
        self.counted = 0  # tokens of this upstream request so far
        self._earlier = 0  # tokens of earlier upstream requests
        self._prompt = 0  # prompt tokens of this upstream request, as last reported
        self.usage: Mapping[str, Any] = {}

    @property
    def continues(self) -> bool:
        """Whether an earlier upstream request has written a part of the sample."""
        return self._earlier > 0

    def count(self, chunk: Chunk, text: str) -> int:
        """Return the tokens in a chunk: the engine's count, else an estimate of at least one."""
        if chunk.tokens is not None:
            tokens = max(0, chunk.tokens - self.counted)
            self.counted = chunk.tokens
        else:
            tokens = estimate_tokens(text)
            self.counted += tokens
            self.counts.estimated = True
        self.counts.completion = self._earlier + self.counted
        return tokens

    def use(self, usage: Mapping[str, Any], *, forced: bool) -> None:
        """Take the engine's own usage; `forced`: the gateway has ended the thinking."""
        counts = self.counts
        prompt = usage.get("prompt_tokens") or 0
        if not counts.prompt:  # an earlier request, cut before it said so, had a shorter one
            counts.prompt = max(0, prompt - self._earlier)
        if self._counts_prompt:
            counts.upstream_prompt += prompt - self._prompt
            self._prompt = prompt
        completion = usage.get("completion_tokens")
        if completion is None or self._shares_request:
            return
        if counts.estimated and self.counted:  # keep the estimate's proportions
            reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
            if not forced and counts.reasoning:
                counts.reasoning = reasoning or round(counts.reasoning * completion / self.counted)
            counts.estimated = bool(counts.reasoning and not reasoning)
        self.counted = completion
        counts.completion = self._earlier + completion
        self.usage = {} if self._earlier else usage

    def start_request(self) -> None:
        """Begin to count another upstream request."""
        self._earlier, self.counted, self._prompt = self.counts.completion, 0, 0


class SampleState:
    """One choice of a streamed reply while it is written, over all upstream requests that it takes.

    `first`: of the choices that share a request, this one counts the prompt. `close_ids` are the end tag's
    token ids, where the chunks carry theirs. After `feed`, `pause` says whether to leave the request: a chunk
    has to be cut and fed again (`Overfull`), or another request continues (`Continuation`).
    """

    def __init__(
        self,
        index: int,
        plan: SamplePlan,
        counts: TokenCounts,
        *,
        alone: bool = True,
        first: bool = True,
        close_ids: Sequence[int] = (),
    ) -> None:
        self.index = index
        self.phase = Phase.THINKING
        self.pause: Continuation | Overfull | None = None
        self.finish_reason: str | None = None
        self.event: Mapping[str, Any] = {}
        self.forced = False  # the gateway has ended the thinking
        self.account = TokenAccount(counts, shares_request=not alone, counts_prompt=first)
        self.text = WrittenText(
            plan.markup,
            plan.prefill,
            splits=plan.traits.splits_thinking,
            thinking_off=plan.thinking_off and plan.limit != 0,
        )
        self._plan = plan
        self._close_ids = close_ids
        # An engine that enforces the limit itself closes the block right after the last token.
        self._limiter = (
            None if plan.limit is None else Limiter(plan.limit, plan.waits, slack=1 if plan.native else 0)
        )
        self._pauses_at_end = plan.waits > 0 or plan.schema is not None
        self._cut = False  # text beyond the limit was cut off
        self._message: dict[str, Any] = {"role": "assistant"}
        self._choice: dict[str, Any] = {}
        self._notes: tuple[str, ...] = ()
        self._ending: Mapping[str, Any] = {}  # the choice of the chunk with the finish reason
        self._confidence = None if plan.window is None else ConfidenceWindow(plan.window)

    def feed(self, chunk: Chunk) -> Delta | None:
        """Take one chunk; return what is new in it, if anything."""
        if self._limiter is not None and chunk.tokens is not None:
            self.pause = None if chunk.dropped else self._overfull(chunk, self._limiter)
            if self.pause is not None:
                return None
        self.event = chunk.event
        choice = chunk.choice
        if chunk.finish_reason is not None:
            self._take_ending(chunk)
        fields = not (_CHOICE_USUAL.issuperset(choice) and TEXT_FIELDS.issuperset(choice.get("delta") or ()))
        if fields or choice.get("logprobs") is not None:
            fields = self._keep_fields(choice)
        text = chunk.reasoning + chunk.content
        reasoning = content = ""
        if not text:
            self._take_empty(chunk)
            fields = fields and not chunk.dropped
        elif self.phase is _THINKING:
            reasoning, content = self._take_thinking(chunk, text)
        else:
            self.account.count(chunk, text)
            content = self.text.reading.feed_answer(text)
        if chunk.usage is not None and self.pause is None:
            self.account.use(chunk.usage, forced=self.forced)
        if self._plan.verbatim:
            return Delta(self.index, reasoning, content, chunk.event, choice)
        if reasoning or content or fields:
            return Delta(self.index, reasoning, content, chunk.event, choice if fields else _NOTHING)
        return None

    def _take_ending(self, chunk: Chunk) -> None:
        """Take the chunk with the finish reason, which may have text too."""
        self.finish_reason = chunk.finish_reason
        self._ending = chunk.choice
        if chunk.listed:
            self._notes = (LISTED_CONTENT,)

    def use(self, chunk: Chunk) -> None:
        """Take the usage of a chunk that follows the end of the reply."""
        if chunk.usage:
            self.account.use(chunk.usage, forced=self.forced)

    def _take_empty(self, chunk: Chunk) -> None:
        """Take a chunk without text: the end of the reply, or one of which not a token was allowed."""
        if chunk.dropped:
            self._cut = True
            self.account.count(chunk, "")
            self.text.restore_open_tag()
            self.pause = Continuation.CLOSE
        elif chunk.tokens is not None:
            self.account.count(chunk, "")

    def _take_thinking(self, chunk: Chunk, text: str) -> tuple[str, str]:
        """Take text while the model may think; return what is new as (thinking, answer)."""
        splitter = self.text.reading.splitter
        was_thinking, was_filed = splitter.thinking, self.text.filed
        reasoning, content = self.text.add(chunk)
        if was_filed and not self.text.filed:  # it was thinking after all
            self.account.counts.reasoning = self.account.counts.completion
        elif self.text.returned:  # it was no thinking after all
            self.text.returned = False
            self.account.counts.reasoning = 0
            if self._limiter is not None:
                self._limiter.used = 0
        split_by_engine = bool(chunk.reasoning and not chunk.content and not self.text.filed)
        was_thinking, thinking = split_by_engine or was_thinking, split_by_engine or splitter.thinking
        tokens = self.account.count(chunk, text)
        thought = 0
        if reasoning or (was_thinking and thinking):
            thought = self._thinking_tokens(chunk, tokens)
            self.account.counts.reasoning += thought
        limiter = self._limiter
        if limiter is None:
            return reasoning, content
        self._cut = self._cut or chunk.dropped > 0
        limiter.used += thought
        if thinking:
            if limiter.used >= limiter.limit and limiter.must_cut():  # below the limit, nothing to decide
                self.pause = Continuation.CLOSE
        elif self._pauses_at_end:
            self.pause = self._pause_at_end(content, limiter)
            if self.pause is not None:
                self.text.held_back, content = content, ""
        return reasoning, content

    def _pause_at_end(self, content: str, limiter: Limiter) -> Continuation | None:
        """Return whether an early end of thinking, or an answer with a schema, calls for another request."""
        closed = self.text.reading.splitter.closed or (
            self.text.engine_splits and bool(content) and not self.text.filed
        )
        if closed and limiter.must_wait():
            return Continuation.WAIT
        return Continuation.ANSWER if content and self._plan.schema is not None else None

    def _overfull(self, chunk: Chunk, limiter: Limiter) -> Overfull | None:
        """Tell whether a chunk holds more thinking than the limit allows.

        Engines put many tokens into one chunk when a reader lags behind.
        """
        tokens, left = (chunk.tokens or 0) - self.account.counted, limiter.limit - limiter.used
        if tokens <= left or self.phase is not _THINKING or self.text.filed:
            return None
        if not (
            chunk.reasoning or self.text.reading.splitter.thinking or self._plan.markup.open in chunk.content
        ):
            return None
        thought = self._thinking_tokens(chunk, tokens)
        return Overfull(max(left, 0), tokens) if thought > left else None

    def _thinking_tokens(self, chunk: Chunk, tokens: int) -> int:
        """Return how many of a thinking chunk's tokens come before its end tag."""
        if chunk.dropped:
            return tokens - chunk.dropped
        if chunk.ids and self._close_ids:
            return tokens_before(chunk.ids, self._close_ids)
        end = len(chunk.reasoning) or chunk.content.find(self._plan.markup.close)
        length = len(chunk.reasoning) + len(chunk.content)
        return tokens if end < 0 or end == length else -(-tokens * end // length)  # part of a token is one

    def continuation(self) -> Continuation | None:
        """Return what a reply still lacks at its end: more thinking, its end, or an answer.

        Without a limit, only thinking that a stop string has ended lacks something.
        """
        limiter, text = self._limiter, self.text
        stopped = self._plan.repairs_stops and self.finish_reason == "stop" and self._met_stop_string()
        if self._message.get("tool_calls") or (limiter is None and not stopped):
            return None
        blank = not text.content.strip()
        in_block = text.reading.splitter.thinking or (text.engine_splits and blank)
        if in_block and self.phase is Phase.THINKING:
            return Continuation.CLOSE if stopped else self._end_of_block(limiter)
        if limiter is None:
            return None
        silent = blank and self.finish_reason == "stop" and (self.forced or text.reasoning)
        if silent and self.phase is not Phase.LED_IN and self._plan.schema is None:
            return Continuation.LEAD_IN
        return None

    def _end_of_block(self, limiter: Limiter | None) -> Continuation | None:
        """Return what a reply lacks that ended within its thinking."""
        if self.text.assumed and self._ended_whole() and self._plan.schema is None:
            return None  # no tag says that it thinks, so it is the answer
        return Continuation.WAIT if limiter and limiter.must_wait() else Continuation.CLOSE

    def _ended_whole(self) -> bool:
        """Tell whether the reply came to its own end, and all of its text is here."""
        return ended_well(self.finish_reason) and not self._cut

    def _met_stop_string(self) -> bool:
        """Tell whether a stop string has ended the reply: vLLM says so in `stop_reason`.

        Where an engine doesn't say, it has, unless the text may be an answer all along.
        """
        if "stop_reason" in self._ending:
            return isinstance(self._ending["stop_reason"], str)
        return not self.text.assumed

    def resume(self, continuation: Continuation, prompt: Prompt | None) -> str:
        """Get ready for the next upstream request; return the assistant's turn up to there."""
        plan, limiter = self._plan, self._limiter
        opens = prompt is None and plan.markup.opened and not self.account.continues and not plan.prefill
        limit_reached = limiter is not None and 0 < limiter.limit <= limiter.used
        turn = self.text.resume(continuation, open_tag=opens, limit_reached=limit_reached)
        if continuation is Continuation.LEAD_IN:
            self.phase = Phase.LED_IN
        elif continuation is not Continuation.WAIT:
            self.phase = Phase.ANSWERING
        self.forced = self.forced or continuation is Continuation.CLOSE
        self.pause = self.finish_reason = None
        self.account.start_request()
        return turn

    def finish(self) -> list[Delta | FinishedSample]:
        """End a sample that has a finish reason; return the text still held back, if any, and the sample."""
        assert self.finish_reason is not None
        text, account = self.text, self.account
        counts, extra, choice = account.counts, dict(self._message), dict(self._choice)
        if self.phase is Phase.THINKING:
            thought = len(text.reasoning)
            reasoning, content, returned = text.end(well=self._ended_whole() or self._plan.verbatim)
            if returned:
                counts.reasoning = round(counts.reasoning * len(text.reasoning) / thought) if thought else 0
            if text.split_late():
                self._plan.traits.splits_thinking = False
                counts.reasoning = self._share_of_thinking()
        else:
            reasoning, content = "", text.reading.finish_answer()
        sample = Sample(
            self.index,
            text.content,
            text.reasoning,
            self.finish_reason,
            Usage(counts.prompt, counts.completion, counts.reasoning, counts.estimated),
            tuple(extra.pop("tool_calls", None) or ()),
            choice.pop("logprobs", None),
            {"message": extra, "choice": choice},
        )
        kept = self._limit_kept()
        enforced: Enforced = "none"
        if self._limiter is not None:
            enforced = "native" if self._plan.native and kept is not False else "forced"
        notes = (*self._notes, FILED_AS_REASONING) if text.filed else self._notes
        envelope = envelope_of(self.event)
        finished = FinishedSample(sample, counts, enforced, envelope, account.usage, kept, notes)
        if reasoning or content:
            return [Delta(self.index, reasoning, content, self.event, {}), finished]
        return [finished]

    def _share_of_thinking(self) -> int:
        """Return the tokens of thinking by the length of the texts."""
        thought, length = len(self.text.reasoning), len(self.text.reasoning) + len(self.text.content)
        return round(self.account.counts.completion * thought / length) if length else 0

    def _limit_kept(self) -> bool | None:
        """Return whether the engine was seen to enforce the limit (True) or to pass it (False)."""
        limiter = self._limiter
        if limiter is None or not self._plan.native:
            return None
        if self.forced:
            return False if self._cut or limiter.used > limiter.limit else None
        reached = 0 < limiter.limit <= limiter.used + _LIMIT_TOLERANCE
        return True if reached and self.text.content else None

    def _keep_fields(self, choice: Mapping[str, Any]) -> bool:
        """Keep the fields that aren't text (tool calls, logprobs, vendors'); return whether any came."""
        kept = False
        for key, value in choice.items():
            if value is None or key in _CHOICE_OWN:
                continue
            if key == "logprobs" and self._confidence is not None:
                value = self._watch_confidence(value, self._confidence)  # noqa: PLW2901
            self._choice[key] = merge(self._choice.get(key), value, key)
            kept = True
        for key, value in (choice.get("delta") or {}).items():
            if key in TEXT_FIELDS or value is None:
                continue
            self._message[key] = merge(self._message.get(key), value, key)
            kept = True
        return kept

    def _watch_confidence(self, logprobs: Mapping[str, Any], window: ConfidenceWindow) -> Mapping[str, Any]:
        """Update the confidence; return what to keep of the logprobs, which in full take 10 KB a token."""
        tokens = logged_tokens(logprobs)
        self.account.counts.lowest_confidence = window.feed(tokens)
        self.account.counts.confidence = window.lowest_or_mean
        return logprobs if self._plan.keeps_logprobs else {"content": compact_tokens(tokens)}
