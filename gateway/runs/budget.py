"""A request's headers, body and model name -> what it asks for.

A header beats the body, and the body beats the suffix of the model's name. The report lists what lost. Two
body fields that contradict each other are refused, and so is any unknown value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import BadRequest, unknown_value
from gateway.scorer_settings import SCORERS
from policies.prompts import LEVELS
from policies.stopping import parse_stop
from policies.types import RunLimits
from scorers.votes import VOTES

__all__ = [
    "AUTO",
    "ReasoningBudget",
    "RequestedSampling",
    "Scaling",
    "parse_budget",
    "read_sampling",
    "split_suffix",
]

T = TypeVar("T")

AUTO = "auto"
"""The budget that depends on a question's difficulty."""

_REASONING_FIELDS = ("effort", "max_tokens", "exclude", "enabled", "summary")
_THINKING_FIELDS = ("type", "budget_tokens")
_THINKING_TYPES = ("enabled", "disabled", "adaptive", "auto")
"""Anthropic's and Volcengine's last two leave the length to the model, so they name no budget."""
_ALIASES = {"none": "off", "xhigh": "max"}
_MAX_TOKENS = 2**53  # JSON's largest exact number; with the room for the answer it stays within 64 bits
_TOKENS = re.compile(r"\d{1,9}", re.ASCII)
_SUFFIX = re.compile(r"(?P<name>.+?)(?::(?P<level>[a-z]+))?(?:@(?P<samples>\d{1,4}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ReasoningBudget:
    """How long to think: a level's name, a number of tokens, or neither (no limit)."""

    level: str | None = None
    tokens: int | None = None

    def __str__(self) -> str:
        return self.level or ("unlimited" if self.tokens is None else str(self.tokens))


class Scaling(BaseModel):
    """The body's `scaling` object."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    samples: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    vote: str | None = None
    scorer: str | None = None
    stop: str | None = None
    window: Annotated[int, Field(ge=2)] = 5
    threshold: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    stream: Literal["winner", "first"] = "winner"
    trace: bool = False


_NO_SCALING = Scaling()


@dataclass(frozen=True, slots=True)
class RequestedSampling:
    """What a request asks for, before the model's own limits are known. None: the request doesn't say."""

    budget: ReasoningBudget | None = None
    samples: int | Literal["auto"] = 1
    vote: str = "majority"
    scorer: str = "none"
    stop: str = "adaptive"
    limits: RunLimits = RunLimits()
    scaling: Scaling = _NO_SCALING
    exclude: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)
    overridden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    """A value of a request, and where it stands."""

    carrier: Literal["header", "body", "model"]
    field: str
    value: T


def split_suffix(model: str, levels: Collection[str] = LEVELS) -> tuple[str, str | None, int | None]:
    """Split "name:high@8" into ("name", "high", 8). Only a known level or a number of samples is a suffix."""
    match = _SUFFIX.fullmatch(model)
    if match is None or (match["level"] and match["level"] not in levels):
        match = re.fullmatch(r"(?P<name>.+)(?P<level>(?!))?@(?P<samples>\d{1,4})", model, re.ASCII)
    if match is None:
        return model, None, None
    return match["name"], match["level"], int(match["samples"]) if match["samples"] else None


def read_sampling(
    headers: Mapping[str, str],
    body: dict[str, Any],
    *,
    level: str | None = None,
    samples: int | None = None,
    max_samples: int = 64,
    levels: Collection[str] = LEVELS,
    scorers: Collection[str] = ("none", *SCORERS),
    limited: bool = False,
) -> RequestedSampling:
    """Read everything that says how much to spend, and remove it from `body`.

    Fields that could carry a budget and carry none stay as they came, unless the thinking is `limited`
    anyway. `level` and `samples` are the suffix of the model's name. Raises `BadRequest`.
    """
    scaling = _scaling(body.pop("scaling", None))
    budgets = _one_body_entry(_thinking_fields(body, levels))
    exclude = _exclude(body)
    if (header := headers.get("x-reasoning-budget")) is not None:
        budget = parse_budget(header, "X-Reasoning-Budget", levels)
        budgets.insert(0, _Entry("header", "X-Reasoning-Budget", budget))
    if level is not None:
        budgets.append(_Entry("model", "model", ReasoningBudget(level)))
    if budgets or limited:
        _remove_budget_fields(body, switched_elsewhere=bool(budgets) and budgets[0].carrier != "body")
    counts: list[_Entry[Any]] = _entries(
        headers, "X-Samples", _samples_header, scaling.samples, "scaling.samples"
    )
    if samples is not None:
        counts.append(_Entry("model", "model", samples))
    votes = _entries(headers, "X-Vote", str.strip, scaling.vote, "scaling.vote")
    scorer_entries = _entries(headers, "X-Scorer", str.strip, scaling.scorer, "scaling.scorer")
    stops = _entries(headers, "X-Stop", str.strip, scaling.stop, "scaling.stop")
    for count in counts:
        _check_count(count, max_samples)
    for vote in votes:
        _known(vote, VOTES)
    for scorer in scorer_entries:
        _known(scorer, scorers)
    for stop in stops:
        _check_stop(stop)
    parts: dict[str, list[Any]] = {
        "budget": budgets,
        "samples": counts,
        "vote": votes,
        "scorer": scorer_entries,
        "stop": stops,
    }
    return RequestedSampling(
        **{name: entries[0].value for name, entries in parts.items() if entries},
        limits=RunLimits(scaling.max_tokens, scaling.max_seconds),
        scaling=scaling,
        exclude=exclude,
        sources={name: entries[0].carrier for name, entries in parts.items() if entries},
        overridden=tuple(
            f"{entry.field}={entry.value}"
            for entries in parts.values()
            for entry in entries[1:]
            if entry.value != entries[0].value
        ),
    )


def _entries(
    headers: Mapping[str, str], header: str, parse: Callable[[str], T], body_value: T | None, field: str
) -> list[_Entry[T]]:
    """Return what the header says, then what the body says."""
    entries: list[_Entry[T]] = []
    if (text := headers.get(header.lower())) is not None:
        entries.append(_Entry("header", header, parse(text)))
    if body_value is not None:
        entries.append(_Entry("body", field, body_value))
    return entries


def _known(entry: _Entry[str], allowed: Any) -> None:
    if entry.value not in allowed:
        raise unknown_value(entry.value, allowed, param=entry.field)


def _check_count(count: _Entry[Any], max_samples: int) -> None:
    if count.value != "auto" and not 1 <= count.value <= max_samples:
        raise BadRequest(
            f"{count.field}: {count.value} samples; allowed: 1 to {max_samples}.",
            param=count.field,
            code="invalid_value",
        )


def _check_stop(stop: _Entry[str]) -> None:
    try:
        parse_stop(stop.value)
    except ValueError as error:
        raise BadRequest(f"{stop.field}: {error}.", param=stop.field, code="invalid_value") from error


def _samples_header(text: str) -> int | Literal["auto"]:
    if text.strip() == "auto":
        return "auto"
    if not _TOKENS.fullmatch(text.strip()):
        raise unknown_value(text, ["auto", "a whole number from 1"], param="X-Samples")
    return int(text)


def parse_budget(value: object, param: str, levels: Collection[str] = LEVELS) -> ReasoningBudget:
    """Parse a level's name or a number of tokens, from a header or a string field. Raises `BadRequest`."""
    if isinstance(value, str):
        name = value.strip().lower()
        name = _ALIASES.get(name, name)
        if name in levels or name == AUTO:
            return ReasoningBudget(level=name)
        if _TOKENS.fullmatch(name):
            return ReasoningBudget(tokens=int(name))
    raise unknown_value(value, [*levels, AUTO, "<tokens> (a whole number from 0)"], param=param)


def _tokens(value: object, param: str, *, unlimited: bool = False) -> ReasoningBudget:
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= _MAX_TOKENS:
            return ReasoningBudget(tokens=value)
        if value == -1 and unlimited:
            return ReasoningBudget()
    allowed = "a whole number from 0" + (", or -1 for no limit" if unlimited else "")
    raise unknown_value(value, [allowed], param=param)


def _switch(value: object, param: str) -> ReasoningBudget | None:
    """Parse a boolean switch: off, or None for "on, for as long as another field says"."""
    if not isinstance(value, bool):
        raise unknown_value(value, ["true", "false"], param=param)
    return None if value else ReasoningBudget(level="off")


def _thinking_fields(
    body: Mapping[str, Any], levels: Collection[str]
) -> list[tuple[str, ReasoningBudget | None]]:
    """Read every body field that says how long to think."""
    budgets: list[tuple[str, ReasoningBudget | None]] = []
    if (effort := body.get("reasoning_effort")) is not None:
        budgets.append(("reasoning_effort", parse_budget(effort, "reasoning_effort", levels)))
    if (tokens := body.get("thinking_token_budget")) is not None:
        budgets.append(("thinking_token_budget", _tokens(tokens, "thinking_token_budget", unlimited=True)))
    if (tokens := body.get("thinking_budget")) is not None:
        budgets.append(("thinking_budget", _tokens(tokens, "thinking_budget", unlimited=True)))
    if (switch := body.get("enable_thinking")) is not None:
        budgets.append(("enable_thinking", _switch(switch, "enable_thinking")))
    if (reasoning := body.get("reasoning")) is not None:
        budgets += _reasoning_object(reasoning, levels)
    if (thinking := body.get("thinking")) is not None:
        budgets += _thinking_object(thinking)
    return budgets


def _reasoning_object(value: object, levels: Collection[str]) -> list[tuple[str, ReasoningBudget | None]]:
    """Read OpenRouter's `reasoning: {effort | max_tokens, exclude, enabled}`."""
    fields = _object(value, "reasoning", _REASONING_FIELDS)
    budgets: list[tuple[str, ReasoningBudget | None]] = []
    if fields.get("effort") is not None:
        budgets.append(("reasoning.effort", parse_budget(fields["effort"], "reasoning.effort", levels)))
    if fields.get("max_tokens") is not None:
        budgets.append(("reasoning.max_tokens", _tokens(fields["max_tokens"], "reasoning.max_tokens")))
    if fields.get("enabled") is not None:
        budgets.append(("reasoning.enabled", _switch(fields["enabled"], "reasoning.enabled")))
    return budgets


def _thinking_object(value: object) -> list[tuple[str, ReasoningBudget | None]]:
    """Read Anthropic's `thinking: {type, budget_tokens}`; other vendors have more fields there."""
    fields = _object(value, "thinking", _THINKING_FIELDS)
    kind = fields.get("type")
    if kind is not None and kind not in _THINKING_TYPES:
        raise unknown_value(kind, _THINKING_TYPES, param="thinking.type")
    budgets: list[tuple[str, ReasoningBudget | None]] = []
    if kind in ("enabled", "disabled"):
        budgets.append(("thinking.type", _switch(kind == "enabled", "thinking.type")))
    if fields.get("budget_tokens") is not None:
        budgets.append(("thinking.budget_tokens", _tokens(fields["budget_tokens"], "thinking.budget_tokens")))
    return budgets


def _remove_budget_fields(body: dict[str, Any], *, switched_elsewhere: bool) -> None:
    """Remove the fields that the gateway answers for itself; vendors' fields inside of objects stay.

    `switched_elsewhere`: a header or the model's name beats what `thinking.type` says.
    """
    for name in ("reasoning_effort", "thinking_token_budget", "thinking_budget", "enable_thinking"):
        body.pop(name, None)
    body.pop("include_reasoning", None)
    for name, own in (("reasoning", _REASONING_FIELDS), ("thinking", _THINKING_FIELDS)):
        fields = body.pop(name, None) or {}
        rest = {key: value for key, value in fields.items() if key not in own}
        if not rest:
            continue
        if "type" in fields and not switched_elsewhere:
            rest = {"type": fields["type"], **rest}  # vendors want both
        body[name] = rest


def _one_body_entry(fields: list[tuple[str, ReasoningBudget | None]]) -> list[_Entry[ReasoningBudget]]:
    """Return the one budget that all body fields ask for; a bare "on" is medium, as in OpenRouter."""
    budgets = [(name, value) for name, value in fields if value is not None]
    switched_on = [name for name, value in fields if value is None]
    if not budgets:
        return [_Entry("body", switched_on[0], ReasoningBudget(level="medium"))] if switched_on else []
    name, value = budgets[0]
    for other, differing in budgets[1:]:
        if differing != value:
            raise _contradiction(f"{name}={value}", f"{other}={differing}", other)
    if switched_on and (value.level == "off" or value.tokens == 0):
        raise _contradiction(f"{name}={value}", f"{switched_on[0]}=on", switched_on[0])
    return [_Entry("body", name, value)]


def _exclude(body: Mapping[str, Any]) -> bool:
    """Return whether the client wants the thinking left out of the answer."""
    exclude = (body.get("reasoning") or {}).get("exclude")
    include = body.get("include_reasoning")
    for value, param in ((exclude, "reasoning.exclude"), (include, "include_reasoning")):
        if value is not None:
            _switch(value, param)
    if exclude is not None and include is not None and exclude is include:
        raise _contradiction(
            f"reasoning.exclude={exclude}", f"include_reasoning={include}", "include_reasoning"
        )
    return bool(exclude) or include is False


def _object(value: object, param: str, allowed: Collection[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise unknown_value(value, ["an object with " + ", ".join(allowed)], param=param)
    return value


def _scaling(value: object) -> Scaling:
    if value is None:
        return _NO_SCALING
    try:
        return Scaling.model_validate(value)
    except ValidationError as error:
        problem, *others = error.errors(include_input=False, include_url=False)
        param = ".".join(str(part) for part in ("scaling", *problem["loc"][:1]))
        if problem["type"] == "extra_forbidden":
            raise BadRequest(
                f"{param}: unknown field; allowed in scaling: {', '.join(Scaling.model_fields)}.",
                param=param,
                code="invalid_value",
            ) from error
        alternatives = [other["msg"] for other in others if other["loc"][:1] == problem["loc"][:1]]
        message = ", or: ".join([problem["msg"], *alternatives])
        raise BadRequest(f"{param}: {message}.", param=param, code="invalid_value") from error


def _contradiction(one: str, other: str, param: str) -> BadRequest:
    return BadRequest(
        f"{one} and {other} contradict each other; send one of them.", param=param, code="contradiction"
    )
