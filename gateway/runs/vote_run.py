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
from dataclasses import dataclass

from gateway.errors import UpstreamError
from gateway.runs.events import (
    Delta,
    Event,
    FailedSample,
    Finished,
    FinishedSample,
    Progress,
    RunResult,
    SampleCounts,
    TokenCounts,
)
from gateway.runs.logprobs import refuses_logprobs, trim_delta_logprobs
from gateway.runs.request import RunRequest
from gateway.runs.result import SampleRecords, result_of_vote
from gateway.runs.sample_plan import SamplePlan, plan_samples
from gateway.runs.sampling import draw_samples
from gateway.runs.scorers import RequestModel
from gateway.runs.voting import VoteSettings, VoteTally
from gateway.upstreams.base import Upstream
from policies.types import Launch, Policy, RunningSample, SamplingRequest, VoteState
from scorers.types import Sample

__all__ = ["VoteRun"]

_UNREAD_DELTAS = 64
"""Deltas that may wait for the client. At more, the samples that it sees wait, and so do their streams."""

_DETERMINISTIC = frozenset({400, 404, 413, 422})
"""The statuses of refusals that another try would only repeat."""

_SEED_RANGE = 2**31 - 2**16  # room for seed + i in engines that keep seeds in 32 bits


@dataclass(slots=True)
class _SampleTask:
    """A task that draws one or several samples. It keeps their token counts up to date.

    `started` is a time of `time.monotonic`. While the samples wait for the client, since `waiting_since`,
    their own time stands still.
    """

    task: asyncio.Task[None]
    counts: dict[int, TokenCounts]
    started: float
    waiting_since: float | None = None

    @property
    def seconds(self) -> float:
        """The samples' own seconds so far."""
        return (self.waiting_since or time.monotonic()) - self.started


@dataclass(frozen=True, slots=True)
class _Failure:
    """Samples that an error ended."""

    indices: tuple[int, ...]
    error: UpstreamError


