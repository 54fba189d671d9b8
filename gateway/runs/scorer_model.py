"""The request's own model, as a scorer may ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.runs.budget import RequestedSampling, parse_budget
from gateway.runs.events import RunResult
from gateway.runs.request import ReplyOptions, RunRequest, ServedModel, plan_request
from policies.families import Family, find_family
from scorers.types import Sample, ScorerError

__all__ = ["RequestModel"]


@dataclass(slots=True)
class RequestModel:
    """The request's own model as a scorer may ask it (a `ScorerModel`): limits hold, tokens count.

    `ask` runs one more request. `spent` are the tokens that the request has already generated, `tokens` those
    that scorers have read and written.
    """

    ask: Callable[[RunRequest], Awaitable[RunResult]]
    request: RunRequest
    spent: int
    tokens: int = 0

    def count(self, tokens: int) -> None:
        """See `ScorerModel`."""
        self.tokens += tokens

    async def complete(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Sample:
        """See `ScorerModel`. `reasoning_effort` is the budget, off by default; `model` may name another."""
        limit = self.request.sampling.limits.max_tokens
        if limit is not None and self.spent >= limit:
            raise ScorerError("the request's limit in tokens is reached")
        model = self.request.model
        if (name := params.pop("model", model.name)) != model.name:
            model = ServedModel(name, self._family(name))
        thinking = parse_budget(params.pop("reasoning_effort", "off"), "reasoning_effort", model.levels)
        body = {"model": name, "messages": list(messages), **params}
        result = await self.ask(plan_request(body, RequestedSampling(thinking), ReplyOptions(), model))
        self.spent += result.generated
        self.tokens += result.generated + result.upstream_prompt
        return result.chosen[0]

    def _family(self, name: str) -> Family:
        """Return a model's family; an unknown name is an adapter's, on the base of the request's model."""
        own, family = self.request.model, find_family(name)
        return own.family if family is find_family("") and own.card and own.card.base else family
