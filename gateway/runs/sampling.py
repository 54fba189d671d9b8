"""Draws samples from one upstream: one loop that reads chunks, keeps thinking limits and continues replies.

The gateway always counts the limit itself, in the engine's own tokens where the engine tells them. When a
sample reaches its limit, the gateway closes the stream. The model then continues from what it has written
plus a closing sentence and the end tag, and everything that follows is answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from gateway.errors import UpstreamError
from gateway.runs.events import Aside, Delta, FailedSample, FinishedSample, TokenCounts
from gateway.runs.sample_plan import SamplePlan
from gateway.runs.sample_state import Overfull, SampleState, unfinished
from gateway.runs.written_text import Continuation
from gateway.upstreams.base import Chunk, Upstream, UpstreamRequest
from policies.prompts import WAIT

__all__ = ["SampleEvent", "draw_samples", "share_out"]

SampleEvent = Delta | Aside | FinishedSample | FailedSample


async def draw_samples(
    upstream: Upstream,
    plan: SamplePlan,
    indices: Sequence[int],
    counts: Sequence[TokenCounts] = (),
    *,
    seed: int | None = None,
    stream: bool = True,
) -> AsyncGenerator[SampleEvent, None]:
    """Draw samples by a plan; yield each when it finishes and, with `stream`, its deltas before that.

    Several samples share one upstream request, as its choices; a plan with a limit is for one sample. A
    sample that shares a request is yielded as soon as it finishes or fails. So a vote can show its progress,
    and a failure loses nothing but what is unfinished. `counts`, one for each index, stay up to date. Closing
    the iterator aborts what runs upstream. Raises UpstreamError where a sample alone fails, or all fail at
    once.
    """
    sampler = _Sampler(upstream, indices, counts or [TokenCounts() for _ in indices], seed, stream=stream)
    request: UpstreamRequest | None = await sampler.begin(plan)
    while request is not None:
        states = sampler.states
        try:
            async with aclosing(upstream.stream(request)) as chunks:
                async for chunk in chunks:
                    state = states.get(chunk.index)
                    if state is None or state.finish_reason is not None or chunk.failure is not None:
                        if (event := sampler.take_without_text(chunk, state)) is not None:
                            yield event
                        continue
                    delta = state.feed(chunk)
                    if isinstance(state.pause, Overfull):
                        delta = state.feed(await sampler.cut(chunk, state.pause))
                    if stream and delta is not None:
                        yield delta
                    if state.pause is not None:
                        break
                    if state.finish_reason is not None:
                        for event in sampler.finish_early(state):
                            yield event
        except UpstreamError as error:
            if (fallback := sampler.fallback(error)) is not None:
                request = await sampler.begin(fallback)
                continue
            for failed in sampler.fail_open(error):
                yield failed
        request = await sampler.next_request()
        for written in sampler.written_between():
            yield written
    for event in sampler.finish():
        yield event


class _Sampler:
    """The samples of one `draw_samples`, and the upstream requests that they take.

    `states` are the samples by their index among the request's choices; `continuation` says why the request
    in progress continues an earlier one.
    """

    def __init__(
        self,
        upstream: Upstream,
        indices: Sequence[int],
        counts: Sequence[TokenCounts],
        seed: int | None,
        *,
        stream: bool,
    ) -> None:
        self.states: dict[int | None, SampleState] = {}
        self.continuation: Continuation | None = None
        self._upstream = upstream
        self._indices = indices
        self._counts = counts
        self._seed = seed
        self._stream = stream
        self._open: list[SampleState] = []  # neither finished nor failed
        self._generated = 0  # tokens of all choices together, as the engine counts them

    async def begin(self, plan: SamplePlan) -> UpstreamRequest:
        """Prepare the samples and return the first upstream request."""
        if self._seed is not None:
            plan = replace(plan, body={**plan.body, "seed": self._seed})
        self._plan = plan
        self._model = str(plan.body.get("model", ""))
        close_ids: Sequence[int] = ()
        if plan.limit is not None and plan.traits.gives_token_ids:
            close_ids = await self._upstream.token_ids(self._model, plan.markup.close) or ()
        alone = len(self._indices) == 1
        self._open = [
            SampleState(index, plan, counts, alone=alone, first=position == 0, close_ids=close_ids)
            for position, (index, counts) in enumerate(zip(self._indices, self._counts, strict=True))
        ]
        self.states = dict(enumerate(self._open))
        if plan.prefill:
            prompt = await plan.rendered.fetch(self._upstream, plan.body)
            prefix = plan.prefix if prompt is None else plan.prefill
            return await self._upstream.resume(plan.body, prompt, prefix, plan.total)
        if not alone:
            return UpstreamRequest({**plan.body, "n": len(self._indices)}, verbatim=plan.verbatim)
        return UpstreamRequest(plan.body, ids=plan.limit is not None, verbatim=plan.verbatim)

    def take_without_text(self, chunk: Chunk, state: SampleState | None) -> SampleEvent | None:
        """Take a chunk that adds no text to a sample; return what the client or the vote should know of it.

        It is about the whole request, or a choice that nobody asked for (`state` is None); it follows the
        sample's end; or it says that the choice can't be used.
        """
        verbatim = self._plan.verbatim
        if state is None:
            self._use(chunk)
            return Aside(chunk.event) if verbatim and chunk.index is None else None
        if state.finish_reason is not None:  # whatever follows the end is no text of the reply
            state.use(chunk)
            return Delta(state.index, "", "", chunk.event, chunk.choice) if verbatim else None
        if chunk.failure is None or (len(self._indices) > 1 and not (state.event or chunk.event)):
            return None  # the upstream gives fewer choices than it was asked for
        return self.fail(state, chunk.failure)

    def _use(self, chunk: Chunk) -> None:
        """Take the usage of a whole request."""
        if chunk.index is not None or not chunk.usage:
            return
        self._generated += chunk.usage.get("completion_tokens") or 0
        for state in self.states.values():
            state.account.use(chunk.usage, forced=state.forced)

    async def cut(self, chunk: Chunk, overfull: Overfull) -> Chunk:
        """Return a chunk's thinking up to the limit; its length decides where its ids don't tell."""
        fit, tokens = overfull
        text = chunk.reasoning or chunk.content
        fitting = await self._upstream.text_of(self._model, chunk.ids[:fit]) if chunk.ids and fit else None
        fitting = (fitting or "").rstrip("\ufffd")  # the beginning of a character
        if not fit:
            text = ""
        start = text.find(fitting) if fitting else -1
        if start < 0 or text[:start].strip():
            start, fitting = 0, text[: len(text) * fit // tokens]
        text = text[: start + len(fitting)]
        choice = chunk.choice
        if entries := (choice.get("logprobs") or {}).get("content"):
            choice = {**choice, "logprobs": {**choice["logprobs"], "content": entries[:fit]}}
        content, reasoning = ("", text) if chunk.reasoning else (text, "")
        return replace(chunk, content=content, reasoning=reasoning, choice=choice, dropped=tokens - fit)

    def finish_early(self, state: SampleState) -> list[Delta | FinishedSample]:
        """Finish a sample while others of its request still run; the last one waits for the usage."""
        if len(self._open) < 2 or state not in self._open:
            return []
        self._open.remove(state)
        return state.finish()

    def fail(self, state: SampleState, error: UpstreamError) -> FailedSample:
        """Give a sample up while others of its request go on. Raises the error where it is alone."""
        if len(self._indices) == 1:
            raise error
        if state in self._open:
            self._open.remove(state)
        self.states.pop(next(place for place, other in self.states.items() if other is state))
        return FailedSample(state.index, error, state.account.counts)

    def fallback(self, error: UpstreamError) -> SamplePlan | None:
        """Return the plan to draw instead, where the engine refuses to keep the limit itself."""
        begun = any(state.event for state in self._open)
        if self._plan.fallback and not begun and self._upstream.refuses_limit(self._model, error):
            return self._plan.fallback
        return None

    def fail_open(self, error: UpstreamError) -> list[FailedSample]:
        """Give up the samples that an error has cut; those that only lack their usage are complete.

        Raises the error where it has cut every sample.
        """
        cut = [state for state in self._open if state.finish_reason is None]
        if len(cut) == len(self._indices):
            raise error
        return [self.fail(state, error) for state in cut]

    async def next_request(self) -> UpstreamRequest | None:
        """Return the request that continues the assistant's text, if the sample lacks something."""
        if len(self._indices) > 1:
            self.continuation = None
            return None
        plan, state = self._plan, self._open[0]
        pause = state.pause if isinstance(state.pause, Continuation) else None
        if pause is None and state.finish_reason is not None:
            pause = state.continuation()
        self.continuation = pause
        if pause is None:
            return None
        prompt = await plan.rendered.fetch(self._upstream, plan.body)
        text = state.resume(pause, prompt)
        left = None if plan.total is None else max(plan.total - state.account.counts.completion, 1)
        body = plan.body
        if plan.schema is not None and pause is not Continuation.WAIT:
            body = {**body, "response_format": plan.schema}
        request = await self._upstream.resume(body, prompt, text, left)
        return replace(request, ids=True) if pause is Continuation.WAIT else request

    def written_between(self) -> list[Delta]:
        """Return the thinking that the gateway itself writes before the next request continues it."""
        waits = self._stream and self.continuation is Continuation.WAIT
        return [Delta(self._indices[0], WAIT, "", {}, {})] if waits else []

    def finish(self) -> list[SampleEvent]:
        """Finish the samples that are still open; those without a finish reason have failed."""
        shared = len(self._indices) > 1
        if shared:
            share_out(self._counts, self._generated)
        events: list[SampleEvent] = []
        for state in list(self._open):
            if state.finish_reason is not None:
                events += state.finish()
            elif state.event or not shared:  # the upstream may give fewer choices than it was asked for
                events.append(self.fail(state, unfinished()))
        finished = events[-1] if events else None
        if isinstance(finished, FinishedSample) and finished.limit_kept is not None:
            self._plan.traits.observe_limit(finished.limit_kept)
        return events


def share_out(counts: Sequence[TokenCounts], generated: int) -> None:
    """Make the estimates of choices that share a request add up to what the engine counted."""
    estimate = sum(sample_counts.completion for sample_counts in counts)
    if not generated or not estimate or not any(sample_counts.estimated for sample_counts in counts):
        return
    before = given = 0
    for sample_counts in counts:
        before += sample_counts.completion
        share = round(generated * before / estimate) - given
        sample_counts.reasoning = (
            round(sample_counts.reasoning * share / sample_counts.completion)
            if sample_counts.completion
            else 0
        )
        sample_counts.completion = share
        given += share
