"""The loop of a vote: policy step -> samples -> groups -> vote -> stop.

The policy, the grader and the vote decide, and all of them are pure. This module does what they say: it
starts and aborts samples, records what becomes of them, and reports progress.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from gateway.errors import UpstreamError
from gateway.runs.events import (
    Delta,
    Event,
    Finished,
    FinishedSample,
    Progress,
    RunResult,
    SampleCounts,
    TokenCounts,
)
from gateway.runs.logprobs import delta_as_asked, refuses_logprobs
from gateway.runs.request import RunRequest
from gateway.runs.result import SampleRecords, result_of_vote
from gateway.runs.sample_plan import SamplePlan, plan_samples
from gateway.runs.sampling import draw
from gateway.runs.scorers import RequestModel
from gateway.runs.voting import VoteCount, VoteSettings
from gateway.upstreams.base import Upstream
from policies.stopping import VotePolicy
from policies.types import Launch, Policy, RunningSample, SamplingRequest, Step, VoteState
from scorers.types import Sample

__all__ = ["AllChoices", "VoteRun"]

_SEEDS = 2**31 - 2**16  # room for seed + i in engines that keep seeds in 32 bits


@dataclass(slots=True)
class _Draw:
    """Samples in flight that share a task; the task keeps their token counts up to date."""

    task: asyncio.Task[None]
    counts: dict[int, TokenCounts]


@dataclass(frozen=True, slots=True)
class _Failed:
    indices: tuple[int, ...]
    error: UpstreamError


class VoteRun:
    """The samples of one request, drawn as the policy says and combined by its vote.

    `ask` runs another request on the same upstream, for scorers that ask a model.
    """

    def __init__(
        self,
        upstream: Upstream,
        policy: Policy,
        request: RunRequest,
        vote_settings: VoteSettings,
        ask: Callable[[RunRequest], Awaitable[RunResult]],
    ) -> None:
        self._upstream = upstream
        self._ask = ask
        self._policy = policy
        self._request = request
        self._planned_request = vote_settings.with_logprobs(request)
        self._traits = upstream.traits(str(request.body.get("model", "")))
        self._plans: dict[tuple[str | None, int | None], SamplePlan] = {}
        self._began = time.monotonic()
        self._count = VoteCount(request, vote_settings)
        self._records = SampleRecords(answers=self._count.answers)
        self._lengths: dict[int, int] = {}
        self._confidences: dict[int, float] = {}
        self._draws: dict[int, _Draw] = {}
        self._queue: asyncio.Queue[Delta | FinishedSample | _Failed | BaseException] = asyncio.Queue()
        self._live: int | None = None  # the sample that is shown as it comes
        seed = request.body.get("seed")
        self._seed = seed if isinstance(seed, int) else random.randrange(_SEEDS)

    async def run(self) -> AsyncGenerator[Event, None]:
        """Yield the run's events (see `gateway.runs.run.Runner.run`)."""
        try:
            while True:
                step = self._policy.step(self._state())
                self._abort(step.abort)
                if step.done:
                    break
                for launch in step.launch:
                    self._launch(launch)
                deadline = None if step.wake_after is None else time.monotonic() + step.wake_after
                while isinstance(event := await self._next_event(deadline), Delta):
                    if self._is_shown(event.index):
                        yield delta_as_asked(event, self._request.body)
                if isinstance(event, FinishedSample):
                    if (progress := await self._record(event)) is not None:
                        yield progress
                elif event is not None:
                    for progress in self._record_failure(event):
                        yield progress
            yield Finished(await self._finish(step.reason))
        finally:
            await self._stop_all()

    def _state(self) -> VoteState:
        records = self._records
        return VoteState(
            self._request.sampling,
            self._count.groups,
            tuple(
                RunningSample(index, counts.completion, counts.lowest)
                for drawing in self._draws.values()
                for index, counts in drawing.counts.items()
                if index not in records.status
            ),
            failures=sum(status == "failed" for status in records.status.values()),
            elapsed=time.monotonic() - self._began,
            launched=records.launched,
            finish_order=tuple(records.finished),
            lengths=self._lengths,
            confidences=self._confidences,
            lost_tokens=sum(counts.completion for counts in records.lost),
        )

    def _launch(self, launch: Launch) -> None:
        """Start more samples: in one upstream request where none of them could be stopped alone."""
        first = self._records.launched
        indices = range(first, first + launch.count)
        self._records.launched += launch.count
        plan = self._plan(launch.sampling)
        if plan.limit is None and not plan.prefill and launch.sampling.stop == "none":
            self._start(plan, indices)
        else:
            for index in indices:
                self._start(plan, (index,))

    def _plan(self, sampling: SamplingRequest) -> SamplePlan:
        """Return the plan for samples at this level; all of them share it and its rendered prompt."""
        key = (sampling.level, sampling.thinking_limit)
        if (plan := self._plans.get(key)) is None:
            plan = self._plans[key] = plan_samples(self._planned_request, sampling, self._traits)
            self._records.notes |= dict.fromkeys(plan.notes)
        return plan

    def _start(self, plan: SamplePlan, indices: Sequence[int]) -> None:
        counts = {index: TokenCounts() for index in indices}
        task = asyncio.create_task(self._draw(plan, counts))
        task.add_done_callback(self._report_crash)
        drawing = _Draw(task, counts)
        for index in indices:
            self._draws[index] = drawing

    async def _draw(self, plan: SamplePlan, counts: dict[int, TokenCounts]) -> None:
        """Draw samples into the queue; a failure goes there as well."""
        indices, missing = tuple(counts), set(counts)
        reply = self._request.reply
        deltas = reply.stream and (not self._request.votes or reply.live == "first")
        seed = self._seed + indices[0]
        events = draw(self._upstream, plan, indices, tuple(counts.values()), seed=seed, deltas=deltas)
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, FinishedSample):
                        missing.discard(event.sample.index)
                        self._queue.put_nowait(event)
                    elif self._is_shown(event.index):
                        self._queue.put_nowait(event)
        except UpstreamError as error:
            if len(missing) < len(indices) or not self._start_again(plan, indices, error):
                self._queue.put_nowait(_Failed(tuple(missing), error))
            return
        for index in missing:  # an upstream that gave fewer choices than it was asked for
            self._start(plan, (index,))

    def _start_again(self, plan: SamplePlan, indices: Sequence[int], error: UpstreamError) -> bool:
        """Start samples another way if the engine refuses this one; return whether there is another."""
        if plan.window is not None and refuses_logprobs(error):
            self._planned_request = self._request
            self._plans.clear()
            self._records.notes["the upstream gives no logprobs, so no confidence is known"] = None
            self._start(self._plan(plan.sampling), indices)
            return True
        if len(indices) > 1 and _refuses_n(error):
            for index in indices:
                self._start(plan, (index,))
            return True
        return False

    def _report_crash(self, task: asyncio.Task[None]) -> None:
        """End the request after a bug in a draw, rather than leave it waiting."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._queue.put_nowait(error)

    def _is_shown(self, index: int) -> bool:
        """Tell whether this sample's deltas go to the client as they come."""
        if not self._request.reply.stream:
            return False
        if not self._request.votes:
            return True
        if self._request.reply.live == "first" and self._live is None:
            self._live = index
        return self._live == index

    async def _next_event(self, deadline: float | None) -> Delta | FinishedSample | _Failed | None:
        """Return what happens next; None where nothing does up to the deadline (of `time.monotonic`)."""
        wait = None if deadline is None else deadline - time.monotonic()
        if wait is not None and wait <= 0:
            return None
        try:
            async with asyncio.timeout(wait):
                event = await self._queue.get()
        except TimeoutError:
            return None
        if isinstance(event, BaseException):
            raise event
        return event

    async def _record(self, finished: FinishedSample) -> Progress | None:
        """Record a finished sample and its answer; return how the vote stands."""
        records, sample = self._records, finished.sample
        if sample.index in records.status:  # aborted while its last event was under way
            return None
        records.finished[sample.index] = finished
        self._lengths[sample.index] = sample.usage.completion
        if finished.counts.confidence is not None:
            self._confidences[sample.index] = finished.counts.confidence
        votes = await self._count.add(sample)
        records.status[sample.index] = (
            "truncated" if sample.truncated else "finished" if votes else "unanswered"
        )
        return self._progress(sample.index, sample)

    def _record_failure(self, failure: _Failed) -> list[Progress]:
        """Record failed samples; return how the vote stands.

        Nothing is reported before a sample has finished: where all fail, the error's own status is sent.
        """
        records = self._records
        records.failure = failure.error
        failed = [index for index in failure.indices if index not in records.status]
        for index in failed:
            records.status[index] = "failed"
            records.lost.append(self._draws[index].counts[index])
        return [self._progress(index, None) for index in failed] if records.finished else []

    def _progress(self, index: int, sample: Sample | None) -> Progress:
        records, answer = self._records, self._count.answers.get(index)
        standing = self._count.standing([finished.sample for finished in records.finished.values()])
        raw = None if answer is None else answer.raw
        return Progress(index, records.status[index], raw, sample, self._counts(), standing)

    def _counts(self) -> SampleCounts:
        statuses = list(self._records.status.values())
        return SampleCounts(
            self._request.sampling.samples,
            self._records.launched,
            finished=sum(status in ("finished", "truncated", "unanswered") for status in statuses),
            truncated=statuses.count("truncated"),
            unanswered=statuses.count("unanswered"),
            aborted=statuses.count("aborted"),
            failed=statuses.count("failed"),
        )

    def _abort(self, indices: frozenset[int]) -> None:
        for index in indices:
            drawing = self._draws[index]
            self._records.status[index] = "aborted"
            self._records.lost.append(drawing.counts[index])
            if all(other in self._records.status for other in drawing.counts):
                drawing.task.cancel()

    async def _stop_all(self) -> None:
        tasks = {drawing.task for drawing in self._draws.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish(self, reason: str) -> RunResult:
        """Vote and return the result. Raises the upstream's error where every sample failed."""
        records, request = self._records, self._request
        if not records.finished:
            raise records.failure or UpstreamError(502, "No sample was finished within the limits.")
        vote, scorer_tokens = None, 0
        if request.votes:
            samples = [finished.sample for finished in records.finished.values()]
            counts = [*(finished.counts for finished in records.finished.values()), *records.lost]
            model = RequestModel(self._ask, request, spent=sum(each.completion for each in counts))
            vote = await self._count.decide(samples, model, self._seconds_left())
            scorer_tokens = model.tokens
        return result_of_vote(
            request,
            records,
            self._counts(),
            vote,
            began=self._began,
            stop=reason,
            scorer_tokens=scorer_tokens,
        )

    def _seconds_left(self) -> float | None:
        limit = self._request.sampling.limits.max_seconds
        return None if limit is None else max(0.0, limit - (time.monotonic() - self._began))


@dataclass(frozen=True, slots=True)
class AllChoices:
    """The policy of choices that are returned without a vote: draw them all."""

    count: int

    def step(self, state: VoteState) -> Step:
        """See `Policy`."""
        return VotePolicy().step(
            replace(
                state, sampling=replace(state.sampling, samples=self.count, stop="none", choices=self.count)
            )
        )


def _refuses_n(error: UpstreamError) -> bool:
    """Tell whether an engine's 4xx or 501 is about the number of choices."""
    return error.status in {400, 422, 501} and bool(re.search(r"\bn\b|choices", error.message))
