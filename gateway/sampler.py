"""One upstream reply, its thinking told apart and its limit kept.

The limit is always counted here, in the engine's own tokens where it tells them. Where it
is reached, the stream is closed and the model goes on from what it has written plus a
closing sentence and the end tag; what comes then is answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from gateway.backends.base import Backend, Chunk, Plan, Prompt
from gateway.events import Delta
from gateway.merging import merge
from policies.limiter import Decision, Limiter
from policies.prompts import closing
from policies.thinking import Markup, ThinkingText
from scorers.types import Sample, Usage

__all__ = ["Drawn", "Order", "Rendering", "Tally", "draw", "split_reply"]

_TEXT = frozenset({"content", "reasoning", "reasoning_content"})
_CHOICE_OWN = frozenset({"index", "delta", "message", "finish_reason"})
_ENVELOPE_OWN = frozenset({"choices", "usage", "timings", "object"})
_CHARACTERS_PER_TOKEN = 4  # only where the engine counts nothing; labelled as an estimate


class Rendering:
    """One request's rendered prompt, asked for at most once for all its samples."""

    def __init__(self, backend: Backend, body: Mapping[str, Any]) -> None:
        self._backend = backend
        self._body = body
        self._lock = asyncio.Lock()
        self._prompt: Prompt | None = None
        self._asked = False

    async def prompt(self) -> Prompt | None:
        """The prompt; None where the engine can't render it, or its chat route has to read the reply.

        Tool calls are read out of the text by the engine's chat route, so a request with
        tools goes on from an open assistant message instead.
        """
        async with self._lock:
            if not self._asked and not self._body.get("tools"):
                self._prompt = await self._backend.render(self._body)
            self._asked = True
            return self._prompt


@dataclass(frozen=True, slots=True)
class Order:
    """What to draw: the chat request, the samples it is for (one a choice), and how thinking is limited.

    `limit` is in thinking tokens (None: not limited), `total` caps thinking and answer
    together. `prefill` stands in the assistant's turn before the model begins, `prefix` is
    the same where the template's own opening has to be written too.
    """

    body: Mapping[str, Any]
    indices: tuple[int, ...]
    rendering: Rendering
    markup: Markup = field(default_factory=Markup)
    limit: int | None = None
    total: int | None = None
    prefill: str = ""
    prefix: str = ""


