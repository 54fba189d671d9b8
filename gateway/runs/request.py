"""One request, ready to run: what the client asks for and what its model allows, put together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gateway.errors import BadRequest
from gateway.runs.budget import AUTO, ReasoningBudget, RequestedSampling
from gateway.upstreams.base import ModelCard
from policies.families import Family
from policies.limiter import share_tokens
from policies.prompts import LEVELS, Level, thinking_limit
from policies.shaping import strip_thinking
from policies.types import SamplingRequest

__all__ = [
    "AUTO_SAMPLES",
    "ReplyOptions",
    "Route",
    "RunRequest",
    "ServedModel",
    "estimate_prompt",
    "plan_request",
]

_BYTES_PER_PROMPT_TOKEN = 3  # low on purpose: a prompt that is overestimated leaves room
AUTO_SAMPLES = 8
"""The most samples where difficulty decides how many are drawn."""


@dataclass(frozen=True, slots=True)
class Route:
    """The alias that a request named, and the model behind it."""

    alias: str
    target: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is known of the model that a request is for.

    `levels` are the budgets that it may be asked for. `default` applies where a client says nothing, and
    `default_by` names who set it. `cap` is the most thinking tokens, whatever a client says. `answer_cap` is
    the most tokens of an answer where thinking is limited and the client caps nothing.
    """

    name: str
    family: Family
    card: ModelCard | None = None
    levels: Mapping[str, Level] = field(default_factory=lambda: LEVELS)
    default: ReasoningBudget | None = None
    cap: int | None = None
    answer_reserve: int = 1024
    default_by: str = "default"
    answer_cap: int | None = None

    @property
    def context(self) -> int | None:
        """The model's context length in tokens; None where the upstream doesn't tell it."""
        return self.card.context if self.card else None

    @property
    def reserve(self) -> int:
        """Tokens kept free for the answer."""
        return self.answer_reserve if self.context is None else min(self.answer_reserve, self.context // 4)


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """How a client wants its answer: as a stream or not, how many choices, what beside the text.

    `plain`: without `scaling`, the gateway's headers and the doubled reasoning field.
    """

    stream: bool = False
    choices: int = 1
    include_usage: bool = False
    exclude_reasoning: bool = False
    live: Literal["winner", "first"] = "winner"
    trace: bool = False
    plain: bool = False


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One request, ready to run.

    - `requested_budget` is the client's own word for its budget, if it has one.
    - `votes` says that a vote combines the samples; without it, all of them are returned.
    - `auto_samples` makes `sampling.samples` a maximum; difficulty decides how many are drawn.
    - `token_cap` is the client's own cap on thinking and answer together.
    - `answer_reserve` is the number of tokens kept free for the answer.
    - `window` is the number of tokens over which confidence is measured; None measures none.
    - `keeps_logprobs` says that the client itself wants the logprobs.
    - `route` is the alias that the client named, and the model behind it.
    - `verbatim` says that nothing was asked for and no default or cap applies: the body goes out as it came,
      and the reply comes back as the engine gave it.
    """

    body: Mapping[str, Any]
    model: ServedModel
    sampling: SamplingRequest
    reply: ReplyOptions
    requested_budget: str | None = None
    overridden: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    min_share: float = 0.0
    votes: bool = False
    auto_samples: bool = False
    token_cap: int | None = None
    answer_reserve: int = 0
    window: int | None = None
    keeps_logprobs: bool = False
    route: Route | None = None
    verbatim: bool = False


def plan_request(
    body: Mapping[str, Any],
    requested: RequestedSampling,
    reply: ReplyOptions,
    model: ServedModel,
    *,
    auto_cap: int = AUTO_SAMPLES,
    max_samples: int = 64,
    route: Route | None = None,
) -> RunRequest:
    """Combine what a client requests with its model's limits. `body` is the chat request as cleaned.

    `auto_cap` is the most samples where difficulty decides how many are drawn, `max_samples` the most
    where anything else does. Raises `BadRequest` where the client wants more choices than samples.
    """
    sources = dict(requested.sources)
    budget = requested.budget
    if budget is None and model.default is not None:
        budget = model.default
        sources["budget"] = model.default_by
    level = model.levels.get(budget.level or "") if budget else None
    caps = _Caps(auto_cap, max_samples, greedy=body.get("temperature") == 0)
    vote_plan = _plan_vote(requested, reply, budget, level, caps)
    token_cap: int | None = body.get("max_completion_tokens") or body.get("max_tokens")
    limit = _limit(budget, level, model, body, token_cap)
    sampling = SamplingRequest(
        level=budget.level if budget else None,
        thinking_limit=limit,
        samples=vote_plan.samples,
        vote=vote_plan.vote,
        scorer=requested.scorer,
        stop=vote_plan.stop,
        limits=requested.limits,
        sources=sources,
        window=requested.scaling.window,
        threshold=requested.scaling.threshold,
        choices=min(vote_plan.reply.choices, vote_plan.samples),
    )
    asks = bool(sources or requested.scaling.model_fields_set or limit is not None or vote_plan.samples > 1)
    notes = [*vote_plan.notes]
    if limit is not None and budget is not None:
        capped = limit == model.cap and limit != _limit(
            budget, level, replace(model, cap=None), body, token_cap
        )
        notes += _limit_notes(limit, budget, capped=capped)
    if asks and any(message.get("role") == "assistant" for message in body["messages"]):
        body = {**body, "messages": strip_thinking(body["messages"], model.family)}
    if not asks and reply.choices > 1:
        body = {**body, "n": reply.choices}
    return RunRequest(
        body,
        model,
        sampling,
        vote_plan.reply,
        str(budget) if budget else None,
        requested.overridden,
        tuple(notes),
        requested.scaling.min_share,
        votes=vote_plan.samples > 1,
        auto_samples=vote_plan.auto,
        token_cap=token_cap,
        answer_reserve=model.reserve,
        route=route,
        verbatim=not asks,
    )


@dataclass(frozen=True, slots=True)
class _Caps:
    """The most samples, where difficulty decides and where anything else does. `greedy`: all are equal."""

    auto: int
    samples: int
    greedy: bool


@dataclass(frozen=True, slots=True)
class _VotePlan:
    """How many samples to draw, how to combine them, and notes about it for the client."""

    samples: int
    vote: str
    stop: str
    reply: ReplyOptions
    auto: bool
    notes: tuple[str, ...]


def _plan_vote(
    requested: RequestedSampling,
    reply: ReplyOptions,
    budget: ReasoningBudget | None,
    level: Level | None,
    caps: _Caps,
) -> _VotePlan:
    """Apply what the client says, then what its level brings along. Raises `BadRequest`."""
    if reply.choices > caps.samples:
        raise _too_many_choices(f"{reply.choices} choices", caps.samples)
    notes: list[str] = []
    samples: Any = requested.samples
    vote, stop, sources = requested.vote, requested.stop, requested.sources
    if level is not None:
        samples = samples if "samples" in sources else min(level.samples or 1, caps.samples)
        vote = vote if "vote" in sources else level.vote or vote
        stop = stop if "stop" in sources else level.stop or stop
    if "vote" not in sources and requested.scorer != "none":
        vote = "weighted"
    auto = samples == AUTO
    if auto or (budget is not None and budget.level == AUTO and "samples" not in sources):
        samples = max(caps.auto, reply.choices)
        if "stop" in sources:
            notes.append(
                f'the stop "{stop}" has no effect: "auto" itself decides how many samples are enough'
            )
    if samples > 1 and caps.greedy:
        samples = 1
        reply = replace(reply, choices=1)
        notes.append("temperature is 0, so all samples would be the same: one was drawn")
    if reply.choices > samples > 1:
        raise _too_many_choices(f"{reply.choices} choices of {samples} samples", samples)
    return _VotePlan(samples, vote, stop, reply, auto, tuple(notes))


def _too_many_choices(requested: str, most: int) -> BadRequest:
    return BadRequest(f"n: {requested}; allowed: 1 to {most}.", param="n", code="invalid_value")


def _limit_notes(limit: int, budget: ReasoningBudget, *, capped: bool) -> list[str]:
    """Say so where a client gets less thinking than it asked for."""
    if budget.tokens is not None and limit < budget.tokens:
        return [f"the limit is {limit} thinking tokens: no more fit, or are allowed"]
    return [f"the limit is {limit} thinking tokens: no more are allowed"] if capped else []


def _limit(
    budget: ReasoningBudget | None,
    level: Level | None,
    model: ServedModel,
    body: Mapping[str, Any],
    token_cap: int | None,
) -> int | None:
    """Return the hard limit in thinking tokens, from all that bears on it; None: no limit."""
    if budget is None:
        return model.cap
    context = model.context
    tokens = budget.tokens if level is None else thinking_limit(level, context)
    limits = [limit for limit in (tokens, model.cap) if limit is not None]
    if context is not None and (limits or budget.level == AUTO):
        limits.append(max(0, context - model.reserve - estimate_prompt(body)))
    if not limits:
        return None
    return share_tokens(min(limits), model.reserve, token_cap)


def estimate_prompt(body: Mapping[str, Any]) -> int:
    """Estimate the tokens of the prompt, rather too many than too few."""
    size = 0
    for message in body.get("messages", ()):
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        size += sum(len(str(part.get("text") or "").encode()) for part in parts if isinstance(part, dict))
        size += 24  # the template's own tokens around each message
    return size // _BYTES_PER_PROMPT_TOKEN + 64
