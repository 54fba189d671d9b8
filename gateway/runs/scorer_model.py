"""The request's own model, as a scorer may ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gateway.runs.budget import RequestedSampling, parse_budget
from gateway.runs.events import RunResult
from gateway.runs.request import ReplyOptions, RunRequest, ServedModel, plan_request
from policies.families import Family, find_family
from scorers.types import Sample, ScorerError

__all__ = ["RequestModel"]


class RequestModel:
    """The request's own model as a scorer may ask it (a `ScorerModel`): limits hold, tokens count.

    `ask` runs one more request; `spent` are the tokens that the request has already generated.
    """

    def __init__(
        self, ask: Callable[[RunRequest], Awaitable[RunResult]], request: RunRequest, spent: int
    ) -> None:
        self._ask = ask
        self._request = request
        self._spent = spent
        self.tokens = 0

    def count(self, tokens: int) -> None:
        """See `ServedModel`."""
        self.tokens += tokens

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        """See `ServedModel`. `reasoning_effort` is the budget, off unless said; `model` may name another."""
        most = self._request.sampling.limits.max_tokens
        if most is not None and self._spent >= most:
            raise ScorerError("the request's limit in tokens is reached")
        model = self._request.model
        if (name := params.pop("model", model.name)) != model.name:
            model = ServedModel(name, self._family(name))
        thinking = parse_budget(params.pop("reasoning_effort", "off"), "reasoning_effort", model.levels)
        body = {"model": name, "messages": list(messages), **params}
        result = await self._ask(plan_request(body, RequestedSampling(thinking), ReplyOptions(), model))
        self._spent += result.generated
        self.tokens += result.generated + result.upstream_prompt
        return result.chosen[0]

    def _family(self, name: str) -> Family:
        """A name that tells nothing is taken for an adapter's, on the base of the request's own model."""
        own, found = self._request.model, find_family(name)
        return own.family if found is find_family("") and own.card and own.card.base else found