@dataclass(slots=True)
class Tally:
    """Tokens of one sample so far, readable while it runs.

    `prompt` is the first upstream request's, `upstream_prompt` the sum over all of them.
    """

    completion: int = 0
    reasoning: int = 0
    prompt: int = 0
    upstream_prompt: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished sample; `forced` says that the gateway ended its thinking.

    `envelope` holds the upstream reply's other top-level fields.
    """

    sample: Sample
    tally: Tally
    forced: bool
    envelope: Mapping[str, Any]


class _Track:
    """One choice of a streamed reply as it grows, over all upstream requests that it takes."""

    def __init__(self, index: int, order: Order, tally: Tally) -> None:
        self.index = index
        self.tally = tally
        self.text = ThinkingText(order.markup)
        self.message: dict[str, Any] = {"role": "assistant"}
        self.choice: dict[str, Any] = {}
        self.raw: Mapping[str, Any] = {}
        self.forced = False
        self._order = order
        self._limiter = Limiter(order.limit)
        self._written = [order.prefill]  # all that stands in the assistant's turn
        self._finish_reason: str | None = None
        self._engine_splits = False
        self._counted = 0  # tokens of this upstream request, as last told
        self._before = 0  # tokens of earlier upstream requests
        self._prompt = 0  # prompt of this upstream request, as last told

    def feed(self, chunk: Chunk) -> tuple[Delta | None, Decision]:
        """Takes one chunk: what is new in it, and whether to go on."""
        self.raw = chunk.raw
        if chunk.finish_reason is not None:
            self._finish_reason = chunk.finish_reason
        other = self._keep(chunk)
        text = chunk.reasoning + chunk.content
        if not text:
            return (Delta(self.index, "", "", chunk.raw, chunk.choice) if other else None), Decision.CONTINUE
        was_thinking = self.text.splitter.thinking
        reasoning, content = self._split(chunk)
        thinking = self.text.splitter.thinking or bool(chunk.reasoning and not chunk.content)
        tokens = self._count(chunk, text)
        decision = Decision.CONTINUE
        if not self.forced and (reasoning or (was_thinking and thinking)):
            self.tally.reasoning += tokens
            decision = self._limiter.feed(tokens, thinking)
        elif not self.forced and thinking:  # the opening tag itself is no thinking yet
            decision = self._limiter.feed(0, thinking)
        if reasoning or content or other:
            return Delta(self.index, reasoning, content, chunk.raw, chunk.choice), decision
        return None, decision

    def use(self, usage: Mapping[str, Any], *, alone: bool) -> None:
        """The engine's own usage; `alone`: this is the request's only choice, so the counts are its own."""
        prompt = usage.get("prompt_tokens") or 0
        self.tally.prompt = self.tally.prompt or prompt
        self.tally.upstream_prompt += prompt - self._prompt
        self._prompt = prompt
        completion = usage.get("completion_tokens")
        if completion is None or not alone:
            return
        if self.tally.estimated and self._counted:  # keep the estimate's proportions
            details = usage.get("completion_tokens_details") or {}
            told = details.get("reasoning_tokens")
            if not self.forced and self.tally.reasoning:
                self.tally.reasoning = told or round(self.tally.reasoning * completion / self._counted)
            self.tally.estimated = bool(self.tally.reasoning and not told)
        self._counted = completion
        self.tally.completion = self._before + completion

    def unanswered(self) -> bool:
        """Whether the model ended in the middle of its thinking, where thinking is the gateway's business."""
        if self._order.limit is None or self.forced or self.message.get("tool_calls"):
            return False
        return self.text.splitter.thinking or (self._engine_splits and not self.text.content.strip())

    def force(self, prompt: Prompt | None) -> str:
        """Ends the thinking; returns what the assistant has said so far, the end tag included."""
        markup = self._order.markup
        held = "".join(text for _, text in self.text.splitter.finish())
        written = "".join(self._written).removesuffix(held)  # blank space, or a piece of a tag
        if prompt is None and markup.opened and not self._order.prefill:
            written = f"{markup.open}\n{written}"
        earlier, self.text = self.text, ThinkingText(Markup(markup.open, markup.close))
        self.text.add_split(earlier.reasoning, earlier.content)
        self.text.splitter.closed = True  # blank space before the answer is dressing
        limit_reached = self._limiter.limit is not None and 0 < self._limiter.limit <= self._limiter.used
        written += closing(markup, limit_reached=limit_reached)
        self._written = [written]
        self.forced = True
        self._finish_reason = None
        self._before, self._counted, self._prompt = self.tally.completion, 0, 0
        return written

    def end(self) -> Delta | None:
        """What had been held back, now that no more text comes."""
        reasoning, content = self.text.finish()
        return Delta(self.index, reasoning, content, self.raw, {}) if reasoning or content else None

    def drawn(self) -> Drawn:
        """The finished sample."""
        tally = self.tally
        message, choice = dict(self.message), dict(self.choice)
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
        return Drawn(sample, tally, self.forced, _envelope(self.raw))

    def _split(self, chunk: Chunk) -> tuple[str, str]:
        if self.forced:  # whatever comes now is answer, in whichever field
            reasoning, content = self.text.feed(chunk.reasoning + chunk.content)
            return "", reasoning + content
        reasoning = content = ""
        if chunk.reasoning:
            if not self._engine_splits and not self._order.markup.opened:
                self._written.append(self._order.markup.open + "\n")
            self._engine_splits = True
            self._written.append(chunk.reasoning)
            reasoning, _ = self.text.add_split(chunk.reasoning, "")
        if chunk.content:
            self._written.append(chunk.content)
            more, content = self.text.feed(chunk.content)
            reasoning += more
        return reasoning, content

    def _keep(self, chunk: Chunk) -> bool:
        """Remembers the fields that aren't text (tool calls, logprobs, vendors'); whether there were any."""
        found = False
        for key, value in (chunk.choice.get("delta") or {}).items():
            if value is not None and key not in _TEXT:
                self.message[key] = merge(self.message.get(key), value, key)
                found = True
        for key, value in chunk.choice.items():
            if value is not None and key not in _CHOICE_OWN:
                self.choice[key] = merge(self.choice.get(key), value, key)
                found = True
        return found

    def _count(self, chunk: Chunk, text: str) -> int:
        """The tokens in this chunk: the engine's count, else an estimate of at least one."""
        if chunk.tokens is not None:
            tokens, self._counted = chunk.tokens - self._counted, chunk.tokens
        else:
            tokens = max(1, round(len(text) / _CHARACTERS_PER_TOKEN))
            self._counted += tokens
            self.tally.estimated = True
        self.tally.completion = self._before + self._counted
        return tokens


