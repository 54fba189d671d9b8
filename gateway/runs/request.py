"""What to ask of the upstream for one request: limits in tokens, the shaped body, the terms. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gateway.aliases import Route
from gateway.errors import BadRequest
from gateway.runs.budget import AUTO, ReasoningBudget, RequestedSampling
from gateway.runs.sample_state import Terms
from gateway.upstreams.base import ModelCard
from policies.families import Family
from policies.limiter import share_tokens
from policies.prompts import LEVELS, Level, nearest_level, policy_prompt, thinking_limit
from policies.shaping import Shaped, shape, strip_thinking
from policies.types import SamplingRequest

__all__ = ["AUTO_SAMPLES", "Approach", "ReplyOptions", "RunRequest", "ServedModel", "plan_request"]

_BYTES_PER_PROMPT_TOKEN = 3  # low on purpose: a prompt taken for longer than it is leaves room
AUTO_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is known of the model a request is for.

    `levels` are the budgets it may be asked for; `default` stands where a client says
    nothing, by the word of `default_by`; `cap` is the most thinking tokens, whatever a client says.
    """

    name: str
    family: Family
    card: ModelCard | None = None
    levels: Mapping[str, Level] = field(default_factory=lambda: LEVELS)
    default: ReasoningBudget | None = None
    cap: int | None = None
    answer_reserve: int = 1024
    default_by: str = "default"

    @property
    def context(self) -> int | None:
        """The model's context length in tokens; None where the upstream doesn't tell."""
        return self.card.context if self.card else None

    @property
    def reserve(self) -> int:
        """Tokens that the answer is left with."""
        return self.answer_reserve if self.context is None else min(self.answer_reserve, self.context // 4)


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """How a client wants its answer: as a stream, how many choices, with what beside the text."""

    stream: bool = False
    choices: int = 1
    include_usage: bool = False
    exclude_reasoning: bool = False
    live: Literal["winner", "first"] = "winner"
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Approach:
    """How samples at one level of effort are asked for.

    `body` is the upstream chat request without `n` and `stream`, `schema` the
    `response_format` held back from it until the thinking is over.
    """

    shaped: Shaped
    terms: Terms
    body: Mapping[str, Any]
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One request, ready for the engine. `asked` is the client's own word for its budget, if any.

    `auto_samples`: `budget.samples` is only the most that may be drawn, and difficulty says how
    many are. `window`: the samples' confidence is watched over so many tokens.
    `logged`: the client wants the logprobs themselves. `route`: the alias it named, and its target.
    """

    body: Mapping[str, Any]
    model: ServedModel
    sampling: SamplingRequest
    reply: ReplyOptions
    asked: str | None = None
    overridden: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    min_share: float = 0.0
    auto_samples: bool = False
    window: int | None = None
    logged: bool = False
    route: Route | None = None

    @property
    def votes(self) -> bool:
        """Whether samples are drawn to be combined (rather than returned as they are)."""
        return self.sampling.samples > 1

    def approach(self, sampling: SamplingRequest, *, native: Mapping[str, Any] | None = None) -> Approach:
        """The request for samples at `budget`'s effort, which for `auto` differs from the request's own.

        `native` are the fields by which the engine is asked to keep the limit itself; None
        where it can't, so that the gateway does.
        """
        level = self._level(sampling)
        family, markup = self.model.family, self.model.family.markup
        policy = policy_prompt(level, markup, teach=family.off_fallback == "prompt") if level else None
        shaped = shape(family, self.body, sampling, policy)
        limit, total = sampling.thinking_limit, None
        if limit == 0 and shaped.off is None:  # the request's own words keep thinking on
            limit = self.model.cap
        if limit is not None:
            limit, total = share_tokens(limit, self.model.reserve, _own_cap(self.body))
        body = dict(shaped.body)
        if total is not None:
            body["max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"] = total
        terms = Terms(
            shaped.markup,
            limit,
            total,
            waits=level.waits if level else 0,
            prefill=shaped.prefill,
            prefix=shaped.prefix,
            window=self.window,
            logged=self.logged,
        )
        if native is not None and limit is not None:
            return Approach(
                shaped, replace(terms, native=True, prefill="", prefix=""), {**body, **native}, None
            )
        schema = body.get("response_format")
        if limit and isinstance(schema, dict) and schema.get("type") in ("json_schema", "json_object"):
            del body["response_format"]
            return Approach(shaped, replace(terms, staged=True), body, schema)
        return Approach(shaped, terms, body)

    def _level(self, sampling: SamplingRequest) -> Level | None:
        """The level whose prompt fits; None where nothing was asked, or expressly no limit."""
        if sampling.level is not None:
            return self.model.levels.get(sampling.level)
        return (
            None
            if sampling.thinking_limit is None
            else nearest_level(sampling.thinking_limit, self.model.levels)
        )


def plan_request(
    body: Mapping[str, Any],
    asked: RequestedSampling,
    reply: ReplyOptions,
    model: ServedModel,
    *,
    auto_cap: int = AUTO_SAMPLES,
    max_samples: int = 64,
) -> RunRequest:
    """Puts a request's wishes and its model's limits together. `body` is the chat request as cleaned.

    `auto_cap` is the most samples where difficulty says how many are drawn, `max_samples` the most
    where anything else does. Raises `BadRequest` where more choices are asked for than samples.
    """
    sources = dict(asked.sources)
    thinking = asked.thinking
    if thinking is None and model.default is not None:
        thinking = model.default
        sources["thinking"] = model.default_by
    level = model.levels.get(thinking.level or "") if thinking else None
    bounds = _Bounds(auto_cap, max_samples, greedy=body.get("temperature") == 0)
    drawing = _drawing(asked, reply, thinking, level, bounds)
    limit = _limit(thinking, level, model, body)
    sampling = SamplingRequest(
        level=thinking.level if thinking else None,
        thinking_limit=limit,
        samples=drawing.samples,
        vote=drawing.vote,
        scorer=asked.scorer,
        stop=drawing.stop,
        limits=asked.limits,
        sources=sources,
        window=asked.scaling.window,
        threshold=asked.scaling.threshold,
        choices=min(drawing.reply.choices, drawing.samples),
    )
    notes = (*drawing.notes, *_limit_notes(limit, thinking, level, model, body))
    if any(message.get("role") == "assistant" for message in body["messages"]):
        body = {**body, "messages": strip_thinking(body["messages"], model.family)}
    return RunRequest(
        body,
        model,
        sampling,
        drawing.reply,
        str(thinking) if thinking else None,
        asked.overridden,
        notes,
        asked.scaling.min_share,
        auto_samples=drawing.auto,
    )


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The most samples, where difficulty says how many and where anything else does; and if all are equal."""

    auto: int
    samples: int
    greedy: bool


@dataclass(frozen=True, slots=True)
class _Drawing:
    """How many samples are drawn, what becomes of them, and what the client should know of it."""

    samples: int
    vote: str
    stop: str
    reply: ReplyOptions
    auto: bool
    notes: tuple[str, ...]


def _drawing(
    asked: RequestedSampling,
    reply: ReplyOptions,
    thinking: ReasoningBudget | None,
    level: Level | None,
    bounds: _Bounds,
) -> _Drawing:
    """What the client says comes first, then what its level brings along. Raises `BadRequest`."""
    if reply.choices > bounds.samples:
        raise BadRequest(
            f"n: {reply.choices} choices; allowed: 1 to {bounds.samples}.", param="n", code="invalid_value"
        )
    notes: list[str] = []
    samples: Any = asked.samples
    vote, stop, said = asked.vote, asked.stop, asked.sources
    if level is not None:
        samples = samples if "samples" in said else min(level.samples or 1, bounds.samples)
        vote = vote if "vote" in said else level.vote or vote
        stop = stop if "stop" in said else level.stop or stop
    if "vote" not in said and asked.scorer != "none":
        vote = "weighted"
    auto = samples == AUTO
    if auto or (thinking is not None and thinking.level == AUTO and "samples" not in said):
        samples = max(bounds.auto, reply.choices)
        if "stop" in said:
            notes.append(f'the stop "{stop}" has no say: "auto" itself finds how many samples are enough')
    if samples > 1 and bounds.greedy:
        samples = 1
        reply = replace(reply, choices=1)
        notes.append("temperature is 0, so all samples would be the same: one was drawn")
    if reply.choices > samples > 1:
        raise BadRequest(
            f"n: {reply.choices} choices of {samples} samples; allowed: 1 to {samples}.",
            param="n",
            code="invalid_value",
        )
    return _Drawing(samples, vote, stop, reply, auto, tuple(notes))


def _limit_notes(
    limit: int | None,
    thinking: ReasoningBudget | None,
    level: Level | None,
    model: ServedModel,
    body: Mapping[str, Any],
) -> list[str]:
    """Says so where a client gets less thinking than it asked for."""
    if limit is None or thinking is None:
        return []
    if thinking.tokens is not None and limit < thinking.tokens:
        return [f"the limit is {limit} thinking tokens: no more fit, or are allowed"]
    if limit == model.cap:
        uncapped = _limit(thinking, level, replace(model, cap=None), body)
        if uncapped is None or uncapped > limit:
            return [f"the limit is {limit} thinking tokens: no more are allowed"]
    return []


def _limit(
    thinking: ReasoningBudget | None, level: Level | None, model: ServedModel, body: Mapping[str, Any]
) -> int | None:
    """The hard limit in thinking tokens, all that bears on it considered; None: no limit."""
    if thinking is None:
        return model.cap
    asked = thinking.tokens if level is None else thinking_limit(level, model.context)
    limits = [limit for limit in (asked, model.cap) if limit is not None]
    if model.context is not None and (limits or thinking.level == AUTO):
        limits.append(max(0, model.context - model.reserve - _prompt_estimate(body)))
    if not limits:
        return None
    return share_tokens(min(limits), model.reserve, _own_cap(body))[0]


def _own_cap(body: Mapping[str, Any]) -> int | None:
    """The client's own cap on thinking and answer together."""
    cap: int | None = body.get("max_completion_tokens") or body.get("max_tokens")
    return cap


def _prompt_estimate(body: Mapping[str, Any]) -> int:
    """Tokens of the prompt, rather too many than too few."""
    size = 0
    for message in body.get("messages", ()):
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        size += sum(len(str(part.get("text") or "").encode()) for part in parts if isinstance(part, dict))
        size += 24  # the template's own tokens around each message
    return size // _BYTES_PER_PROMPT_TOKEN + 64
