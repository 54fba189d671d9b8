"""The request's own model, as a scorer may ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gateway.runs.budget import Asked, parse_thinking
from gateway.runs.events import Outcome
from gateway.runs.request import Job, Model, Reply, plan_job
from policies.families import Family, find_family
from scorers.types import Sample, ScorerError

__all__ = ["OwnModel"]


class OwnModel:
    """The request's own model as a scorer may ask it (a `scorers.types.Model`): limits hold, tokens count.

    `ask` runs one more job; `spent` are the tokens that the request has already generated.
    """

    def __init__(self, ask: Callable[[Job], Awaitable[Outcome]], job: Job, spent: int) -> None:
        self._ask = ask
        self._job = job
        self._spent = spent
        self.tokens = 0

    def count(self, tokens: int) -> None:
        """See `Model`."""
        self.tokens += tokens

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        """See `Model`. `reasoning_effort` is the budget, off unless said; `model` may name another."""
        most = self._job.budget.limits.max_tokens
        if most is not None and self._spent >= most:
            raise ScorerError("the request's limit in tokens is reached")
        model = self._job.model
        if (name := params.pop("model", model.name)) != model.name:
            model = Model(name, self._family(name))
        thinking = parse_thinking(params.pop("reasoning_effort", "off"), "reasoning_effort", model.levels)
        body = {"model": name, "messages": list(messages), **params}
        outcome = await self._ask(plan_job(body, Asked(thinking), Reply(), model))
        self._spent += outcome.generated
        self.tokens += outcome.generated + outcome.upstream_prompt
        return outcome.chosen[0]

    def _family(self, name: str) -> Family:
        """A name that tells nothing is taken for an adapter's, on the base of the request's own model."""
        own, found = self._job.model, find_family(name)
        return own.family if found is find_family("") and own.card and own.card.base else found
