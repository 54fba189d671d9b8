"""The loop: policy step -> samples -> groups -> vote -> stop.

Decisions are the policy's, the grader's and the vote's, all pure; this module only does
what they say: it starts and aborts draws, keeps the books and tells what happens.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.errors import UpstreamError
from gateway.runs.events import Delta, Event, Finished, Progress, RunResult, SampleCounts, Status
from gateway.runs.logprobs import delta_as_asked, refuses_logprobs, sample_as_asked, watched
from gateway.runs.request import RunRequest
from gateway.runs.result import result_of
from gateway.runs.sample_plans import Orders
from gateway.runs.sample_state import FinishedSample, TokenCounts
from gateway.runs.sampling import draw
from gateway.runs.scorer_model import RequestModel
from gateway.runs.voting import Decision, Election, VoteSettings
from gateway.upstreams.base import Upstream
from policies.stopping import VotePolicy
from policies.types import Launch, Policy, RunningSample, SamplingRequest, Step, VoteState
from scorers.types import Sample, VoteResult

__all__ = ["Everything", "VoteRun"]

_SEEDS = 2**31 - 2**16  # room for seed + i in engines that keep seeds in 32 bits


@dataclass(slots=True)
class _Running:
    """One draw in flight: its task, and the tallies of its samples, which it keeps up to date."""

    task: asyncio.Task[None]
    tallies: dict[int, TokenCounts]


@dataclass(frozen=True, slots=True)
class _Failed:
    indices: tuple[int, ...]
    error: UpstreamError


@dataclass(slots=True)
class _Books:
    """What has happened to a vote's samples so far."""

    drawn: dict[int, FinishedSample] = field(default_factory=dict)
    status: dict[int, Status] = field(default_factory=dict)
    lost: list[TokenCounts] = field(default_factory=list)
    launched: int = 0
    failure: UpstreamError | None = None

    def counts(self, asked: int) -> SampleCounts:
        came: list[Status] = list(self.status.values())
        return SampleCounts(
            asked,
            self.launched,
            finished=sum(status in ("finished", "truncated", "unanswered") for status in came),
            truncated=came.count("truncated"),
            unanswered=came.count("unanswered"),
            aborted=came.count("aborted"),
            failed=came.count("failed"),
        )