async def draw(
    backend: Backend, order: Order, tallies: Sequence[Tally] = ()
) -> AsyncGenerator[Delta | Drawn, None]:
    """Draws the order's samples: their deltas as they come, and at the end each one whole.

    A limited order is for one sample. `tallies`, one for each index, are kept up to date
    meanwhile. Raises `UpstreamError`; closing the iterator aborts what runs upstream.
    """
    tallies = tallies or [Tally() for _ in order.indices]
    tracks = [_Track(index, order, tally) for index, tally in zip(order.indices, tallies, strict=True)]
    alone = len(tracks) == 1
    plan = await _first_plan(backend, order)
    while True:
        unanswered: _Track | None = None
        async with aclosing(backend.stream(plan)) as chunks:
            async for chunk in chunks:
                if chunk.index is not None and chunk.index < len(tracks):
                    track = tracks[chunk.index]
                    delta, decision = track.feed(chunk)
                    if delta is not None:
                        yield delta
                    if decision is Decision.CUT:
                        unanswered = track
                        break
                if chunk.usage is not None:
                    for track in tracks if chunk.index is None else tracks[chunk.index : chunk.index + 1]:
                        track.use(chunk.usage, alone=alone)
        unanswered = unanswered or next((track for track in tracks if track.unanswered()), None)
        if unanswered is None:
            break
        prompt = await order.rendering.prompt()
        written = unanswered.force(prompt)
        left = None if order.total is None else max(order.total - unanswered.tally.completion, 1)
        plan = await backend.resume(order.body, prompt, written, left)
    for track in tracks:
        if not alone and not track.raw:
            continue  # the upstream gave fewer choices than it was asked for
        if (delta := track.end()) is not None:
            yield delta
        yield track.drawn()


async def _first_plan(backend: Backend, order: Order) -> Plan:
    if order.prefill:
        prompt = await order.rendering.prompt()
        prefix = order.prefix if prompt is None else order.prefill
        return await backend.resume(order.body, prompt, prefix, order.total)
    if len(order.indices) > 1:
        return Plan({**order.body, "n": len(order.indices)})
    return Plan(order.body)


def split_reply(
    body: Mapping[str, Any], indices: Sequence[int], markup: Markup, *, answer_only: bool = False
) -> list[Drawn]:
    """The samples in one unstreamed chat reply; fewer than `indices` where it has fewer choices.

    `answer_only`: thinking is switched off, so that a reply which the engine takes for
    thinking alone is the answer (vLLM's parsers do that, unstreamed).
    """
    choices = body.get("choices") or ()
    usage = body.get("usage") or {}
    drawn = []
    for index, choice in zip(indices, choices, strict=False):
        message = choice.get("message") or {}
        text = ThinkingText(markup)
        split = message.get("reasoning_content") or message.get("reasoning") or ""
        content = message.get("content") or ""
        if answer_only and not content:
            split, content = "", split
        if split:
            text = ThinkingText(Markup(markup.open, markup.close))
            text.add_split(split, "")
        text.feed(content)
        text.finish()
        tally = _tally(usage, text, len(choices))
        sample = Sample(
            index,
            text.content,
            text.reasoning,
            choice.get("finish_reason") or "stop",
            Usage(tally.prompt, tally.completion, tally.reasoning, tally.estimated),
            tuple(message.get("tool_calls") or ()),
            choice.get("logprobs"),
            {
                "message": {k: v for k, v in message.items() if k not in _TEXT and k != "tool_calls"},
                "choice": {k: v for k, v in choice.items() if k not in _CHOICE_OWN and k != "logprobs"},
            },
        )
        drawn.append(Drawn(sample, tally, False, _envelope(body)))
    return drawn


def _tally(usage: Mapping[str, Any], text: ThinkingText, choices: int) -> Tally:
    """One choice's tokens, from the whole reply's usage: by the length of its text where there are more."""
    prompt = usage.get("prompt_tokens") or 0
    thinking, answer = len(text.reasoning), len(text.content)
    if choices == 1 and usage.get("completion_tokens") is not None:
        completion = usage["completion_tokens"]
    else:
        completion = max(1, round((thinking + answer) / _CHARACTERS_PER_TOKEN))
    told = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    shared = round(completion * thinking / max(thinking + answer, 1))
    estimated = bool(thinking and not told) or choices > 1 or "completion_tokens" not in usage
    reasoning = (told or shared) if thinking else (told or 0)
    return Tally(completion, reasoning, prompt, prompt, estimated)


def _envelope(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in _ENVELOPE_OWN}
