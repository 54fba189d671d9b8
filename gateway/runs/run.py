"""How a request is run: as one plain request, as one stream, or as a poll of many samples."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.http.streaming import fold
from gateway.runs.budget import AUTO
from gateway.runs.events import Event, Finished
from gateway.runs.request import RunRequest
from gateway.runs.result import is_silent, result_of, with_cost
from gateway.runs.sample_plans import Orders
from gateway.runs.sample_state import FinishedSample
from gateway.runs.sampling import draw, split_reply
from gateway.runs.vote_run import Everything, VoteRun
from gateway.runs.voting import VoteSettings
from gateway.upstreams.base import Upstream, UpstreamRequest
from policies.escalation import AutoPolicy
from policies.prompts import thinking_limit
from policies.stopping import VotePolicy
from policies.types import Policy

__all__ = ["Runner"]


class Runner:
    """Runs requests on one upstream, so one serves all requests of an app.

    `vote_settings` is how its votes are held; `policy` stands in for the one that the vote_settings and the
    budget call for.
    """

    def __init__(
        self, upstream: Upstream, policy: Policy | None = None, vote_settings: VoteSettings | None = None
    ) -> None:
        self.vote_settings = vote_settings or VoteSettings()
        self._upstream = upstream
        self._policy = policy or VotePolicy(self.vote_settings.launch, self.vote_settings.concurrency)

    def run(self, request: RunRequest) -> AsyncGenerator[Event, None]:
        """The request's events; the last one is `Finished`. Raises `UpstreamError` if all fail.

        Closing the generator aborts everything that runs upstream for it.
        """
        limited = request.sampling.thinking_limit is not None
        if request.votes or request.sampling.level == AUTO:
            return self._poll(request, self._policy_for(request))
        if request.reply.choices > 1 and (limited or request.approach(request.sampling).terms.prefill):
            # Each choice has a limit of its own to be watched, or a beginning to go on from.
            return self._poll(request, Everything(request.reply.choices))
        level = request.model.levels.get(request.sampling.level or "")
        waits = level is not None and level.waits > 0
        watched = limited and (waits or not self._upstream.proven_limit(request.body))
        if request.reply.choices > 1 or request.reply.stream or watched:
            return self._streamed(request)
        return self._plain(request)

    def _poll(self, request: RunRequest, policy: Policy) -> AsyncGenerator[Event, None]:
        return VoteRun(
            self._upstream, policy, request, self.vote_settings, lambda other: fold(self.run(other))
        ).run()

    async def _plain(self, request: RunRequest) -> AsyncGenerator[Event, None]:
        """One reply with nothing to watch, or a limit that the engine keeps for sure: one plain request."""
        began = time.monotonic()
        limit = request.sampling.thinking_limit
        native = None if limit is None else self._upstream.native_limit(request.body, limit)
        approach = request.approach(request.sampling, native=native)
        if approach.terms.prefill:
            async with aclosing(self._streamed(request)) as events:
                async for event in events:
                    yield event
            return
        shaped, body = approach.shaped, approach.body
        close_ids = None
        if limit is not None:
            close_ids = await self._upstream.token_ids(request.model.name, shaped.markup.close)
            body = {**body, "return_token_ids": True} if close_ids else body
        response = await self._upstream.complete(UpstreamRequest(body))
        drawn = split_reply(
            response.body,
            range(1),
            shaped.markup,
            answer_only=shaped.off is not None,
            close_ids=close_ids,
            enforced="none" if limit is None else "native",
            splits=self._upstream.splits_thinking(body),
        )
        if limit is not None and any(each.tally.reasoning > limit for each in drawn):
            self._upstream.limit_kept(request.body, False)  # it is watched again from now on
        if limit is not None and any(is_silent(each.sample) for each in drawn):
            async with aclosing(self._streamed(request)) as events:
                async for event in events:  # watched, so that it is led to an answer
                    yield with_cost(event, drawn)
            return
        yield Finished(result_of(request, drawn, began, shaped.notes))

    async def _streamed(self, request: RunRequest) -> AsyncGenerator[Event, None]:
        """One upstream request whose choices go back as they are."""
        began = time.monotonic()
        drawn: list[FinishedSample] = []
        indices = tuple(range(request.reply.choices))
        order, notes = Orders(self._upstream, request).order(request.sampling, indices)
        async with aclosing(draw(self._upstream, order, deltas=request.reply.stream)) as events:
            async for event in events:
                if isinstance(event, FinishedSample):
                    drawn.append(event)
                else:
                    yield event
        yield Finished(result_of(request, drawn, began, notes))

    def _policy_for(self, request: RunRequest) -> Policy:
        """The policy that an app was given, or the one that the budget calls for."""
        if request.sampling.level == AUTO or request.auto_samples:
            context = request.model.context
            levels = {name: thinking_limit(level, context) for name, level in request.model.levels.items()}
            return AutoPolicy(levels=levels, concurrency=self.vote_settings.concurrency)
        return self._policy
