"""Runs a request: as one plain request, as one stream, or as a vote over many samples."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from gateway.runs.budget import AUTO
from gateway.runs.events import Delta, Event, FailedSample, Finished, FinishedSample, RunResult
from gateway.runs.request import RunRequest
from gateway.runs.result import is_silent, result_of, with_cost
from gateway.runs.sample_plan import SamplePlan, plan_samples
from gateway.runs.sampling import draw_samples
from gateway.runs.vote_run import VoteRun
from gateway.runs.voting import VoteSettings
from gateway.runs.whole_reply import read_choices, read_reply
from gateway.upstreams.base import Upstream, UpstreamRequest
from policies.escalation import AutoPolicy
from policies.prompts import thinking_limit
from policies.stopping import AllChoicesPolicy, VotePolicy
from policies.types import Policy

__all__ = ["Runner"]


class Runner:
    """Runs requests on one upstream; one runner serves all requests of an app.

    `vote_settings` say how votes are held. `policy` replaces the one that the vote settings and the budget
    call for.
    """

    def __init__(
        self, upstream: Upstream, policy: Policy | None = None, vote_settings: VoteSettings | None = None
    ) -> None:
        self.vote_settings = vote_settings or VoteSettings()
        self._upstream = upstream
        self._policy = policy or VotePolicy(self.vote_settings.launch, self.vote_settings.concurrency)

    def run(self, request: RunRequest) -> AsyncGenerator[Event, None]:
        """Return the request's events, `Finished` last. Raises `UpstreamError` if all samples fail.

        Closing the generator aborts everything that runs upstream for it.
        """
        sampling, choices = request.sampling, request.reply.choices
        if request.votes or sampling.level == AUTO:
            return self._run_vote(request, self._policy_for(request))
        plan = self.plan(request)
        if request.verbatim and not request.reply.stream:
            return self._run_verbatim(request, plan)
        if choices > 1 and (plan.limit is not None or plan.prefill):
            # Each choice has a limit of its own to be watched, or a beginning to continue from.
            return self._run_vote(request, AllChoicesPolicy(choices))
        watched = plan.limit is not None and (plan.waits > 0 or not plan.traits.keeps_limit)
        if choices > 1 or request.reply.stream or watched or plan.prefill:
            return self._run_stream(request, plan)
        return self._run_plain(request, plan)

    def plan(self, request: RunRequest) -> SamplePlan:
        """Plan samples at the request's own level."""
        traits = self._upstream.traits(str(request.body.get("model", "")))
        return plan_samples(request, request.sampling, traits)

    async def complete(self, request: RunRequest) -> RunResult:
        """Run a request to its end."""
        async with aclosing(self.run(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.result
        raise AssertionError("a run ends with Finished")

    def _run_vote(self, request: RunRequest, policy: Policy) -> AsyncGenerator[Event, None]:
        return VoteRun(self._upstream, policy, request, self.vote_settings, self.complete).run()

    async def _run_plain(self, request: RunRequest, plan: SamplePlan) -> AsyncGenerator[Event, None]:
        """Send one plain request: nothing is to be watched, or the engine is known to keep the limit."""
        started = time.monotonic()
        limit, body, close_ids = plan.limit, plan.body, None
        if limit is not None and plan.traits.gives_token_ids:
            close_ids = await self._upstream.token_ids(request.model.name, plan.markup.close)
            body = {**body, "return_token_ids": True} if close_ids else body
        completion = await self._upstream.complete(UpstreamRequest(body))
        finished = read_reply(completion, plan, close_ids)
        if limit is not None and finished.counts.reasoning > limit:
            plan.traits.observe_limit(False)  # from now on the gateway watches it again
        if limit is not None and is_silent(finished.sample):
            async with aclosing(self._run_stream(request, plan)) as events:
                async for event in events:  # watched, so that the gateway can lead it to an answer
                    yield with_cost(event, finished.counts)
            return
        yield Finished(result_of(request, [finished], started, plan.notes, headers=completion.headers))

    async def _run_verbatim(self, request: RunRequest, plan: SamplePlan) -> AsyncGenerator[Event, None]:
        """Send the request as it came, and return the engine's own reply beside what it says."""
        started = time.monotonic()
        completion = await self._upstream.complete(UpstreamRequest(plan.body, verbatim=True))
        finished, failed = read_choices(completion, plan)
        reply = completion.body
        if failed:
            lost = {entry.index for entry in failed}
            choices = [c for place, c in enumerate(reply["choices"]) if c.get("index", place) not in lost]
            reply = {**reply, "choices": choices}
        extra = {"reply": reply, "headers": completion.headers, "usage": reply.get("usage") or {}}
        yield Finished(result_of(request, finished, started, plan.notes, failed, **extra))

    async def _run_stream(self, request: RunRequest, plan: SamplePlan) -> AsyncGenerator[Event, None]:
        """Draw the choices of one upstream request; they go back as they are."""
        started = time.monotonic()
        finished: list[FinishedSample] = []
        failed: list[FailedSample] = []
        usage: dict[str, Any] = {}
        indices = range(request.reply.choices)
        async with aclosing(
            draw_samples(self._upstream, plan, indices, stream=request.reply.stream)
        ) as events:
            async for event in events:
                if isinstance(event, Delta):
                    yield event
                elif isinstance(event, FinishedSample):
                    finished.append(event)
                elif isinstance(event, FailedSample):
                    failed.append(event)
                else:
                    usage = event.event.get("usage") or usage
                    yield event
        extra = {"usage": usage} if usage else {}
        yield Finished(result_of(request, finished, started, plan.notes, failed, **extra))

    def _policy_for(self, request: RunRequest) -> Policy:
        """Return the policy that the app was given, or the one that the budget calls for."""
        if request.sampling.level == AUTO or request.auto_samples:
            context = request.model.context
            levels = {name: thinking_limit(level, context) for name, level in request.model.levels.items()}
            return AutoPolicy(levels=levels, concurrency=self.vote_settings.concurrency)
        return self._policy
