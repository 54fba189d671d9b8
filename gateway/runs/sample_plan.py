"""How the samples of one level are asked for: the upstream request, the thinking limit, who enforces it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.runs.request import RunRequest, ServedModel, estimate_prompt
from gateway.upstreams.base import ModelTraits, Prompt, Upstream
from policies.limiter import share_tokens
from policies.prompts import Level, nearest_level, policy_prompt
from policies.shaping import shape
from policies.thinking import Markup
from policies.types import SamplingRequest

__all__ = ["RenderedPrompt", "SamplePlan", "plan_samples"]


@dataclass(slots=True)
class RenderedPrompt:
    """The prompt of a plan as the engine renders it; all samples of the plan share one request for it."""

    prompt: Prompt | None = None
    fetched: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fetch(self, upstream: Upstream, body: Mapping[str, Any]) -> Prompt | None:
        """Return the prompt; None where the engine can't render it, or its chat route has to read the reply.

        The engine's chat route reads tool calls out of the text. So a request with tools continues from an
        open assistant message instead.
        """
        async with self.lock:
            if not self.fetched and not body.get("tools"):
                self.prompt = await upstream.render(body)
            self.fetched = True
            return self.prompt


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """How the samples of one level are asked for.

    `body` is the upstream chat request without `n`, `seed` and `stream`. `markup` is that of the text which
    the model writes. `traits` is what is known of the model at this upstream.

    `limit` is in thinking tokens (None: no limit), `total` caps thinking and answer together (None: no cap).
    `native`: the engine was asked to enforce the limit itself; where it refuses, `fallback` is drawn instead.
    `waits` bounds how often an early end of thinking is put off. `schema` is the `response_format` that
    `body` lacks until the thinking is over, because it would suppress the thinking.

    `prefill` stands in the assistant's turn before the model begins; `prefix` is the same with what the
    template would have written. `thinking_off`: the chat template has thinking switched off, by the client's
    own words or the gateway's. `repairs_stops`: a stop string that the model meets within its thinking only
    ends the thinking. `window`: the samples' confidence is watched over so many tokens (None: not at all); of
    the logprobs themselves all are kept only if `keeps_logprobs`. `verbatim`: nothing was asked, so the
    request and the reply cross unchanged. `notes` say what was done otherwise than asked.
    """

    sampling: SamplingRequest
    body: Mapping[str, Any]
    markup: Markup
    traits: ModelTraits
    limit: int | None = None
    total: int | None = None
    native: bool = False
    waits: int = 0
    schema: Mapping[str, Any] | None = None
    prefill: str = ""
    prefix: str = ""
    thinking_off: bool = False
    repairs_stops: bool = False
    verbatim: bool = False
    window: int | None = None
    keeps_logprobs: bool = False
    notes: tuple[str, ...] = ()
    rendered: RenderedPrompt = field(default_factory=RenderedPrompt)
    fallback: SamplePlan | None = None


def plan_samples(request: RunRequest, sampling: SamplingRequest, traits: ModelTraits) -> SamplePlan:
    """Plan the samples at the level of `sampling`, which for `auto` differs from the request's own."""
    model = request.model
    family, level = model.family, _level(model, sampling)
    tags, teach = Markup(family.open, family.close), family.off_fallback == "prompt"
    policy = policy_prompt(level, tags, teach=teach) if level else None
    shaped = shape(family, request.body, sampling, policy)
    body, limit, total, notes = shaped.body, sampling.thinking_limit, request.token_cap, shaped.notes
    if limit == 0 and shaped.off is None:  # the request's own words keep thinking on
        limit = model.cap
    if limit is not None:
        limit = share_tokens(limit, request.answer_reserve, total)
        if total is None and model.answer_cap is not None:
            total = _capped_total(request, limit, model.answer_cap)
            body = {**body, "max_tokens": total}
            notes = (*notes, f"the answer has at most {total - limit} tokens: the operator's answer_cap")
    plan = SamplePlan(
        sampling,
        body,
        shaped.markup,
        traits,
        limit,
        total,
        waits=level.waits if level else 0,
        prefill=shaped.prefill,
        prefix=shaped.prefix,
        thinking_off=shaped.off in ("native", "already", "prefill"),
        repairs_stops=bool(request.body.get("stop")) and (request.votes or limit is not None),
        verbatim=request.verbatim,
        window=request.window,
        keeps_logprobs=request.keeps_logprobs,
        notes=notes,
    )
    return plan if limit is None else _with_enforcer(plan, limit)


def _capped_total(request: RunRequest, limit: int, answer_cap: int) -> int:
    """Return the cap on thinking and answer together, within the context; engines refuse a higher one."""
    total, context = limit + answer_cap, request.model.context
    if context is None:
        return total
    return min(total, max(context - estimate_prompt(request.body), limit + 1))


def _with_enforcer(plan: SamplePlan, limit: int) -> SamplePlan:
    """Have the engine enforce the limit where it can, else the gateway."""
    forced = plan
    schema = plan.body.get("response_format")
    if limit and isinstance(schema, dict) and schema.get("type") in ("json_schema", "json_object"):
        body = {name: value for name, value in plan.body.items() if name != "response_format"}
        forced = replace(plan, body=body, schema=schema)
    traits = plan.traits
    if traits.limit_field is None or traits.keeps_limit is False:
        return forced
    body = {**plan.body, traits.limit_field: limit}
    return replace(plan, body=body, native=True, prefill="", prefix="", fallback=forced)


def _level(model: ServedModel, sampling: SamplingRequest) -> Level | None:
    """Return the level whose prompt fits; None where nothing was asked, or expressly no limit."""
    if sampling.level is not None:
        return model.levels.get(sampling.level)
    return None if sampling.thinking_limit is None else nearest_level(sampling.thinking_limit, model.levels)
