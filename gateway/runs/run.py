"""How a job is run: as one plain request, as one stream, or as a poll of many samples."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.upstreams.base import Backend, Plan
from gateway.runs.budget import AUTO
from gateway.runs.voting import Jury
from gateway.runs.events import Event, Finished
from gateway.runs.sample_plans import Orders
from gateway.runs.result import is_silent, outcome_of, with_cost
from gateway.runs.request import Job
from gateway.runs.vote_run import Everything, Poll
from gateway.runs.sampling import draw, split_reply
from gateway.http.streaming import fold
from gateway.runs.sample_state import Drawn
from policies.escalation import AutoPolicy
from policies.prompts import thinking_limit
from policies.stopping import VotePolicy
from policies.types import Policy

__all__ = ["Engine"]


class Engine:
    """Runs jobs on one backend, so one serves all requests of an app.

    `jury` is how its votes are held; `policy` stands in for the one that the jury and the
    budget call for.
    """

    def __init__(self, backend: Backend, policy: Policy | None = None, jury: Jury | None = None) -> None:
        self.jury = jury or Jury()
        self._backend = backend
        self._policy = policy or VotePolicy(self.jury.launch, self.jury.concurrency)

    def run(self, job: Job) -> AsyncGenerator[Event, None]:
        """The job's events; the last one is `Finished`. Raises `UpstreamError` where no sample came through.

        Closing the generator aborts everything that runs upstream for it.
        """
        limited = job.budget.thinking_tokens is not None
        if job.votes or job.budget.effort == AUTO:
            return self._poll(job, self._policy_for(job))
        if job.reply.choices > 1 and (limited or job.approach(job.budget).terms.prefill):
            # Each choice has a limit of its own to be watched, or a beginning to go on from.
            return self._poll(job, Everything(job.reply.choices))
        level = job.model.levels.get(job.budget.effort or "")
        waits = level is not None and level.waits > 0
        watched = limited and (waits or not self._backend.proven_limit(job.body))
        if job.reply.choices > 1 or job.reply.stream or watched:
            return self._streamed(job)
        return self._plain(job)

    def _poll(self, job: Job, policy: Policy) -> AsyncGenerator[Event, None]:
        return Poll(self._backend, policy, job, self.jury, lambda other: fold(self.run(other))).run()

    async def _plain(self, job: Job) -> AsyncGenerator[Event, None]:
        """One reply with nothing to watch, or a limit that the engine keeps for sure: one plain request."""
        began = time.monotonic()
        limit = job.budget.thinking_tokens
        native = None if limit is None else self._backend.native_limit(job.body, limit)
        approach = job.approach(job.budget, native=native)
        if approach.terms.prefill:
            async with aclosing(self._streamed(job)) as events:
                async for event in events:
                    yield event
            return
        shaped, body = approach.shaped, approach.body
        close_ids = None
        if limit is not None:
            close_ids = await self._backend.token_ids(job.model.name, shaped.markup.close)
            body = {**body, "return_token_ids": True} if close_ids else body
        response = await self._backend.complete(Plan(body))
        drawn = split_reply(
            response.body,
            range(1),
            shaped.markup,
            answer_only=shaped.off is not None,
            close_ids=close_ids,
            enforced="none" if limit is None else "native",
            splits=self._backend.splits_thinking(body),
        )
        if limit is not None and any(each.tally.reasoning > limit for each in drawn):
            self._backend.limit_kept(job.body, False)  # it is watched again from now on
        if limit is not None and any(is_silent(each.sample) for each in drawn):
            async with aclosing(self._streamed(job)) as events:
                async for event in events:  # watched, so that it is led to an answer
                    yield with_cost(event, drawn)
            return
        yield Finished(outcome_of(job, drawn, began, shaped.notes))

    async def _streamed(self, job: Job) -> AsyncGenerator[Event, None]:
        """One upstream request whose choices go back as they are."""
        began = time.monotonic()
        drawn: list[Drawn] = []
        indices = tuple(range(job.reply.choices))
        order, notes = Orders(self._backend, job).order(job.budget, indices)
        async with aclosing(draw(self._backend, order, deltas=job.reply.stream)) as events:
            async for event in events:
                if isinstance(event, Drawn):
                    drawn.append(event)
                else:
                    yield event
        yield Finished(outcome_of(job, drawn, began, notes))

    def _policy_for(self, job: Job) -> Policy:
        """The policy that an app was given, or the one that the budget calls for."""
        if job.budget.effort == AUTO or job.auto_samples:
            context = job.model.context
            levels = {name: thinking_limit(level, context) for name, level in job.model.levels.items()}
            return AutoPolicy(levels=levels, concurrency=self.jury.concurrency)
        return self._policy