class VoteRun:
    """Draws the samples of one request as the policy says, and combines them by its vote.

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
        self._started = time.monotonic()
        self._tally = VoteTally(request, vote_settings)
        self._records = SampleRecords(answers=self._tally.answers)
        self._lengths: dict[int, int] = {}
        self._confidences: dict[int, float] = {}
        self._durations: dict[int, float] = {}
        self._retryable: set[int] = set()
        self._tasks: dict[int, _SampleTask] = {}
        self._queue: asyncio.Queue[Delta | FinishedSample | _Failure | BaseException] = asyncio.Queue()
        self._next: Delta | FinishedSample | BaseException | None = None  # taken from the queue too early
        self._room = asyncio.Semaphore(_UNREAD_DELTAS)
        self._streamed_index: int | None = None  # the one sample of a vote that the client sees as it comes
        seed = request.body.get("seed")
        self._seed = seed if isinstance(seed, int) else random.randrange(_SEED_RANGE)

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
                    self._room.release()
                    yield trim_delta_logprobs(event, self._request.body)
                if isinstance(event, FinishedSample):
                    if (progress := await self._record(event)) is not None:
                        yield progress
                elif event is not None:
                    for failure in self._failures(event):
                        for progress in self._record_failure(failure):
                            yield progress
            yield Finished(await self._finish(step.reason))
        finally:
            await self._stop_all()

    def _state(self) -> VoteState:
        records = self._records
        return VoteState(
            self._request.sampling,
            self._tally.groups,
            tuple(
                RunningSample(
                    index,
                    sample_task.counts[index].completion,
                    sample_task.counts[index].lowest_confidence,
                    self._durations.get(index, sample_task.seconds),
                )
                for index, sample_task in self._tasks.items()
                if index not in records.status
            ),
            failures=sum(status == "failed" for status in records.status.values()),
            retryable=frozenset(self._retryable),
            elapsed=time.monotonic() - self._started,
            launched=records.launched,
            finish_order=tuple(records.finished),
            lengths=self._lengths,
            durations=self._durations,
            confidences=self._confidences,
            lost_tokens=sum(counts.completion for counts in records.lost),
        )

    def _launch(self, launch: Launch) -> None:
        """Start more samples, in one upstream request if no limit or rule may stop one of them alone."""
        first = self._records.launched
        indices = range(first, first + launch.count)
        self._records.launched += launch.count
        plan = self._plan(launch.sampling)
        alone = plan.limit is not None or plan.prefill or plan.repairs_stops
        if not alone and launch.sampling.stop == "none":
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
        sample_task = _SampleTask(task, counts, time.monotonic())
        for index in indices:
            self._tasks[index] = sample_task

    async def _draw(self, plan: SamplePlan, counts: dict[int, TokenCounts]) -> None:
        """Draw samples and put their events, or their failure, into the queue."""
        indices, missing = tuple(counts), set(counts)
        reply = self._request.reply
        stream = reply.stream and (not self._request.votes or reply.live == "first")
        seed = self._seed + indices[0]
        events = draw_samples(self._upstream, plan, indices, tuple(counts.values()), seed=seed, stream=stream)
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, FinishedSample):
                        index = event.sample.index
                        missing.discard(index)
                        self._durations[index] = self._tasks[index].seconds
                        self._queue.put_nowait(event)
                    elif isinstance(event, FailedSample):
                        missing.discard(event.index)
                        self._queue.put_nowait(_Failure((event.index,), event.error))
                    elif isinstance(event, Delta) and self._may_stream(event.index):
                        await self._wait_for_room(event.index)
                        self._queue.put_nowait(event)
        except UpstreamError as error:
            if len(missing) < len(indices) or not self._work_around(plan, indices, error):
                self._queue.put_nowait(_Failure(tuple(missing), error))
            return
        for index in missing:  # the upstream returned fewer choices than requested
            self._start(plan, (index,))

    async def _wait_for_room(self, index: int) -> None:
        """Wait until the client has read enough."""
        if self._room.locked():
            sample_task = self._tasks[index]
            sample_task.waiting_since = time.monotonic()
            await self._room.acquire()
            sample_task.started, sample_task.waiting_since = time.monotonic() - sample_task.seconds, None
        else:
            await self._room.acquire()

    def _work_around(self, plan: SamplePlan, indices: Sequence[int], error: UpstreamError) -> bool:
        """Start the samples again without what the engine refuses. Return False if it is something else."""
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

    def _may_stream(self, index: int) -> bool:
        """Tell whether the client sees this sample's deltas. In a vote, the first that has any is chosen."""
        if not self._request.reply.stream:
            return False
        if not self._request.votes:
            return True
        if self._request.reply.live == "first" and self._streamed_index is None:
            self._streamed_index = index
        return self._streamed_index == index

    async def _next_event(self, deadline: float | None) -> Delta | FinishedSample | _Failure | None:
        """Return the next event, or None at the deadline, a time of `time.monotonic`."""
        event: Delta | FinishedSample | _Failure | BaseException | None
        event, self._next = self._next, None
        if event is None:
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

    def _failures(self, first: _Failure) -> list[_Failure]:
        """Return a failure and those that came right with it, so that all are drawn again together."""
        failures = [first]
        while self._next is None and not self._queue.empty():
            event = self._queue.get_nowait()
            if isinstance(event, _Failure):
                failures.append(event)
            else:
                self._next = event
        return failures

    async def _record(self, finished: FinishedSample) -> Progress | None:
        """Record a finished sample and its answer; return the progress of the vote."""
        records, sample = self._records, finished.sample
        if sample.index in records.status:  # it was aborted while its last event was in the queue
            return None
        records.finished[sample.index] = finished
        self._lengths[sample.index] = sample.usage.completion
        if finished.counts.confidence is not None:
            self._confidences[sample.index] = finished.counts.confidence
        has_vote = await self._tally.add(sample)
        if sample.truncated:
            records.status[sample.index] = "truncated"
        else:
            records.status[sample.index] = "finished" if has_vote else "unanswered"
        return self._progress(sample.index, sample)

    def _record_failure(self, failure: _Failure) -> list[Progress]:
        """Record failed samples; return the progress of the vote after each.

        There is no progress before the first finished sample. If all fail, the client gets the error itself.
        """
        records = self._records
        records.failure = failure.error
        failed = [index for index in failure.indices if index not in records.status]
        for index in failed:
            records.status[index] = "failed"
            records.lost.append(self._tasks[index].counts[index])
        if failure.error.status not in _DETERMINISTIC and (
            self._request.votes or not self._request.reply.stream
        ):
            self._retryable.update(failed)  # a choice that is shown as it comes can't begin anew
        return [self._progress(index, None) for index in failed] if records.finished else []

    def _progress(self, index: int, sample: Sample | None) -> Progress:
        records, answer = self._records, self._tally.answers.get(index)
        current_result = self._tally.current_result(
            [finished.sample for finished in records.finished.values()]
        )
        raw = None if answer is None else answer.raw
        return Progress(index, records.status[index], raw, sample, self._sample_counts(), current_result)

    def _sample_counts(self) -> SampleCounts:
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
            sample_task = self._tasks[index]
            self._records.status[index] = "aborted"
            self._records.lost.append(sample_task.counts[index])
            if all(other in self._records.status for other in sample_task.counts):
                sample_task.task.cancel()

    async def _stop_all(self) -> None:
        tasks = {sample_task.task for sample_task in self._tasks.values()}
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
            model = RequestModel(self._ask, request, spent=sum(count.completion for count in counts))
            vote = await self._tally.decide(samples, model, self._seconds_left())
            scorer_tokens = model.tokens
        return result_of_vote(
            request,
            records,
            self._sample_counts(),
            vote,
            started=self._started,
            stop=reason,
            scorer_tokens=scorer_tokens,
        )

    def _seconds_left(self) -> float | None:
        limit = self._request.sampling.limits.max_seconds
        return None if limit is None else max(0.0, limit - (time.monotonic() - self._started))


def _refuses_n(error: UpstreamError) -> bool:
    """Tell whether an engine refuses to give several choices."""
    return error.status in {400, 422, 501} and bool(re.search(r"\bn\b|choices", error.message))
