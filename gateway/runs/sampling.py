"""Draws samples from one upstream, their thinking told apart and its limit kept.

The limit is always counted here, in the engine's own tokens where it tells them. Where it
is reached, the stream is closed and the model goes on from what it has written plus a
closing sentence and the end tag; what comes then is answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.errors import UpstreamError
from gateway.runs.events import Delta, Enforced
from gateway.runs.sample_state import (
    TEXT_FIELDS,
    FinishedSample,
    SampleState,
    Terms,
    TokenCounts,
    Turn,
    envelope_of,
    estimate_tokens,
    tokens_before,
)
from gateway.upstreams.base import Chunk, Prompt, Upstream, UpstreamRequest
from policies.prompts import WAIT
from policies.thinking import Markup, ThinkingText
from scorers.types import Sample, Usage

__all__ = ["Order", "Rendering", "draw", "split_reply"]


_REPLY_OWN = frozenset({"index", "message", "finish_reason", "logprobs"})


class Rendering:
    """One request's rendered prompt, asked for at most once for all its samples."""

    def __init__(self, upstream: Upstream, body: Mapping[str, Any]) -> None:
        self._upstream = upstream
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
                self._prompt = await self._upstream.render(self._body)
            self._asked = True
            return self._prompt


@dataclass(frozen=True, slots=True)
class Order:
    """What to draw: the chat request, the samples it is for (one a choice), and their terms.

    `schema` is the request's `response_format` where it has been held back from `body`
    until the thinking is over. `fallback` is drawn instead where the engine refuses to keep
    the limit itself.
    """

    body: Mapping[str, Any]
    indices: tuple[int, ...]
    rendering: Rendering
    terms: Terms = field(default_factory=Terms)
    schema: Mapping[str, Any] | None = None
    fallback: Order | None = None


def draw(
    upstream: Upstream, order: Order, tallies: Sequence[TokenCounts] = (), *, deltas: bool = True
) -> AsyncGenerator[Delta | FinishedSample, None]:
    """Draws the order's samples: their `deltas` as they come, if wanted, and each one whole at its end.

    A limited order is for one sample. `tallies`, one for each index, are kept up to date
    meanwhile. Raises `UpstreamError`; closing the iterator aborts what runs upstream.
    """
    if order.fallback is None:  # a layer less for every chunk
        return _draw(upstream, order, tallies, deltas)
    return _draw_or_fall_back(upstream, order, order.fallback, tallies, deltas)


async def _draw_or_fall_back(
    upstream: Upstream, order: Order, fallback: Order, tallies: Sequence[TokenCounts], deltas: bool
) -> AsyncGenerator[Delta | FinishedSample, None]:
    begun = False
    try:
        async with aclosing(_draw(upstream, order, tallies, deltas)) as events:
            async for event in events:
                begun = True
                yield event
    except UpstreamError as error:
        if begun or not upstream.refuses_limit(order.body, error):
            raise
    else:
        return
    async with aclosing(_draw(upstream, fallback, tallies, deltas)) as events:
        async for event in events:
            yield event


async def _draw(
    upstream: Upstream, order: Order, tallies: Sequence[TokenCounts], deltas: bool
) -> AsyncGenerator[Delta | FinishedSample, None]:
    tallies = tallies or [TokenCounts() for _ in order.indices]
    if len(order.indices) > 1:
        async with aclosing(_draw_together(upstream, order, tallies, deltas)) as events:
            async for event in events:
                yield event
        return
    splits = upstream.splits_thinking(order.body)
    close = None
    if order.terms.limit is not None:
        close = await upstream.token_ids(str(order.body.get("model", "")), order.terms.markup.close)
    track = SampleState(order.indices[0], order.terms, tallies[0], splits=splits, close=close or ())
    plan = await _first_plan(upstream, order)
    while True:
        turn: Turn | None = None
        try:
            async with aclosing(upstream.stream(plan)) as chunks:
                async for chunk in chunks:
                    if chunk.index == 0:
                        if (room := track.room(chunk)) is not None:
                            chunk = await _cut(upstream, order, chunk, *room)  # noqa: PLW2901
                        delta, turn = track.feed(chunk)
                        if deltas and delta is not None:
                            yield delta
                        if turn is not None:
                            break
                    if chunk.usage is not None:
                        track.use(chunk.usage, alone=True)
        except UpstreamError:
            if not track.finished:  # else the reply was complete, and only its usage is missing
                raise
        turn = turn or track.unfinished()
        if turn is None:
            break
        plan = await _next_plan(upstream, order, track, turn)
        if deltas and turn is Turn.THINK_ON:
            yield Delta(track.index, WAIT, "", {}, {})
    for event in _last_of(track):
        yield event
    if track.overrun or track.kept_natively:
        upstream.limit_kept(order.body, not track.overrun)