class VoteRun:
    """One request's samples, drawn as the policy says and combined by its vote.

    `ask` runs another request on the same engine, for scorers that ask a model.
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
        self._began = time.monotonic()
        self._books = _Books()
        self._election = Election(request, vote_settings)
        self._running: dict[int, _Running] = {}
        self._queue: asyncio.Queue[Delta | FinishedSample | _Failed | BaseException] = asyncio.Queue()
        self._orders = Orders(upstream, watched(request, vote_settings))
        self._notes: dict[str, None] = {}
        self._live: int | None = None
        self._rng = random.Random()
        seed = request.body.get("seed")
        self._seed = seed if isinstance(seed, int) else self._rng.randrange(_SEEDS)

    async def run(self) -> AsyncGenerator[Event, None]:
        """Its events; see `gateway.runs.run.Runner.run`."""
        try:
            while True:
                step = self._policy.step(self._state())
                self._abort(step.abort)
                if step.done:
                    break
                for ask in step.launch:
                    self._launch(ask)
                deadline = None if step.wake_after is None else time.monotonic() + step.wake_after
                while isinstance(event := await self._next(deadline), Delta):
                    if self._shown(event.index):
                        yield delta_as_asked(event, self._request.body)
                if event is not None:
                    for progress in await self._book(event):
                        yield progress
            yield Finished(await self._finish(step.reason))
        finally:
            await self._stop_all()

    def _state(self) -> VoteState:
        books = self._books
        drawn = books.drawn
        return VoteState(
            self._request.sampling,
            self._election.groups,
            tuple(
                RunningSample(index, tally.completion, tally.lowest)
                for running in self._running.values()
                for index, tally in running.tallies.items()
                if index not in books.status
            ),
            failures=sum(status == "failed" for status in books.status.values()),
            elapsed=time.monotonic() - self._began,
            launched=books.launched,
            finish_order=tuple(drawn),
            lengths={index: each.sample.usage.completion for index, each in drawn.items()},
            confidences={
                index: each.tally.confidence
                for index, each in drawn.items()
                if each.tally.confidence is not None
            },
            lost_tokens=sum(tally.completion for tally in books.lost),
        )

    def _launch(self, ask: Launch) -> None:
        """Starts more samples: in one upstream request where none of them could be stopped alone."""
        first = self._books.launched
        indices = tuple(range(first, first + ask.count))
        self._books.launched += ask.count
        order, notes = self._orders.order(ask.sampling, indices)
        self._notes |= dict.fromkeys(notes)
        if order.terms.limit is None and not order.terms.prefill and ask.sampling.stop == "none":
            self._start(ask.sampling, indices)
        else:
            for index in indices:
                self._start(ask.sampling, (index,))

    def _start(self, sampling: SamplingRequest, indices: tuple[int, ...]) -> None:
        tallies = {index: TokenCounts() for index in indices}
        task = asyncio.create_task(self._pump(sampling, indices, tallies))
        task.add_done_callback(self._crashed)
        running = _Running(task, tallies)
        for index in indices:
            self._running[index] = running

    async def _pump(
        self, sampling: SamplingRequest, indices: tuple[int, ...], tallies: dict[int, TokenCounts]
    ) -> None:
        """Draws samples into the queue; what fails goes there as well."""
        order, _ = self._orders.order(sampling, indices, self._seed + indices[0])
        left = set(indices)
        try:
            shown = self._request.reply.stream and (
                not self._request.votes or self._request.reply.live == "first"
            )
            own = list(tallies.values())
            async with aclosing(draw(self._upstream, order, own, deltas=shown)) as events:
                async for event in events:
                    if isinstance(event, FinishedSample):
                        left.discard(event.sample.index)
                        self._queue.put_nowait(event)
                    elif self._shown(event.index):
                        self._queue.put_nowait(event)
        except UpstreamError as error:
            if order.terms.window is not None and len(left) == len(indices) and refuses_logprobs(error):
                self._unwatched()
                self._start(sampling, indices)
                return
            if len(indices) > 1 and len(left) == len(indices) and _refuses_n(error):
                for index in indices:
                    self._start(sampling, (index,))
                return
            self._queue.put_nowait(_Failed(tuple(left), error))
            return
        for index in left:  # an upstream that gave fewer choices than it was asked for
            self._start(sampling, (index,))

    def _unwatched(self) -> None:
        """From here on without logprobs, which the upstream doesn't give."""
        self._orders = Orders(self._upstream, self._request)
        self._notes["the upstream gives no logprobs, so no confidence is known"] = None

    def _crashed(self, task: asyncio.Task[None]) -> None:
        """A bug in a draw must end the request, not leave it waiting."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._queue.put_nowait(error)

    def _shown(self, index: int) -> bool:
        """Whether this sample's deltas go to the client as they come."""
        if not self._request.reply.stream:
            return False
        if not self._request.votes:
            return True
        if self._request.reply.live == "first" and self._live is None:
            self._live = index
        return self._live == index

    async def _next(self, deadline: float | None) -> Delta | FinishedSample | _Failed | None:
        """What happens next; None where nothing but deltas did up to the deadline (of `time.monotonic`)."""
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

    async def _book(self, event: FinishedSample | _Failed) -> Sequence[Progress]:
        """Enters what came to an end; tells how the vote stands."""
        books = self._books
        if isinstance(event, _Failed):
            books.failure = event.error
            failed = [index for index in event.indices if index not in books.status]
            for index in failed:
                books.status[index] = "failed"
                books.lost.append(self._running[index].tallies[index])
            # Nothing is told before something came through: where all fail, the error's own status is.
            return [self._progress(index, None) for index in failed] if books.drawn else []
        sample = event.sample
        if sample.index in books.status:  # aborted while its last event was under way
            return []
        books.drawn[sample.index] = event
        votes = await self._election.add(sample)
        books.status[sample.index] = (
            "truncated" if sample.truncated else "finished" if votes else "unanswered"
        )
        return [self._progress(sample.index, sample)]

    def _progress(self, index: int, sample: Sample | None) -> Progress:
        books = self._books
        counts = books.counts(self._request.sampling.samples)
        standing = self._election.standing([drawn.sample for drawn in books.drawn.values()])
        return Progress(index, books.status[index], self._election.answer(index), sample, counts, standing)

    def _abort(self, indices: frozenset[int]) -> None:
        for index in indices:
            running = self._running[index]
            self._books.status[index] = "aborted"
            self._books.lost.append(running.tallies[index])
            if all(other in self._books.status for other in running.tallies):
                running.task.cancel()

    async def _stop_all(self) -> None:
        tasks = {running.task for running in self._running.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish(self, reason: str) -> RunResult:
        """The result. Raises the upstream's error where every sample failed."""
        books, request = self._books, self._request
        if not books.drawn:
            raise books.failure or UpstreamError(502, "No sample was finished within the limits.")
        samples = [drawn.sample for drawn in books.drawn.values()]
        model = RequestModel(self._ask, request, self._spent())
        decision = (
            await self._election.decide(samples, model, self._seconds_left()) if request.votes else None
        )
        notes: list[str] = []
        counts = books.counts(request.sampling.samples)
        if counts.failed:
            notes.append(f"{counts.failed} of {counts.launched} samples failed ({books.failure})")
        if decision is not None:
            ranking = _ranking(decision.verdict, samples)
            notes += decision.notes
            if decision.verdict.winner is None:
                notes.append("no sample has an answer that counts; the first complete one is returned")
        else:
            ranking = sorted(books.drawn)
        drawn = [books.drawn[index] for index in ranking]
        result = result_of(request, drawn, self._began, tuple(self._notes))
        everything = [each.tally for each in drawn] + books.lost
        mean = sum(each.tally.completion for each in drawn) / len(drawn)
        unspent = mean * (request.sampling.samples - len(drawn)) - sum(
            tally.completion for tally in books.lost
        )
        return replace(
            result,
            counts=counts,
            verdict=None if decision is None else decision.verdict,
            method="" if decision is None else decision.method,
            scorer="none" if decision is None else decision.scorer,
            scores={} if decision is None else decision.scores,
            scorer_tokens=model.tokens,
            chosen=tuple(
                sample_as_asked(each, request.body) for each in result.chosen[: request.reply.choices]
            ),
            drawn=tuple(sample_as_asked(each, request.body) for each in result.drawn),
            generated=sum(tally.completion for tally in everything),
            reasoning=sum(tally.reasoning for tally in everything),
            upstream_prompt=sum(tally.upstream_prompt for tally in everything),
            estimated=any(tally.estimated for tally in everything),
            saved=max(0, round(unspent)) if request.votes else 0,
            stop=reason if request.votes else "none",
            notes=(*result.notes, *notes),
            trace=self._traces(decision) if request.reply.trace else (),
        )

    def _spent(self) -> int:
        """Tokens generated so far, aborted samples included."""
        everything = [*(each.tally for each in self._books.drawn.values()), *self._books.lost]
        return sum(tally.completion for tally in everything)

    def _seconds_left(self) -> float | None:
        limit = self._request.sampling.limits.max_seconds
        return None if limit is None else max(0.0, limit - (time.monotonic() - self._began))

    def _traces(self, decision: Decision | None) -> tuple[Mapping[str, Any], ...]:
        scores = {} if decision is None else decision.scores
        return tuple(
            self._trace(index) | ({"score": scores[index]} if index in scores else {})
            for index in sorted(self._books.status)
        )

    def _trace(self, index: int) -> dict[str, Any]:
        drawn = self._books.drawn.get(index)
        told: dict[str, Any] = {"index": index, "status": self._books.status[index]}
        if drawn is not None:
            sample = drawn.sample
            told |= {"answer": self._election.answer(index), "tokens": sample.usage.completion}
            told |= {"reasoning_tokens": sample.usage.reasoning, "finish_reason": sample.finish_reason}
            told |= {"reasoning": sample.reasoning, "content": sample.content}
        return told


@dataclass(frozen=True, slots=True)
class Everything:
    """The policy of raw choices: draw them all."""

    count: int

    def step(self, state: VoteState) -> Step:
        """See `Policy`."""
        return VotePolicy().step(
            replace(
                state, sampling=replace(state.sampling, samples=self.count, stop="none", choices=self.count)
            )
        )


def _ranking(verdict: VoteResult, samples: Sequence[Sample]) -> list[int]:
    """The vote's ranking, then what did not vote: the whole before the truncated."""
    rest = [sample for sample in samples if sample.index not in verdict.ranking]
    return [*verdict.ranking, *(sample.index for sample in sorted(rest, key=lambda s: s.truncated))]


def _refuses_n(error: UpstreamError) -> bool:
    """Whether an engine's 400 is about the number of choices."""
    return error.status in {400, 422, 501} and bool(re.search(r"\bn\b|choices", error.message))