async def _draw_together(
    upstream: Upstream, order: Order, tallies: Sequence[TokenCounts], deltas: bool
) -> AsyncGenerator[Delta | FinishedSample, None]:
    """Many samples, nothing of which is limited, in one upstream request for as many choices.

    All but the last to finish are given when they finish, so that a vote shows its progress
    and a failure later on spoils only the others.
    """
    splits = upstream.splits_thinking(order.body)
    tracks = [
        SampleState(index, order.terms, tally, first=index == order.indices[0], splits=splits)
        for index, tally in zip(order.indices, tallies, strict=True)
    ]
    left = list(tracks)
    generated = 0
    try:
        async with aclosing(upstream.stream(await _first_plan(upstream, order))) as chunks:
            async for chunk in chunks:
                if chunk.index is None:
                    generated += (chunk.usage or {}).get("completion_tokens") or 0
                    for track in tracks if chunk.usage else ():
                        track.use(chunk.usage or {}, alone=False)
                elif chunk.index < len(tracks):
                    track = tracks[chunk.index]
                    if (delta := track.feed(chunk)[0]) is not None and deltas:
                        yield delta
                    if chunk.usage is not None:
                        track.use(chunk.usage, alone=False)
                    if track.finished and len(left) > 1 and track in left:
                        left.remove(track)
                        for event in _last_of(track):
                            yield event
    except UpstreamError:
        if not all(track.finished for track in left):
            raise
    _settle(tallies, generated)
    for track in left:
        if track.raw:  # the upstream may give fewer choices than it was asked for
            for event in _last_of(track):
                yield event


async def _cut(upstream: Upstream, order: Order, chunk: Chunk, fit: int, tokens: int) -> Chunk:
    """The chunk's thinking as far as its first `fit` tokens go; by its length where ids don't tell."""
    text = chunk.reasoning or chunk.content
    kept = (
        await upstream.text_of(str(order.body.get("model", "")), chunk.ids[:fit])
        if chunk.ids and fit
        else None
    )
    kept = (kept or "").rstrip("\ufffd")  # the beginning of a character
    if not fit:
        text = ""
    start = text.find(kept) if kept else -1
    if start < 0 or text[:start].strip():
        start, kept = 0, text[: len(text) * fit // tokens]
    text = text[: start + len(kept)]
    choice = chunk.choice
    if entries := (choice.get("logprobs") or {}).get("content"):
        choice = {**choice, "logprobs": {**choice["logprobs"], "content": entries[:fit]}}
    content, reasoning = ("", text) if chunk.reasoning else (text, "")
    return replace(chunk, content=content, reasoning=reasoning, choice=choice, dropped=tokens - fit)


def _last_of(track: SampleState) -> list[Delta | FinishedSample]:
    """What is left to tell of a sample that has come to its end."""
    held_back = track.end()
    return [track.drawn()] if held_back is None else [held_back, track.drawn()]


def _settle(tallies: Sequence[TokenCounts], told: int) -> None:
    """Makes the estimated counts of choices that share a request add up to what the engine told."""
    guessed = sum(tally.completion for tally in tallies)
    if not told or not guessed or not any(tally.estimated for tally in tallies):
        return
    before = given = 0
    for tally in tallies:
        before += tally.completion
        share = round(told * before / guessed) - given
        tally.reasoning = round(tally.reasoning * share / tally.completion) if tally.completion else 0
        tally.completion = share
        given += share


async def _first_plan(upstream: Upstream, order: Order) -> UpstreamRequest:
    if order.terms.prefill:
        prompt = await order.rendering.prompt()
        prefix = order.terms.prefix if prompt is None else order.terms.prefill
        return await upstream.resume(order.body, prompt, prefix, order.terms.total)
    if len(order.indices) > 1:
        return UpstreamRequest({**order.body, "n": len(order.indices)})
    return UpstreamRequest(order.body, ids=order.terms.limit is not None)


async def _next_plan(upstream: Upstream, order: Order, track: SampleState, turn: Turn) -> UpstreamRequest:
    """The request that goes on from what the assistant has said so far."""
    prompt = await order.rendering.prompt()
    written = track.resume(turn, prompt)
    left = None if order.terms.total is None else max(order.terms.total - track.tally.completion, 1)
    body = order.body
    if order.schema is not None and turn is not Turn.THINK_ON:
        body = {**body, "response_format": order.schema}
    plan = await upstream.resume(body, prompt, written, left)
    return replace(plan, ids=True) if turn is Turn.THINK_ON else plan


def split_reply(
    body: Mapping[str, Any],
    indices: Sequence[int],
    markup: Markup,
    *,
    answer_only: bool = False,
    splits: bool = False,
    close_ids: Sequence[int] | None = None,
    enforced: Enforced = "none",
) -> list[FinishedSample]:
    """The samples in one unstreamed chat reply; fewer than `indices` where it has fewer choices.

    `answer_only`: thinking is switched off, so that a reply which the engine takes for
    thinking alone is the answer (vLLM's parsers do that, unstreamed). `splits`: the engine is
    known to split thinking off. `close_ids`: the reply's choices come with their `token_ids`,
    in which the end tag reads so.
    """
    choices = body.get("choices") or ()
    usage = body.get("usage") or {}
    envelope = envelope_of(body)
    own = _REPLY_OWN
    if close_ids is not None:  # then the gateway had asked for the ids
        own |= {"token_ids"}
        envelope.pop("prompt_token_ids", None)
    drawn = []
    for index, choice in zip(indices, choices, strict=False):
        message = choice.get("message") or {}
        text = _split_message(message, markup, answer_only=answer_only, splits=splits)
        tally = _tally(usage, text, len(choices))
        if close_ids is not None and isinstance(ids := choice.get("token_ids"), list) and text.reasoning:
            tally.reasoning, tally.estimated = tokens_before(ids, close_ids), len(choices) > 1
        sample = Sample(
            index,
            text.content,
            text.reasoning,
            choice.get("finish_reason") or "stop",
            Usage(tally.prompt, tally.completion, tally.reasoning, tally.estimated),
            tuple(message.get("tool_calls") or ()),
            choice.get("logprobs"),
            {
                "message": {k: v for k, v in message.items() if k not in TEXT_FIELDS and k != "tool_calls"},
                "choice": {k: v for k, v in choice.items() if k not in own},
            },
        )
        told = usage if len(choices) == 1 else {}
        drawn.append(FinishedSample(sample, tally, enforced, envelope, told))
    return drawn


def _split_message(
    message: Mapping[str, Any], markup: Markup, *, answer_only: bool, splits: bool
) -> ThinkingText:
    """A message's thinking and answer, split by the engine or, where it doesn't, by the tags."""
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    content = message.get("content") or ""
    # vLLM says "" of thinking that ended before its first token, and nothing at all without a parser.
    splits = splits or bool(thought) or (message.get("reasoning") == "" and markup.close not in content)
    if answer_only and not content:
        thought, content = "", thought
    text = ThinkingText(replace(markup, opened=False) if splits else markup)
    if thought:
        text.add_split(thought.removeprefix(markup.open), "")
    if markup.open in content or text.splitter.thinking or markup.answer:
        text.feed(content)
        text.finish()
    else:
        text.add_split("", content)
    return text


def _tally(usage: Mapping[str, Any], text: ThinkingText, choices: int) -> TokenCounts:
    """One choice's tokens from the reply's usage, by the length of its texts where that doesn't say."""
    prompt = usage.get("prompt_tokens") or 0
    thinking, answer = len(text.reasoning), len(text.content)
    told = usage.get("completion_tokens") if choices == 1 else None
    completion = told if told is not None else estimate_tokens(text.reasoning + text.content)
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    guessed = thinking > 0 and not reasoning
    if guessed:
        reasoning = round(completion * thinking / (thinking + answer))
    return TokenCounts(completion, reasoning, prompt, prompt, guessed or told is None)
